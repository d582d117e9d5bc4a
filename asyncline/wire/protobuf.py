"""Fields of bytes cut out of a protobuf message, and put behind one, without a copy of their own; and packed numbers,
of which protobuf would make objects one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from asyncline.errors import BadRequest

MOST_FIELDS = 4096
"""Most fields of a message that is cut: each is looked at one by one."""

Array = np.ndarray[Any, Any]

_MORE, _SEVEN = 128, 127
"""The bit of a byte of a varint that says that more come, and the others."""
_MOST_VARINT = 10
_PIECE_NBYTES = 64 * 1024
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def fields(data: bytes | memoryview, most: int) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Each field of a message: its key, all of it, and its value, which is empty where it is none of bytes.

    A key is the field's number, times 8, and how it is written: 2 is for bytes.

    :raises BadRequest: this is no protobuf, or has more fields than `most`.
    """
    view = memoryview(data)
    place, end, count = 0, view.nbytes, 0
    while place < end:
        count += 1
        if count > most:
            raise BadRequest(f"the message has more than {most} fields")
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
        stop = place + length
        yield key, view[start:stop], view[place : stop if wire == _BYTES else place]
        place = stop


def cut(data: bytes | memoryview, number: int) -> tuple[bytes, list[memoryview]]:
    """Take a message apart: it without field `number`, and the bytes of every one of those.

    :raises BadRequest: this is no protobuf, or has too many fields.
    """
    wanted = number << 3 | _BYTES
    found: list[memoryview] = []
    rest: list[memoryview] = []
    for key, field, value in fields(data, MOST_FIELDS):
        if key == wanted:
            found.append(value)
        else:
            rest.append(field)
    return b"".join(rest), found


def count(data: bytes | memoryview, most: int) -> int:
    """How many fields a message has.

    :raises BadRequest: this is no protobuf, or has too many fields.
    """
    return sum(1 for _ in fields(data, most))


def packed(contents: memoryview) -> tuple[int, memoryview] | None:
    """The number and the bytes of the one field of bytes that a message consists of, as one of packed numbers does;
    None where there is more, or something else.
    """
    if not contents:
        return None
    key, place = _read_varint(contents, 0)
    if key & 7 != _BYTES:
        return None
    length, place = _read_varint(contents, place)
    return (key >> 3, contents[place:]) if place + length == contents.nbytes else None


def count_varints(data: memoryview) -> int:
    """How many numbers `varints` yields in all."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) < _MORE))


def varints(data: memoryview) -> Iterator[Array]:
    """Packed varints, in pieces, as int64: those of uint64 wrap.

    :raises BadRequest: the last one is cut off, or one is too long.
    """
    octets = np.frombuffer(data, np.uint8)
    place = 0
    while place < octets.size:
        piece = octets[place : place + _PIECE_NBYTES]
        ends = np.flatnonzero(piece < _MORE)
        if not ends.size:
            raise BadRequest("a number of the message is cut off")
        piece = piece[: ends[-1] + 1]
        place += piece.size
        starts = np.concatenate(([0], ends[:-1] + 1))
        lengths = ends - starts + 1
        longest = int(lengths.max())
        if longest > _MOST_VARINT:
            raise BadRequest("a number of the message is too long")
        values = (piece[starts] & _SEVEN).astype(np.uint64)
        for digit in range(1, longest):
            those = np.flatnonzero(lengths > digit)
            values[those] |= (piece[starts[those] + digit] & _SEVEN).astype(np.uint64) << np.uint64(7 * digit)
        yield values.view(np.int64)


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
