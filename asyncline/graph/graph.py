"""Graph: named, frozen wiring of Ops from one Request to its output."""

from __future__ import annotations

import re
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

from asyncline.errors import GraphError
from asyncline.graph.fields import Tensor
from asyncline.graph.jump import find_jumps
from asyncline.graph.op import Op
from asyncline.graph.request import Input, Request, Response

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]*")

RESERVED = frozenset({"healthz", "readyz", "metrics", "docs", "dashboard", "figures", "verdict", "admin", "v2"})
"""Names of the server's own routes."""


class Graph:
    """Named, frozen wiring of Ops. Validated here, before any socket opens.

    `Graph("ocr", texts)` answers with the value of one Op, `Graph("ocr", texts=texts, boxes=lines)` with
    an object, `Graph("ocr", MyResponse(texts))` with what `MyResponse.pack` makes of them.

    :raises GraphError: names the Op and the cure.
    """

    def __init__(self, name: str, *output: Input | Response, **outputs: Input) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise GraphError(f"graph {name!r}: a name has letters, digits, '_' and '-' only: it becomes a path")
        if name in RESERVED:
            raise GraphError(f"graph {name!r}: that name is a route of the server; choose another")
        self.name = name
        if len(output) == 1 and not outputs and isinstance(output[0], Response):
            self.response = output[0]
        else:
            self.response = Response(*output, **outputs)  # type: ignore[arg-type]  # Response checks its arguments
        self.request: Request = next(iter(self.response.outputs.values())).request
        self.ops: tuple[Op, ...] = tuple(self._in_order())
        self._check_names()
        self._check_unused()
        #: By the Op that jumps: those that then run again.
        self.jumps = find_jumps(self.ops, self.response.outputs.values())
        #: Whether the answer comes in parts: its one output is an Op whose last hook is an async generator.
        self.streams = self._check_streams()

    def __getitem__(self, name: str) -> Op:
        for op in self.ops:
            if op.name == name:
                return op
        raise KeyError(name)

    @property
    def takes_rows(self) -> bool:
        """Whether a request is a batch: each of its fields is a Tensor `[-1, ...]`, and each Op gives as many rows as
        it takes."""
        fields = self.request.fields.values()
        return (
            bool(fields)
            and all(isinstance(field, Tensor) and field.required and field.shape[:1] == (-1,) for field in fields)
            and all(op.takes_rows for op in self.ops)
        )

    def _in_order(self) -> list[Op]:
        """The Ops that the outputs depend on, every one after its inputs."""
        found: dict[Op, None] = {}
        todo = list(self.response.outputs.values())
        if not any(isinstance(output, Op) for output in todo):
            raise GraphError(f"graph {self.name!r} has no Op: its output is the request itself")
        while todo:
            value = todo.pop()
            if value.request is not self.request:
                raise GraphError(f"graph {self.name!r}: its outputs come from different Requests")
            if value is self.request and self.request.fields:
                raise GraphError(
                    f"graph {self.name!r} answers with the whole Request, which has fields: take request.field"
                )
            if isinstance(value, Op) and value not in found:
                found[value] = None
                todo += value.inputs
        return self._topological(found)

    def _topological(self, ops: Iterable[Op]) -> list[Op]:
        sorter = TopologicalSorter({op: [value for value in op.inputs if isinstance(value, Op)] for op in ops})
        try:
            return list(sorter.static_order())
        except CycleError as error:
            names = " -> ".join(op.name for op in error.args[1])
            raise GraphError(
                f"graph {self.name!r} has a cycle, {names}: an Op cannot depend on its own result"
            ) from None

    def _check_names(self) -> None:
        seen: set[str] = set()
        for op in self.ops:
            if op.name in seen:
                raise GraphError(f"two ops are named {op.name!r}: give one of them another, name='...'")
            seen.add(op.name)

    def _check_unused(self) -> None:
        unused = sorted(op.name for op in self.request.consumers.difference(self.ops))
        if unused:
            raise GraphError(
                f"op {unused[0]!r} is wired to the request but no output needs it: "
                f"make it an output of graph {self.name!r} or remove it"
            )

    def _check_streams(self) -> bool:
        outputs = list(self.response.outputs.values())
        for op in self.ops:
            if op.stream_hook is None:
                continue
            consumer = next((other.name for other in self.ops if op in other.inputs), None)
            if consumer is not None:
                raise GraphError(
                    f"op {op.name!r} streams its answer, but op {consumer!r} takes its value: "
                    "only the last Op of a graph streams"
                )
            if len(outputs) > 1:
                raise GraphError(
                    f"op {op.name!r} streams its answer, but graph {self.name!r} has {len(outputs)} outputs: "
                    "make it the only one"
                )
            return True
        return False

    def __repr__(self) -> str:
        return f"<Graph {self.name!r}: {' -> '.join(op.name for op in self.ops)}>"
