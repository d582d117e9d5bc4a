"""StandIn: a copy of a graph that can be fed where there are values, and is tapped."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from asyncline.graph.fields import Json
from asyncline.graph.graph import Graph
from asyncline.graph.op import Op, is_async, is_stream
from asyncline.graph.request import Input, Request
from asyncline.settings import Settings
from asyncline.tools.advise.tap import Tap, guard, pass_on

CPU_HOOKS = ("preprocess", "postprocess")

RUN_MS = 60_000
"""Most time of the one request through the graph: it is the first, on models that have just been loaded."""


class StandIn:
    """Copies of a graph's Ops, of as many as get values, wired to a Request that takes these as they are.

    :param given: values of the request and its fields.
    :param with_example: names of the Ops that are fed their own example, whatever else there is.
    """

    def __init__(self, graph: Graph, given: Mapping[Input, Any], with_example: Collection[str]) -> None:
        #: Of every sync CPU hook that may be reached.
        self.taps: list[Tap] = []
        #: By Op, in the order of `graph`.
        self.copies: dict[Op, Op] = {}
        #: The payload, by field. Those of examples are to be filled in.
        self.payload: dict[str, Any] = {}
        self._examples: dict[str, tuple[str, ...]] = {}
        sources = {value: self._field(found) for value, found in given.items()}
        wiring: dict[Op, tuple[Input | str, ...]] = {}
        for op in graph.ops:
            if op.name in with_example:
                fields = tuple(self._field(None) for _ in op.inputs)
                self._examples[op.name] = wiring[op] = fields
            elif all(value in sources or value in wiring for value in op.inputs):
                wiring[op] = tuple(sources.get(value, value) for value in op.inputs)
        request = Request(**{name: Json() for name in self.payload})
        for op, inputs in wiring.items():
            self.copies[op] = self._copy(op, request, inputs)
        tapped = {tap.op for tap in self.taps}
        outputs = [made for made in self.copies.values() if made.name in tapped]
        #: None where no sync CPU hook can be reached.
        self.graph = Graph(graph.name, **{f"output_{n}": made for n, made in enumerate(outputs)}) if outputs else None

    def _field(self, value: Any) -> str:
        name = f"value_{len(self.payload)}"
        self.payload[name] = value
        return name

    def _copy(self, op: Op, request: Request, inputs: tuple[Input | str, ...]) -> Op:
        made = copy.copy(op)
        made.request = request
        made.inputs = tuple(
            getattr(request, value) if isinstance(value, str) else self.copies[value]  # type: ignore[index]  # an Op
            for value in inputs
        )
        for hook in CPU_HOOKS:
            function = made.hook(hook)
            if function is None:
                continue
            if is_stream(function):
                setattr(made, hook, None)  # the copy is one of several outputs, and there is nothing to advise
            elif is_async(function):
                setattr(made, hook, guard(op.name, hook, function))
            else:
                self.taps.append(Tap(op.name, hook, function))
                setattr(made, hook, self.taps[-1])
        if made.hook("preprocess") is None:
            made.preprocess = pass_on  # type: ignore[attr-defined]  # as a hook is found
        return made

    def fed(self) -> Iterator[tuple[Op, tuple[str, ...]]]:
        """The copies that are fed their own example, and the fields that carry it."""
        for made in self.copies.values():
            if made.name in self._examples:
                yield made, self._examples[made.name]

    def settings(self, settings: Settings) -> Settings:
        """Those of the graph, but with all hooks in this process, one replica each, and time enough."""
        ours: dict[str, Any] = {"cpu": "thread", "timeout_ms": None, "concurrency": None}
        return settings.model_copy(
            update={
                "service": settings.service.model_copy(update={"timeout_ms": RUN_MS}),
                "op": {name: values.model_copy(update=ours) for name, values in settings.op.items()},
            }
        )
