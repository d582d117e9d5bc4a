"""The protocol's datatypes, and tensors as raw bytes and as JSON lists.

Raw is little-endian and row-major without padding; a BOOL is one byte; an element of BYTES is its length as
4 bytes and then itself. numpy has no BF16: its arrays hold the bits as uint16. Arrays of BYTES hold `bytes`.

Errors of decoding are BadRequest, those of encoding OpError; neither names the tensor, the caller adds that.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from asyncline.errors import BadRequest, OpError
from asyncline.graph import fields

Array = np.ndarray[Any, Any]

DTYPES = {name: np.dtype(kind).newbyteorder("<") for name, kind in {**fields.DTYPES, "BF16": np.uint16}.items()}
"""numpy's types for the names of the protocol."""

MOST_DIMENSIONS = 32
"""As many as every version of numpy can."""
MOST_ELEMENTS = 2**48
MOST_STRINGS = 2**18
"""Most elements of a tensor of BYTES: each is an object, and is looked at one by one."""

_NAMES = {dtype: name for name, dtype in DTYPES.items() if name not in ("BF16", "BYTES")}
_NO_JSON = ("FP16", "BF16")
_LENGTH = struct.Struct("<I")
_JSON_TYPES: dict[str, tuple[str, set[type]]] = {
    "b": ("booleans", {bool}),
    "u": ("integers", {int}),
    "i": ("integers", {int}),
    "f": ("numbers", {int, float}),
    "O": ("strings", {str}),
}


def datatype_of(array: Array) -> str:
    """The datatype of an array.

    :raises OpError: the protocol has none for its dtype.
    """
    if array.dtype.kind in "OSU":
        return "BYTES"
    if array.dtype.name == "bfloat16":  # of ml_dtypes
        return "BF16"
    name = _NAMES.get(array.dtype.newbyteorder("<"))
    if name is None:
        raise OpError(f"dtype {array.dtype.name} has no datatype in the Open Inference Protocol")
    return name


def count(shape: Sequence[int]) -> int:
    """How many elements a tensor of `shape` has.

    :raises BadRequest: a length is negative, or there are too many.
    """
    if len(shape) > MOST_DIMENSIONS:
        raise BadRequest(f"a shape of {len(shape)} lengths is over the limit of {MOST_DIMENSIONS}")
    if any(length < 0 for length in shape):
        raise BadRequest(f"shape {list(shape)} has a negative length")
    # Lengths of 0 do not make the others harmless: numpy multiplies those alone.
    if math.prod(length for length in shape if length) >= MOST_ELEMENTS:
        raise BadRequest(f"shape {list(shape)} is too large")
    return math.prod(shape)


def check_datatype(datatype: str) -> np.dtype[Any]:
    """numpy's type of a datatype.

    :raises BadRequest: the protocol has no such datatype.
    """
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise BadRequest(f"no datatype {datatype!r}: use one of {', '.join(DTYPES)}")
    return dtype


def from_raw(data: memoryview, datatype: str, shape: Sequence[int]) -> Array:
    """An array over `data`, of which nothing is copied, but for BYTES, and where it does not lie as numbers have to.

    :raises BadRequest: it is longer or shorter than the datatype and the shape say.
    """
    dtype = check_datatype(datatype)
    size = count(shape)
    if datatype == "BYTES":
        return from_strings(_unpack(data, size), shape)
    expected = size * dtype.itemsize
    if data.nbytes != expected:
        raise BadRequest(f"{datatype} of shape {list(shape)} is {expected} bytes, got {data.nbytes}")
    array = np.frombuffer(data, dtype).reshape(shape)
    if array.flags.aligned:
        return array
    # numpy itself can live with it; native code that gets the pointer may not.
    return array.copy()


def to_raw(array: Array, datatype: str) -> bytes | memoryview:
    """The bytes of an array; not copied where they lie in memory as on the wire.

    :raises OpError: its dtype is another.
    """
    if datatype == "BYTES":
        return _pack(strings(array))
    flat = np.ascontiguousarray(_checked(array, datatype)).reshape(-1)
    return flat.view(np.uint8).data


def from_json(data: Any, datatype: str, shape: Sequence[int]) -> Array:
    """An array of JSON `data`: nested lists, or one flat list.

    :raises BadRequest: its nesting, its length, its types or a number's range are wrong.
    """
    dtype = check_datatype(datatype)
    if datatype in _NO_JSON:
        raise BadRequest(f"{datatype} has no JSON form: send it as binary data")
    flat = _flatten(data, shape)
    words, types = _JSON_TYPES[dtype.kind]
    wrong = set(map(type, flat)) - types
    if wrong:
        raise BadRequest(f"expected {words}, got {_kind(wrong.pop())}")
    if datatype == "BYTES":
        return from_strings([text.encode() for text in flat], shape)
    return from_numbers(flat, datatype).reshape(shape)


def from_numbers(numbers: Sequence[Any] | Array, datatype: str) -> Array:
    """A flat array of numbers that are of the right kind.

    :raises BadRequest: one is out of range.
    """
    dtype = DTYPES[datatype]
    try:
        if dtype.kind == "f":
            with np.errstate(over="raise"):
                return np.asarray(numbers, np.float64).astype(dtype)
        if datatype in ("BOOL", "INT64", "UINT64"):
            return np.asarray(numbers, dtype)
        wide = np.asarray(numbers, np.int64)
    except (OverflowError, FloatingPointError):
        raise BadRequest(f"a number is out of the range of {datatype}") from None
    limits: Any = np.iinfo(dtype)
    if wide.size and (wide.min() < limits.min or wide.max() > limits.max):
        raise BadRequest(f"a number is out of the range of {datatype}")
    return wide.astype(dtype)


def from_strings(texts: list[bytes], shape: Sequence[int]) -> Array:
    """An array of BYTES.

    :raises BadRequest: these are too many.
    """
    _check_strings(len(texts))
    # Not np.array(texts): its strings would all be as long as the longest.
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)


def to_json(array: Array, datatype: str) -> Any:
    """The flat list of an array, as orjson takes it. NaN and infinity become null, as JSON has none.

    :raises OpError: its dtype is another.
    :raises BadRequest: it has no JSON form; binary data has to be asked for.
    """
    if datatype in _NO_JSON:
        raise BadRequest(f"{datatype} has no JSON form: ask for binary data")
    if datatype == "BYTES":
        try:
            return [text.decode() for text in strings(array)]
        except UnicodeDecodeError:
            raise BadRequest("holds bytes that are no text, which have no JSON form: ask for binary data") from None
    return np.ascontiguousarray(_checked(array, datatype)).reshape(-1)


def strings(array: Array) -> list[bytes]:
    """The elements of an array of `bytes` or `str`; text becomes UTF-8.

    :raises OpError: an element is neither.
    """
    found = []
    for value in array.reshape(-1).tolist():
        if isinstance(value, str):
            try:
                value = value.encode()
            except UnicodeEncodeError:
                raise OpError("a string holds half a surrogate pair, which has no UTF-8") from None
        elif isinstance(value, (bytearray, memoryview)):
            value = bytes(value)
        elif not isinstance(value, bytes):
            raise OpError(f"expected bytes or str as elements of BYTES, got {type(value).__name__}")
        found.append(value)
    return found


def bf16_from_fp32(array: Array) -> Array:
    """The bits of BF16, rounded to the nearest, ties to even; NaN stays NaN."""
    flat = np.ascontiguousarray(array, "<f4").reshape(-1)
    bits = flat.view("<u4")
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    # Rounding could carry the last bits of a NaN over into infinity.
    return np.where(np.isnan(flat), (bits >> 16) | 0x40, rounded).astype("<u2").reshape(array.shape)


def fp32_from_bf16(bits: Array) -> Array:
    """The numbers that bits of BF16 stand for, exactly."""
    flat = bits.reshape(-1).astype("<u4") << 16
    return flat.view("<f4").reshape(bits.shape)


def _checked(array: Array, datatype: str) -> Array:
    dtype = DTYPES[datatype]
    if array.dtype == dtype:
        return array
    if datatype == "BF16" and array.dtype.name == "bfloat16":
        return array.view(dtype)
    if array.dtype.newbyteorder("<") != dtype:
        raise OpError(f"expected {datatype}, got {array.dtype.name}")
    return array.astype(dtype)


def _unpack(data: memoryview, size: int) -> list[bytes]:
    _check_strings(size)
    found: list[bytes] = []
    place, end = 0, data.nbytes
    for _ in range(size):
        start = place + 4
        if start > end:
            raise BadRequest(f"expected {size} elements of BYTES, got {len(found)}")
        place = start + _LENGTH.unpack_from(data, place)[0]
        if place > end:
            raise BadRequest(f"element {len(found)} of BYTES is longer than what is there")
        found.append(bytes(data[start:place]))
    if place < end:
        raise BadRequest(f"{end - place} bytes come after {size} elements of BYTES")
    return found


def _pack(texts: list[bytes]) -> bytes:
    lengths = struct.pack(f"<{len(texts)}I", *map(len, texts))
    prefixes = [lengths[place : place + 4] for place in range(0, len(lengths), 4)]
    return b"".join(chain.from_iterable(zip(prefixes, texts, strict=True)))


def _check_strings(size: int) -> None:
    if size > MOST_STRINGS:
        raise BadRequest(f"{size} elements of BYTES are over the limit of {MOST_STRINGS}")


def _flatten(data: Any, shape: Sequence[int]) -> list[Any]:
    """The elements of lists; nothing is handed to numpy before its length is known to fit."""
    size = count(shape)
    if not isinstance(data, list):
        if shape:
            raise BadRequest(f"expected a list, got {_kind(type(data))}")
        return [data]
    if len(shape) < 2 or not data or not isinstance(data[0], list):
        if len(data) != size:
            raise BadRequest(f"shape {list(shape)} is {size} elements, got {len(data)}")
        return data
    level: list[Any] = [data]
    for length in shape:
        if any(type(each) is not list or len(each) != length for each in level):
            raise BadRequest(f"the nested lists do not have the shape {list(shape)}")
        level = list(chain.from_iterable(level))
    return level


def _kind(found: type) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(found, "an integer" if found is int else "a number" if found is float else found.__name__)
