"""JSON bodies."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import numpy as np
import orjson

from asyncline.errors import BadRequest, OpError
from asyncline.wire.weight import Scale

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def decode(data: bytes, what: str = "the body", scale: Scale | None = None) -> Any:
    """Parse a JSON body.

    :param what: for the message: what it is.
    :param scale: weighs it; not where it comes from a server.
    :raises BadRequest: it is no JSON; says where.
    :raises TooLarge: it weighs too much.
    """
    if scale is not None:
        scale.add_json(data)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"{what} is no JSON: {error}" if data else f"{what} is empty") from None


def encode(value: Any) -> bytes:
    """Write an answer: arrays as lists, bytes as base64.

    :raises OpError: it holds something that JSON cannot carry.
    """
    try:
        return orjson.dumps(value, _default, _OPTIONS)
    except orjson.JSONEncodeError as error:
        raise OpError(f"the answer cannot be written as JSON: {error.__cause__ or error}") from error


def _default(value: Any) -> Any:
    # What orjson takes itself never comes here: arrays only where they are strided or of a rare dtype.
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b64encode(value).decode()
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form")
