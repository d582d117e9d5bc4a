"""Msgpack bodies: the same values as JSON, with bytes as they are.

Arrays are lists, or, where both sides know of it, extensions of type 1: the data is msgpack [dtype, shape, bytes],
row-major and little-endian, the dtypes those of `frame.values.DTYPES`. In a request they are always understood; an
answer has them where `Accept` says `application/msgpack;tensor=ext`.
"""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from asyncline.errors import BadRequest, OpError, TooLarge
from asyncline.wire import heads
from asyncline.wire.frame.values import DTYPES, MAX_DIMENSIONS, MAX_SECTIONS, dtype_name, tensor_from
from asyncline.wire.weight import Scale

TENSOR = 1
"""The extension type of an array."""
TENSORS = "tensor=ext"
"""The parameter of the media type with which arrays are asked for as such."""
EVENTS = "data=msgpack"
"""The parameter of `text/event-stream` with which parts are asked for as msgpack, in base64, with arrays as such."""


def decode(data: bytes | memoryview, scale: Scale | None = None, *, answer: bool = False) -> Any:
    """Parse a msgpack body; nothing in it is code.

    :param scale: weighs a request.
    :param answer: it is one: arrays are read-only, which saves a copy, and keys of maps need not be texts. In a request
        a stranger could choose such as all hash alike.
    :raises BadRequest: it is no msgpack.
    :raises TooLarge: it weighs too much, or a request has more than MAX_SECTIONS arrays.
    """
    try:
        if len(data) <= heads.LEAST_NBYTES:  # which has not many arrays
            return msgpack.unpackb(data, raw=False, strict_map_key=not answer, ext_hook=_view if answer else _own)
        if scale is not None:
            return scale.unpack(data, _Owner())
        heads.check(data)
        return msgpack.unpackb(data, raw=False, strict_map_key=not answer, ext_hook=_view if answer else _Owner())
    except (BadRequest, TooLarge):
        raise
    except Exception as error:  # msgpack raises many kinds, ValueError and its own
        raise BadRequest(f"the body is no msgpack: {str(error) or type(error).__name__}") from None


def encode(value: Any, *, tensors: bool = False) -> bytes:
    """Write an answer, or a request.

    :param tensors: arrays as extensions, not as lists.
    :raises OpError: it holds something that msgpack cannot carry.
    """
    try:
        return bytes(msgpack.packb(value, default=_tensor if tensors else _plain, use_bin_type=True))
    except (TypeError, ValueError, OverflowError, BufferError, RecursionError) as error:
        raise OpError(f"the answer cannot be written as msgpack: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise TypeError(f"a {type(value).__name__} has no msgpack form")


def _tensor(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return _plain(value)
    name = dtype_name(value.dtype)
    if name is None:
        return value.tolist()
    data = np.ascontiguousarray(value, DTYPES[name]).reshape(-1).view(np.uint8).data
    return msgpack.ExtType(TENSOR, msgpack.packb([name, value.shape, data], use_bin_type=True))


def _view(code: int, data: bytes) -> Any:
    if code != TENSOR:
        return msgpack.ExtType(code, data)
    said = msgpack.unpackb(data, raw=False, max_array_len=MAX_DIMENSIONS, max_map_len=MAX_DIMENSIONS)
    if type(said) is not list or len(said) != 3 or type(said[2]) is not bytes:
        raise BadRequest("a tensor is no [dtype, shape, bytes]")
    return tensor_from(*said)


def _own(code: int, data: bytes) -> Any:
    """An array that a hook may write into, as those of other wires."""
    value = _view(code, data)
    return value if code != TENSOR else value.copy()


class _Owner:
    """Reads and counts the extensions of one request."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, code: int, data: bytes) -> Any:
        self._count += 1
        if self._count > MAX_SECTIONS:
            raise TooLarge(f"there are more than {MAX_SECTIONS} arrays: send fewer, or larger ones")
        return _own(code, data)
