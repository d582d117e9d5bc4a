"""Run a graph once, measure its CPU hooks, and advise."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any

from asyncline.engine.engine import Engine
from asyncline.engine.lanes.recipe import make_recipe
from asyncline.errors import LoadError, RequestError
from asyncline.graph.plan import Node, Plan
from asyncline.graph.request import Input
from asyncline.tools.advise.arguments import describe
from asyncline.tools.advise.measure import measure
from asyncline.tools.advise.policy import judge
from asyncline.tools.advise.report import Report, Row
from asyncline.tools.advise.stand_in import CPU_HOOKS, RUN_MS, StandIn
from asyncline.tools.advise.tap import Missing, Tap
from asyncline.tools.advise.threads import Unmeasured, together

NO_SAMPLE = "no sample: write Op.example or pass --sample"

Note = Callable[[str], None]
"""Is told what goes on, in a few words."""


def advise(plan: Plan, values: Mapping[Input, Any] | None = None, note: Note = lambda text: None) -> Report:
    """Say which lane suits every CPU hook. Takes about a second for each, after the models are loaded.

    :param values: of one request, see `read_values`; without them Ops are fed their `example`.
    :raises LoadError: an Op cannot be made ready.
    """
    try:
        found = asyncio.run(_Advising(plan, values, note).run())
    except SystemExit as error:
        raise LoadError(f"the app ends its process instead of getting ready: {describe(error)}") from error
    rows = tuple(
        found.get((node.name, hook)) or Row(node.name, hook, node.lanes[hook], why="async: it runs on the loop")
        for node in plan.nodes
        for hook in CPU_HOOKS
        if hook in node.lanes
    )
    return Report(rows, {node.name: node.settings.cpu for node in plan.nodes}, len(os.sched_getaffinity(0)))


class _Advising:
    def __init__(self, plan: Plan, values: Mapping[Input, Any] | None, note: Note) -> None:
        self._plan = plan
        self._note = note
        with_example = [op.name for op in plan.graph.ops if values is None and op.hook("example") is not None]
        self._stand_in = StandIn(plan.graph, values or {}, with_example)
        #: Why hooks that were not called were not.
        self._ended = "did not come here"

    async def run(self) -> dict[tuple[str, str], Row]:
        """A Row for every sync CPU hook."""
        stand_in = self._stand_in
        if stand_in.graph is None:
            return self._rows()
        self._note("loading models")
        async with Engine(stand_in.graph, stand_in.settings(self._plan.settings), blocked_s=None) as engine:
            self._note("running the request")
            await asyncio.to_thread(self._fill_in_examples)
            try:
                await engine.submit(stand_in.payload)
            except RequestError as error:
                self._ended = f"ended before: {error}"
            return await asyncio.to_thread(self._rows)

    def _fill_in_examples(self) -> None:
        for op, fields in self._stand_in.fed():
            try:
                (example,) = together(op.hook("example"))  # type: ignore[arg-type]  # it has one
                values = _spread(example, len(fields))
            except Unmeasured as error:
                values = (Missing(f"its example {error}"),) * len(fields)
            self._stand_in.payload.update(zip(fields, values, strict=True))

    def _rows(self) -> dict[tuple[str, str], Row]:
        taps = {(tap.op, tap.hook): tap for tap in self._stand_in.taps}
        return {
            (node.name, hook): self._row(node, hook, taps.get((node.name, hook)))
            for node in self._plan.nodes
            for hook in CPU_HOOKS
            if node.lanes.get(hook, "loop") != "loop"
        }

    def _row(self, node: Node, hook: str, tap: Tap | None) -> Row:
        now = node.lanes[hook]
        why = NO_SAMPLE if tap is None else self._unmeasured(tap)
        if tap is None or why:
            return Row(node.name, hook, now, why=why)
        self._note(f"measuring {node.name} {hook}")
        try:
            figures = measure(tap, _barred(node))
        except Unmeasured as error:
            return Row(node.name, hook, now, why=str(error))
        return Row(node.name, hook, now, figures, judge(figures))

    def _unmeasured(self, tap: Tap) -> str:
        """Why a hook cannot be measured, as far as the request has shown."""
        if tap.raised:
            return f"raises {tap.raised}"
        if tap.arguments is None:
            return f"no sample: {tap.missing or f'the request {self._ended}'}"
        return "" if tap.seconds is not None else f"did not return within {RUN_MS / 1e3:g} s"


def _barred(node: Node) -> str:
    """Why workers cannot make this Op; empty where they can."""
    try:
        make_recipe(node)
    except LoadError as error:
        return str(error).removeprefix(f"op {node.name!r}: ")
    return ""


def _spread(value: Any, count: int) -> tuple[Any, ...]:
    """What `example` returned, as the values of `count` inputs.

    :raises Unmeasured: it is not as many.
    """
    if count == 1:
        return (value,)
    if not isinstance(value, tuple) or len(value) != count:
        got = f"{len(value)} values" if isinstance(value, tuple) else type(value).__name__
        raise Unmeasured(f"returns {got}, expected a tuple of {count} values")
    return value
