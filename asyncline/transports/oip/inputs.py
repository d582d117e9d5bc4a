"""The tensors of a request, to the payload of a graph.

Tensor         of its datatype and shape
Text           one element of BYTES: UTF-8
Json           one element of BYTES: a JSON text
Image          one element of BYTES: the file's bytes; or text, which is base64 or an URL as in a JSON body
bare Request   `input`: one element of BYTES, a JSON text; or numbers of any shape, which become an array
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from asyncline.errors import BadRequest
from asyncline.graph.fields import DTYPES, Field, Image, Json, Tensor
from asyncline.graph.graph import Graph
from asyncline.wire import json
from asyncline.wire.oip import InferTensor, TensorMetadata
from asyncline.wire.oip.datatypes import Array, fp32_from_bf16
from asyncline.wire.oip.messages import of
from asyncline.wire.weight import Scale

BARE = "input"
"""The input of a bare Request."""
MOST_ROWS = 2**31 - 1
"""Clients keep max_batch_size in 32 bits."""


class Inputs:
    """The inputs of a graph.

    :param max_body_nbytes: of a request.
    :param most_rows: of a request, where the graph takes rows.
    """

    def __init__(self, graph: Graph, max_body_nbytes: int, most_rows: int = MOST_ROWS) -> None:
        self._fields = graph.request.fields
        self.metadata = tuple(describe(name, field) for name, field in self._fields.items())
        if not self._fields:
            self.metadata = (TensorMetadata(BARE, "BYTES", (1,)),)
        self.optional = frozenset(name for name, field in self._fields.items() if not field.required)
        #: Most rows of a request; 0 where the first length is no batch.
        self.max_batch_size = min(most_rows, self._fitting(max_body_nbytes)) if graph.takes_rows else 0

    def _fitting(self, max_body_nbytes: int) -> int:
        """As many rows as a body may hold."""
        row_nbytes = 0
        for field in self._fields.values():
            assert isinstance(field, Tensor)
            itemsize = 4 if field.dtype == "BYTES" else np.dtype(DTYPES[field.dtype]).itemsize
            row_nbytes += itemsize * math.prod(max(1, length) for length in field.shape[1:])
        return max(1, min(MOST_ROWS, max_body_nbytes // max(1, row_nbytes)))

    def payload(self, tensors: Iterable[InferTensor], scale: Scale | None = None) -> Any:
        """What `Engine.begin` takes; the Request checks the values further.

        :param scale: weighs what is in elements of BYTES.
        :raises BadRequest: a tensor is missing, unknown, or of a wrong datatype or shape; names it.
        """
        found = {tensor.name: tensor for tensor in tensors}
        for name in found:
            if name not in (self._fields or (BARE,)):
                known = ", ".join(each.name for each in self.metadata)
                raise BadRequest(f"no input {name[:64]!r} (there are: {known})")
        for each in self.metadata:
            if each.name not in found and each.name not in self.optional:
                raise BadRequest(f"input {each.name!r} is missing")
        values = {}
        for name, tensor in found.items():
            with of("input", name):
                values[name] = _value(tensor, self._fields.get(name), scale)
        if self.max_batch_size:
            self._check_rows({name: len(value) for name, value in values.items()})
        return values if self._fields else values[BARE]

    def _check_rows(self, counts: dict[str, int]) -> None:
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise BadRequest(f"the inputs have different numbers of rows: {listed}")
        name, count = counts.popitem()
        if not 1 <= count <= self.max_batch_size:
            raise BadRequest(f"input {name!r}: a batch of {count} rows; expected 1 to {self.max_batch_size}")


def describe(name: str, field: Field | None) -> TensorMetadata:
    """What is said of a field; of one that is unknown, that nothing is known."""
    if field is None:
        return TensorMetadata(name, "", ())
    if isinstance(field, Tensor):
        return TensorMetadata(name, field.dtype, field.shape)
    return TensorMetadata(name, "BYTES", (1,))


def _value(tensor: InferTensor, field: Field | None, scale: Scale | None) -> Any:
    if isinstance(field, Tensor):
        return _array(tensor, field)
    if field is None and tensor.datatype != "BYTES":
        return fp32_from_bf16(tensor.array) if tensor.datatype == "BF16" else _own(tensor.array)
    if tensor.datatype != "BYTES":
        raise BadRequest(f"expected BYTES, got {tensor.datatype}")
    if tensor.array.size != 1:
        raise BadRequest(f"expected one element, shape [1], got {list(tensor.shape)}")
    data: bytes = tensor.array.reshape(-1)[0]
    if isinstance(field, Image):
        return _image(data)
    if field is None or isinstance(field, Json):
        return json.decode(data, "the element", scale)
    return data


def _array(tensor: InferTensor, field: Tensor) -> Array:
    if tensor.datatype != field.dtype:
        raise BadRequest(f"expected {field.dtype}, got {tensor.datatype}")
    fits = len(tensor.shape) == len(field.shape) and all(
        expected in (-1, length) for expected, length in zip(field.shape, tensor.shape, strict=True)
    )
    if not fits:
        raise BadRequest(f"expected shape {list(field.shape)}, got {list(tensor.shape)}")
    return _own(tensor.array)


def _own(array: Array) -> Array:
    """An array that a hook may write into, as those of other wires; a view of a message may be none."""
    return array if array.flags.writeable else array.copy()


def _image(data: bytes) -> bytes | str:
    # No image file is printable ASCII from end to end.
    if data.isascii() and (text := data.decode()).isprintable():
        return text
    return data
