"""An answer of a graph, as Paddle's ResponseOp would pack it.

    str               as it is
    an array          as Python prints it; where the client sent tensors, as a tensor too
    bytes             base64
    anything else     JSON

An object has a value for each key; any other answer has the one key `output`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import numpy as np

from asyncline.errors import OpError, RequestError
from asyncline.wire import json
from asyncline.wire.paddle import ElemType, PaddleTensor, PipelineRequest, PipelineResponse, printed
from asyncline.wire.paddle.messages import TEXTS

LONE = "output"
"""The key of an answer that is no object."""


def packed(answer: Any, request: PipelineRequest) -> PipelineResponse:
    """:raises OpError: a value has no form in text; names it."""
    if type(answer) is dict:
        keys, values = [*answer], [*answer.values()]
        if TEXTS.issuperset(map(type, [*keys, *values])):
            return PipelineResponse(0, "", keys, values, [])
    response = PipelineResponse()
    keys, values = response.key, response.value
    # The test for a Mapping that is no dict costs more than all else here.
    is_object = type(answer) is dict or isinstance(answer, Mapping)
    for name, value in answer.items() if is_object else ((LONE, answer),):
        keys.append(name if type(name) is str else str(name))
        if type(value) is str:
            values.append(value)
            continue
        try:
            values.append(_text(value))
        except RequestError as error:
            raise OpError(f"output {str(name)[:64]!r}: {error.message}") from error
        if request.tensors and isinstance(value, np.ndarray):
            response.tensors.append(_tensor(str(name), value, request))
    return response


def _tensor(name: str, array: np.ndarray[Any, Any], request: PipelineRequest) -> PaddleTensor:
    """In the form in which the client sends its own."""
    as_bytes = array.dtype.kind in "biuf" and any(tensor.elem_type is ElemType.BYTES for tensor in request.tensors)
    return PaddleTensor(name, array, ElemType.BYTES if as_bytes else None)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray):
        return printed.write(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b64encode(value).decode()
    return json.encode(value).decode()
