"""Msgpack bodies: the same values as JSON, with bytes as they are."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from asyncline.errors import BadRequest, OpError


def decode(data: bytes) -> Any:
    """Parse a msgpack body; nothing in it is code.

    :raises BadRequest: it is no msgpack.
    """
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=True)
    except Exception as error:  # msgpack raises many kinds, ValueError and its own
        raise BadRequest(f"the body is no msgpack: {str(error) or type(error).__name__}") from None


def encode(value: Any) -> bytes:
    """Write an answer: arrays as lists.

    :raises OpError: it holds something that msgpack cannot carry.
    """
    try:
        return bytes(msgpack.packb(value, default=_default, use_bin_type=True))
    except (TypeError, ValueError, OverflowError, BufferError) as error:
        raise OpError(f"the answer cannot be written as msgpack: {error}") from error


def _default(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise TypeError(f"a {type(value).__name__} has no msgpack form")
