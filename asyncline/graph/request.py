"""The graph's entry and exit."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asyncline.errors import BadRequest, GraphError, RequestError
from asyncline.graph.fields import Field

if TYPE_CHECKING:
    from asyncline.graph.op import Op


class Input:
    """Whatever an Op can be wired to: a Request, one of its fields, or another Op."""

    request: Request

    def _label(self) -> str:
        raise NotImplementedError


class Request(Input):
    """The graph's entry: declares, by keyword, the fields that a client sends.

    `request.image` is an input for Ops. A bare `Request()` has no fields and is itself the input: the
    whole payload. Subclass it and override `unpack` to compute fields from what the client sends.
    """

    def __init__(self, **fields: Field) -> None:
        for name, field in fields.items():
            if not isinstance(field, Field):
                raise GraphError(f"request field {name!r}: expected Image(), Text(), Json() or Tensor(), got {field!r}")
        self.request = self
        self.fields = fields
        self._inputs = {name: FieldInput(self, name) for name in fields}
        # Weak, so that an Op made and thrown away (a notebook cell run twice) is no part of the graph.
        self.consumers: weakref.WeakSet[Op] = weakref.WeakSet()
        for name in fields:
            if name in self.__dict__ or hasattr(type(self), name):
                raise GraphError(f"request field {name!r}: a Request has an attribute of that name; choose another")

    def __getattr__(self, name: str) -> FieldInput:
        inputs: dict[str, FieldInput] = self.__dict__.get("_inputs", {})
        if name in inputs:
            return inputs[name]
        if name.startswith("_"):
            raise AttributeError(name)
        declared = ", ".join(inputs) or "none: write Request(image=Image())"
        raise GraphError(f"the request has no field {name!r} (declared: {declared})")

    def unpack(self, payload: Any) -> Any:
        """From what the client sent to the value of every field, by name; checks and converts each.

        :raises BadRequest: a field is missing, unknown or wrong; the message names it.
        :raises TooLarge: a field is over its limit; the message names it.
        """
        if not self.fields:
            return payload
        if type(payload) is not dict and not isinstance(payload, Mapping):
            raise BadRequest(f"expected an object with {', '.join(self.fields)}")
        values = {}
        for name, field in self.fields.items():
            if name in payload:
                try:
                    values[name] = field.parse(payload[name])
                except RequestError as error:
                    error.message = f"field {name!r}: {error.message}"
                    raise
            elif field.required:
                raise BadRequest(f"field {name!r} is missing")
            else:
                values[name] = field.default
        for name in payload:
            if name not in self.fields:
                raise BadRequest(f"no field {str(name)[:64]!r} (declared: {', '.join(self.fields)})")
        return values

    def _label(self) -> str:
        return "request"

    def __repr__(self) -> str:
        return f"Request({', '.join(f'{n}={f!r}' for n, f in self.fields.items())})"


class FieldInput(Input):
    """One field of a Request, as an input for Ops."""

    def __init__(self, request: Request, name: str) -> None:
        self.request = request
        self.name = name

    def _label(self) -> str:
        return f"request.{self.name}"

    def __repr__(self) -> str:
        return self._label()


class Response:
    """The graph's exit: packs the outputs into what a client gets. A graph makes a default one.

    Subclass it and override `pack` to shape the answer: `Graph("ocr", MyResponse(texts=texts))`.

    :param outputs: one positional Op, whose value is the answer, or named Ops, whose values make an object.
    """

    def __init__(self, *output: Input, **outputs: Input) -> None:
        if len(output) + len(outputs) == 0:
            raise GraphError("a graph needs an output: Graph('name', last_op)")
        if output and (len(output) > 1 or outputs):
            raise GraphError("name the outputs where there are several: Graph('name', texts=texts, boxes=lines)")
        self.outputs: dict[str | None, Input] = dict(outputs.items())
        if output:
            self.outputs[None] = output[0]
        for name, value in self.outputs.items():
            if not isinstance(value, Input):
                raise GraphError(f"output {name or 1!r}: expected an Op, got {value!r}")

    def pack(self, outputs: dict[str | None, Any]) -> Any:
        """From the outputs by name (a single positional one is named `None`) to the answer."""
        return outputs[None] if None in outputs else outputs
