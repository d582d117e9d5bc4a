"""Fields of bytes cut out of a protobuf message, and put behind one, without a copy of their own."""

from __future__ import annotations

from collections.abc import Iterable

from asyncline.errors import BadRequest

MOST_FIELDS = 4096
"""Most fields of a message that is cut: each is looked at one by one."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def cut(data: bytes | memoryview, number: int) -> tuple[bytes, list[memoryview]]:
    """Take a message apart: it without field `number`, and the bytes of every one of those.

    :raises BadRequest: this is no protobuf, or has too many fields.
    """
    view = memoryview(data)
    wanted = number << 3 | _BYTES
    found: list[memoryview] = []
    rest: list[memoryview] = []
    place, end, fields = 0, view.nbytes, 0
    while place < end:
        fields += 1
        if fields > MOST_FIELDS:
            raise BadRequest(f"the message has more than {MOST_FIELDS} fields")
        start = place
        key, place = _read_varint(view, place)
        wire = key & 7
        if wire == _BYTES:
            length, place = _read_varint(view, place)
        elif wire == _VARINT:
            _, place = _read_varint(view, place)
            length = 0
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise BadRequest("the message is no protobuf")
        if length > end - place:
            raise BadRequest("the message is cut off")
        if key == wanted:
            found.append(view[place : place + length])
        else:
            rest.append(view[start : place + length])
        place += length
    return b"".join(rest), found


def join(rest: bytes, number: int, values: Iterable[bytes | memoryview]) -> bytes:
    """Put fields `number` behind a message; the opposite of `cut`."""
    key = bytes((number << 3 | _BYTES,))
    parts: list[bytes | memoryview] = [rest]
    for value in values:
        parts += (key, _varint(len(value)), value)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _read_varint(view: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= view.nbytes:
            raise BadRequest("the message is cut off")
        byte = view[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise BadRequest("the message is no protobuf")
