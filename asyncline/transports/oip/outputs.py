"""An answer of a graph, to tensors.

    an array of numpy         a tensor of its dtype and shape
    str, bytes                one element of BYTES
    a bool, an int, a float   BOOL, INT64, FP64 of shape [1]
    anything else             one element of BYTES: a JSON text

Where the Op says what it returns, lists of numbers become the tensor that they are meant to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from asyncline.errors import BadRequest, OpError, RequestError
from asyncline.graph.fields import Field, Tensor
from asyncline.graph.graph import Graph
from asyncline.graph.op import Op
from asyncline.graph.request import FieldInput, Input, Response
from asyncline.transports.oip.inputs import describe
from asyncline.wire import json
from asyncline.wire.oip import InferTensor
from asyncline.wire.oip.datatypes import Array, datatype_of
from asyncline.wire.oip.messages import RequestedOutput, of

LONE = "output"
"""The output of a graph that does not name it."""


class Outputs:
    """The outputs of a graph: named by it, else by what its last Op returns, else `output`."""

    def __init__(self, graph: Graph) -> None:
        outputs = graph.response.outputs
        self.known: dict[str, Field | None] = {LONE: None}
        #: Whether the answer is an object with a value for each output.
        self._by_name = False
        if type(graph.response).pack is not Response.pack:
            pass  # what it makes of the outputs, nobody knows
        elif None in outputs:
            self.known = returned(outputs[None])
            self._by_name = len(self.known) > 1
        else:
            self.known = {str(name): lone(value) for name, value in outputs.items()}
            self._by_name = True
        self.metadata = tuple(describe(name, field) for name, field in self.known.items())

    def check(self, requested: Iterable[RequestedOutput]) -> None:
        """:raises BadRequest: an output is unknown, or asked for in a form that there is not."""
        for output in requested:
            if output.name not in self.known:
                raise BadRequest(f"no output {output.name[:64]!r} (there are: {', '.join(self.known)})")
            if output.parameters.get("classification"):
                raise BadRequest(f"output {output.name!r}: classification is not served: ask for the tensor")

    def tensors(self, answer: Any, requested: Iterable[RequestedOutput]) -> tuple[InferTensor, ...]:
        """The outputs that were asked for, all where none is named.

        :raises OpError: the answer has no such output, or one that the protocol cannot carry; names it.
        """
        names = [output.name for output in requested] or list(self.known)
        if not self._by_name:
            return tuple(_tensor(name, answer, self.known[name]) for name in names)
        found = []
        for name in names:
            if not isinstance(answer, Mapping) or name not in answer:
                raise OpError(f"the answer has no output {name!r}")
            found.append(_tensor(name, answer[name], self.known[name]))
        return tuple(found)

    def listed(self, parts: list[Any], requested: Iterable[RequestedOutput]) -> tuple[InferTensor, ...]:
        """Of an answer that came in parts: of each output the list of what the parts have.

        :raises OpError: as of `tensors`.
        """
        names = [output.name for output in requested] or list(self.known)
        if not self._by_name:
            return tuple(_tensor(name, parts, None) for name in names)
        if not all(isinstance(part, Mapping) and part.keys() >= set(names) for part in parts):
            raise OpError("a part of the answer lacks an output")
        return tuple(_tensor(name, [part[name] for part in parts], None) for name in names)


def returned(value: Input) -> dict[str, Field | None]:
    """What is known of a value, by the names of its parts; `output` where it has no names."""
    if isinstance(value, Op):
        return dict(value.returns) or {LONE: None}
    return {LONE: value.request.fields[value.name] if isinstance(value, FieldInput) else None}


def lone(value: Input) -> Field | None:
    """What is known of a value that is one tensor."""
    found = list(returned(value).values())
    return found[0] if len(found) == 1 else None


def _tensor(name: str, value: Any, field: Field | None) -> InferTensor:
    with of("output", name):
        array = _array(value, field)
        return InferTensor(name, datatype_of(array), array)


def _array(value: Any, field: Field | None) -> Array:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, np.generic):
        return value.reshape(1)
    if isinstance(field, Tensor):
        try:
            return field.parse(value)
        except RequestError as error:
            raise OpError(error.message) from error
    if isinstance(value, (bool, float)) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return np.array([value])
    array = np.empty(1, object)
    if isinstance(value, (str, bytes)):
        array[0] = value
    elif isinstance(value, (bytearray, memoryview)):
        array[0] = bytes(value)
    else:
        array[0] = json.encode(value)
    return array
