"""Arrays as .npy streams, which numpy.save writes. Nothing in one is unpickled or evaluated."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np

from asyncline.errors import OpError
from asyncline.wire.oip.datatypes import MOST_ELEMENTS, count
from asyncline.wire.paddle.numbers import BadPackage

Array = np.ndarray[Any, Any]

MAGIC = b"\x93NUMPY"
MOST_HEADER = 4096
"""Most bytes of a header."""
KINDS = "biufSU"
"""numpy's letters for what an array may hold: numbers and strings."""

# As numpy.save and those who imitate it write it: a dict literal with its keys in order.
_HEADER = re.compile(
    rb"\s*\{\s*'descr':\s*'([<>|=]\w{1,12})',\s*'fortran_order':\s*(True|False),\s*'shape':\s*\(([\d, ]*)\),?\s*\}\s*"
)


def decode(data: bytes | memoryview) -> Array:
    """The array of a stream, over its memory where that fits.

    :raises BadPackage: it is no .npy, holds neither numbers nor strings, or is longer or shorter than its shape.
    """
    view = memoryview(data)
    if bytes(view[:6]) != MAGIC or view.nbytes < 12 or view[6] not in (1, 2):
        raise BadPackage("the bytes are no .npy stream")
    size = 2 if view[6] == 1 else 4
    length = int.from_bytes(view[8 : 8 + size], "little")
    place = 8 + size + length
    if length > MOST_HEADER or place > view.nbytes:
        raise BadPackage(f"the header of the .npy stream is cut off, or over the limit of {MOST_HEADER} bytes")
    found = _HEADER.fullmatch(view[8 + size : place])
    if found is None:
        raise BadPackage("the header of the .npy stream is not one of a plain array")
    dtype = _dtype(found[1].decode())
    shape = _shape(found[3].decode())
    size = count(shape)
    if size * dtype.itemsize != view.nbytes - place:
        raise BadPackage(f"the .npy stream has {view.nbytes - place} bytes, expected {size * dtype.itemsize}")
    if dtype.itemsize == 0:
        if size:  # of nothing there may be any number, and numpy has a character for each
            raise BadPackage(f"the .npy stream has {size} strings without room for any character")
        return np.zeros(shape, dtype)
    array = np.frombuffer(view, dtype, offset=place)
    if not array.flags.aligned or not dtype.isnative:
        array = array.astype(dtype.newbyteorder("="))
    return array.reshape(shape, order="F" if found[2] == b"True" else "C")


def encode(array: Array) -> bytes:
    """The stream of an array.

    :raises OpError: it holds objects.
    """
    stream = io.BytesIO()
    try:
        np.save(stream, array, allow_pickle=False)
    except ValueError:
        raise OpError(f"an array of {array.dtype.name} has no .npy form") from None
    return stream.getvalue()


def _dtype(text: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError):
        raise BadPackage(f"the .npy stream has an unknown dtype, {text!r}") from None
    if dtype.kind not in KINDS or dtype.hasobject:
        raise BadPackage(f"the .npy stream holds {dtype.name}, expected numbers or strings")
    return dtype


def _shape(text: str) -> list[int]:
    lengths = [length.strip() for length in text.split(",")]
    if lengths[-1] == "":
        lengths.pop()
    # Not by int() alone, which takes long for thousands of digits.
    if not all(length.isdigit() and len(length) <= len(str(MOST_ELEMENTS)) for length in lengths):
        raise BadPackage("the .npy stream has a malformed shape")
    return [int(length) for length in lengths]
