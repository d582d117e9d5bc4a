"""Values to a header and sections, and back.

Arrays and long bytes are sections of the body, and stand in the header as extensions that say where. Where a value
is still too long for a header, it becomes a section itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgpack
import numpy as np

from asyncline.errors import BadRequest, TooLarge
from asyncline.wire import heads
from asyncline.wire.frame.decoder import ALIGNMENT, MAX_BODY_NBYTES, MAX_HEADER_NBYTES, Buffer
from asyncline.wire.oip.datatypes import Array, count
from asyncline.wire.weight import Scale

TENSOR, BYTES, VALUE = 1, 2, 3
"""Extension types: [offset, dtype, shape], [offset, length], [offset, length]."""

DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64", "complex64", "complex128",
    )
}  # fmt: skip
"""The dtypes of tensors, by numpy's names. All are little-endian."""
MAX_DEPTH = 32
"""Most arrays and maps inside each other in a CALL, the header's own among them."""
MAX_DIMENSIONS = 64
"""Most lengths of a shape that are read at all."""
MAX_SECTIONS = 4096
"""Most extensions in one CALL: each is a call of Python, on the loop."""
INLINE_NBYTES = 4096
"""Bytes and texts up to here stay in the header."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_BYTES = (bytes, bytearray, memoryview)
_CONTAINERS = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
"""What an array or a map begins with; other bytes may look like it, but none of these looks like another."""
_PADDING = bytes(ALIGNMENT)
_pack_place = partial(msgpack.packb, use_bin_type=True)


class Encoder:
    """Writes values. Belongs to one thread.

    :param copy: take arrays and bytes that somebody might change as they are now. Else they must stay as they are
        until they are sent.
    """

    def __init__(self, *, copy: bool) -> None:
        self._copy = copy
        self._packer = msgpack.Packer(default=self._other, use_bin_type=True)
        self._sections: list[Buffer] = []
        self._end = 0

    def encode(self, head: Sequence[Any], value: Any) -> tuple[bytes, list[Buffer], int]:
        """A header `[*head, value]`, the sections of its body, and how long that is.

        :param head: plain and short.
        :raises ValueError: `value` holds something that has no such form; says what.
        """
        if self._sections:
            self._sections, self._end = [], 0
        try:
            if not _is_long(value):
                header: bytes = self._packer.pack([*head, value])
                if len(header) <= INLINE_NBYTES:
                    return header, self._sections, self._end
            header = self._shorten(head, value)
        except (TypeError, OverflowError, BufferError, RecursionError) as error:
            raise ValueError(str(error)) from error
        if self._end > MAX_BODY_NBYTES:
            raise ValueError(f"{self._end} bytes of arrays are more than a frame can hold")
        return header, self._sections, self._end

    def _shorten(self, head: Sequence[Any], value: Any) -> bytes:
        self._sections, self._end = [], 0
        header: bytes = self._packer.pack([*head, self._lift(value)])
        if len(header) <= MAX_HEADER_NBYTES:
            return header
        # The value is what comes after the elements of `head`.
        document = memoryview(header)[1 + sum(len(self._packer.pack(each)) for each in head) :]
        length = len(document)
        place = msgpack.ExtType(VALUE, _pack_place([self._add(document, length), length]))
        shortened: bytes = self._packer.pack([*head, place])
        return shortened

    def _lift(self, value: Any) -> Any:
        """`value` with its long bytes as sections."""
        if isinstance(value, _BYTES):
            return self._bytes(value) if _nbytes(value) > INLINE_NBYTES else value
        if isinstance(value, dict):
            return {key: self._lift(each) for key, each in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self._lift(each) for each in value]
        return value

    def _other(self, value: Any) -> Any:
        """What stands for a value that msgpack does not know."""
        if isinstance(value, np.ndarray):
            name = dtype_name(value.dtype)
            return value.tolist() if name is None else self._tensor(name, value.astype(DTYPES[name], copy=False))
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, (set, frozenset)):
            return list(value)
        raise TypeError(f"a {type(value).__name__} has no msgpack form")

    def _tensor(self, name: str, array: Array) -> msgpack.ExtType:
        is_copied = self._copy and array.flags.writeable
        flat = np.array(array, order="C") if is_copied else np.ascontiguousarray(array)
        data = flat.reshape(-1).view(np.uint8).data
        return msgpack.ExtType(TENSOR, _pack_place([self._add(data, data.nbytes), name, array.shape]))

    def _bytes(self, value: Buffer) -> msgpack.ExtType:
        if isinstance(value, memoryview):
            if not value.c_contiguous:
                raise BufferError("memoryview is not C-contiguous")
            value = value.cast("B")
        if self._copy and not (isinstance(value, bytes) or (isinstance(value, memoryview) and value.readonly)):
            value = bytes(value)
        return msgpack.ExtType(BYTES, _pack_place([self._add(value, len(value)), len(value)]))

    def _add(self, section: Buffer, nbytes: int) -> int:
        """Where the section begins."""
        padding = -self._end % ALIGNMENT
        if nbytes:
            if padding:
                self._sections.append(_PADDING[:padding])
            self._sections.append(section)
            self._end += padding + nbytes
            return self._end - nbytes
        return 0


def decode(header: bytes, body: memoryview | None = None) -> Any:
    """What a header holds, from somebody who is trusted to say no more than is sensible.

    :returns: arrays are views of `body`, bytes are copies of it.
    :raises BadRequest: malformed.
    """
    return _unpack(header, _Sections(body) if body is not None else _without_body, any_keys=True)


def decode_limited(header: bytes, body: memoryview | None, max_value_nbytes: int, scale: Scale | None = None) -> Any:
    """What a header holds, from a stranger.

    :param max_value_nbytes: most of a value that is a section itself.
    :param scale: weighs that value.
    :raises BadRequest: malformed; nested deeper than MAX_DEPTH; a map has keys that are no texts, of which one could
        choose such as all hash alike.
    :raises TooLarge: over `max_value_nbytes`, or weighs too much; or there are more than MAX_SECTIONS.
    """
    if body is None and len(header) <= INLINE_NBYTES:  # which has not many extensions
        document = _unpack(header, _without_body, any_keys=False)
        may_be_deep = _may_be_deep(header)
    else:
        body = memoryview(b"") if body is None else body
        sections = _Sections(body, max_value_nbytes, any_keys=False, scale=scale)
        document = _unpack(header, sections, any_keys=False)
        may_be_deep = sections.has_value or _may_be_deep(header)
    if may_be_deep:
        _check_depth(document)
    return document


def _unpack(header: bytes, hook: Callable[[int, bytes], Any], *, any_keys: bool) -> Any:
    try:
        if len(header) > heads.LEAST_NBYTES:
            heads.check(header)
        return msgpack.unpackb(header, raw=False, strict_map_key=not any_keys, ext_hook=hook)
    except (BadRequest, TooLarge):
        raise
    except Exception as error:  # msgpack raises many kinds, ValueError and its own
        raise BadRequest(f"the header is no msgpack: {str(error) or type(error).__name__}") from None


class _Sections:
    """Reads the extensions of one header.

    :param scale: weighs a value.
    """

    def __init__(
        self,
        body: memoryview,
        max_value_nbytes: int = MAX_BODY_NBYTES,
        *,
        any_keys: bool = True,
        scale: Scale | None = None,
    ) -> None:
        self._body = body
        self._left = len(body)
        self._max_value_nbytes = max_value_nbytes
        self._any_keys = any_keys
        self._scale = scale
        self._count = 0
        self.has_value = False

    def __call__(self, code: int, data: bytes) -> Any:
        if code not in (TENSOR, BYTES, VALUE):
            raise BadRequest(f"there is no extension of type {code}")
        self._count += 1
        if self._count > MAX_SECTIONS and not self._any_keys:
            raise TooLarge(f"there are more than {MAX_SECTIONS} arrays and long bytes: send fewer, or larger ones")
        place = msgpack.unpackb(data, raw=False, max_array_len=MAX_DIMENSIONS, max_map_len=MAX_DIMENSIONS)
        if type(place) is not list or len(place) != (3 if code == TENSOR else 2) or not _is_length(place[0]):
            raise BadRequest(f"extension {code} does not say where its section is")
        if code == TENSOR:
            return self._tensor(*place)
        if not _is_length(place[1]):
            raise BadRequest(f"extension {code} does not say how long its section is")
        section = self._section(*place)
        return bytes(section) if code == BYTES else self._value(section)

    def _section(self, offset: int, nbytes: int) -> memoryview:
        if offset % ALIGNMENT or offset + nbytes > len(self._body):
            raise BadRequest(f"there is no section of {nbytes} bytes at {offset} of a body of {len(self._body)}")
        # Bytes that are said to belong to several are not copied for each.
        self._left -= nbytes
        if self._left < 0:
            raise BadRequest("the sections overlap")
        return self._body[offset : offset + nbytes]

    def _tensor(self, offset: int, name: Any, shape: Any) -> Array:
        dtype, nbytes = _check_tensor(name, shape)
        return _array(dtype, shape, self._section(offset, nbytes))

    def _value(self, section: memoryview) -> Any:
        if self.has_value:
            raise BadRequest("a header has one section that is a value at most")
        if section.nbytes > self._max_value_nbytes:
            raise TooLarge(
                f"{section.nbytes} bytes of lists, objects and texts are over the limit of {self._max_value_nbytes}: "
                "send arrays"
            )
        self.has_value = True
        if self._scale is not None:
            return self._scale.unpack(section, self)
        heads.check(section)
        return msgpack.unpackb(section, raw=False, strict_map_key=not self._any_keys, ext_hook=self)


def _without_body(code: int, data: bytes) -> Any:
    return _Sections(memoryview(b""))(code, data)


def dtype_name(dtype: np.dtype[Any]) -> str | None:
    """What a dtype is called here, in whatever byte order; None where there are no tensors of it."""
    return _NAMES.get(dtype) or _NAMES.get(dtype.newbyteorder("<"))


def tensor_from(name: Any, shape: Any, data: bytes) -> Array:
    """A read-only array over `data`.

    :raises BadRequest: there is no such dtype or shape, or `data` is not as long as they say.
    """
    dtype, nbytes = _check_tensor(name, shape)
    if len(data) != nbytes:
        raise BadRequest(f"a tensor {name} of shape {shape} is {nbytes} bytes, got {len(data)}")
    return _array(dtype, shape, memoryview(data))


def _check_tensor(name: Any, shape: Any) -> tuple[np.dtype[Any], int]:
    """The dtype, and how many bytes that is."""
    if type(name) is not str or name not in DTYPES:
        raise BadRequest(f"a tensor of an unknown dtype: use one of {', '.join(DTYPES)}")
    if type(shape) is not list or not all(map(_is_length, shape)):
        raise BadRequest("a shape is no list of lengths")
    dtype = DTYPES[name]
    return dtype, count(shape) * dtype.itemsize


def _array(dtype: np.dtype[Any], shape: Sequence[int], data: memoryview) -> Array:
    if dtype.kind == "b" and data.nbytes and np.frombuffer(data, np.uint8).max() > 1:
        raise BadRequest("a bool is neither 0 nor 1")
    return np.ndarray(shape, dtype, data)


def _is_long(value: Any) -> bool:
    """Whether there surely is something to lift out, so that packing all of it first would be a waste."""
    if type(value) is dict:
        for each in value.values():
            if type(each) is bytes and len(each) > INLINE_NBYTES:
                return True
        return False
    return type(value) is bytes and len(value) > INLINE_NBYTES


def _nbytes(value: Buffer) -> int:
    return value.nbytes if isinstance(value, memoryview) else len(value)


def _is_length(value: Any) -> bool:
    return type(value) is int and value >= 0


def _may_be_deep(packed: bytes) -> bool:
    """Whether `packed` holds so much that looks like the beginning of an array or a map."""
    return len(packed) > MAX_DEPTH and len(packed) - len(packed.translate(None, _CONTAINERS)) > MAX_DEPTH


def _check_depth(document: Any) -> None:
    """:raises BadRequest: there are too many arrays and maps inside each other."""
    level = [document]
    for _ in range(MAX_DEPTH + 1):
        level = [each for each in level if type(each) is list or type(each) is dict]
        if not level:
            return
        level = [each for container in level for each in (container.values() if type(container) is dict else container)]
    raise BadRequest(f"the header is nested deeper than {MAX_DEPTH}")
