"""Paddle's element types, and tensors as the typed numbers of a message.

Errors of decoding are BadPackage, those of encoding OpError; neither names the tensor, the caller adds that.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from asyncline.errors import BadRequest, OpError
from asyncline.wire.oip import datatypes
from asyncline.wire.paddle import npy
from asyncline.wire.paddle.numbers import BadPackage

Array = np.ndarray[Any, Any]

_OF_NUMPY = {"int64": 0, "float32": 1, "int32": 2, "float64": 3, "int16": 4, "float16": 5, "bfloat16": 6, "uint8": 7,
             "int8": 8, "bool": 9}  # fmt: skip


class ElemType(IntEnum):
    """`elem_type` of a tensor. COMPLEX64 and COMPLEX128 have numbers, and nobody carries them."""

    INT64 = 0
    FP32 = 1
    INT32 = 2
    FP64 = 3
    INT16 = 4
    FP16 = 5
    BF16 = 6
    UINT8 = 7
    INT8 = 8
    BOOL = 9
    COMPLEX64 = 10
    COMPLEX128 = 11
    STRING = 12
    BYTES = 13

    @classmethod
    def of(cls, array: Array) -> ElemType:
        """How an array goes best: as its own type, or as BYTES where Paddle has none for it."""
        if array.dtype.kind in "OSU":
            return cls.STRING
        return cls(_OF_NUMPY.get(array.dtype.name, cls.BYTES))

    @property
    def field(self) -> str:
        """Of a message, where the elements are."""
        return _FIELDS[self]


_FIELDS = {
    ElemType.INT64: "int64_data",
    ElemType.FP32: "float_data",
    ElemType.INT32: "int_data",
    ElemType.FP64: "float64_data",
    ElemType.INT16: "int_data",
    ElemType.FP16: "float_data",
    ElemType.BF16: "uint32_data",
    ElemType.UINT8: "uint32_data",
    ElemType.INT8: "int_data",
    ElemType.BOOL: "bool_data",
    ElemType.STRING: "str_data",
    ElemType.BYTES: "byte_data",
}


_WIDE = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}
"""For elements that have not been checked yet, by numpy's letter for what they are to be."""


def elem_type(number: int) -> ElemType:
    """:raises BadPackage: there is no such type, or it is one that nobody carries."""
    if number not in _FIELDS:
        raise BadPackage(f"no elem_type {number}: use 0 to 9, 12 or 13")
    return ElemType(number)


def decode(kind: ElemType, shape: Sequence[int], elements: Any) -> Array:
    """An array of a tensor's elements.

    :param elements: a sequence of numbers or `str`; of BYTES, the .npy stream.
    :raises BadPackage: it does not fit its shape, or a number its type.
    """
    try:
        if kind is ElemType.BYTES:
            return _decode_bytes(elements, shape)
        if kind is ElemType.STRING:
            # Paddle's client gives no shape to a string.
            return datatypes.from_strings(list(elements), (len(elements),))
        size = datatypes.count(shape)
        if len(elements) != size:
            raise BadPackage(f"shape {list(shape)} is {size} elements, got {len(elements)}")
        if kind is ElemType.FP32 and isinstance(elements, np.ndarray):
            # numpy itself can live with what is not aligned; native code that gets the pointer may not.
            return (elements if elements.flags.aligned else elements.copy()).reshape(shape)
        if not isinstance(elements, list | np.ndarray):  # of protobuf: not made a list, which is far larger
            elements = np.fromiter(elements, _WIDE[datatypes.DTYPES[kind.name].kind], size)
        return datatypes.from_numbers(elements, kind.name).reshape(shape)
    except BadPackage:
        raise
    except BadRequest as error:
        raise BadPackage(error.message) from None


def encode(kind: ElemType, array: Array) -> Any:
    """The elements of an array: a flat list of numbers or `str`; of BYTES, the .npy stream.

    :raises OpError: its dtype is another.
    """
    if kind is ElemType.BYTES:
        return npy.encode(array)
    if kind is ElemType.STRING:
        return [text.decode(errors="replace") for text in datatypes.strings(array)]
    dtype = datatypes.DTYPES.get(kind.name)
    if dtype is None:
        raise OpError(f"{kind.name} is not carried")
    if array.dtype.name == "bfloat16":  # of ml_dtypes
        array = array.view(np.uint16)
    if array.dtype.newbyteorder("<") != dtype:
        raise OpError(f"expected {kind.name}, got {array.dtype.name}")
    return array.reshape(-1).tolist()


def _decode_bytes(stream: bytes | memoryview, shape: Sequence[int]) -> Array:
    array = npy.decode(stream)
    if shape and list(shape) != list(array.shape):
        if datatypes.count(shape) != array.size:
            raise BadPackage(f"the tensor has shape {list(shape)}, its .npy stream {list(array.shape)}")
        array = array.reshape(shape)
    return array
