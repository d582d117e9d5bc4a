"""Timing: where the time of an Item went, for its client."""

from __future__ import annotations

from asyncline.engine.item import TOTAL, Item
from asyncline.graph.plan import Plan

TRACE_HEADER = "X-Trace"
"""Sent with `1`, it asks for the way to the request's own timeline, which the answer has under the same name."""


def trace_headers(item: Item) -> list[tuple[str, str]]:
    """For who asks: where an operator finds the timeline of an Item, on the REST port; and where its span is exported,
    that (`traceresponse`, of Trace Context Level 2).
    """
    path = f"/admin/timeline?data_id={item.data_id}"
    if item.engine.spans is None:
        return [(TRACE_HEADER, path)]
    return [(TRACE_HEADER, path), ("traceresponse", item.outgoing or "")]


class Timing:
    """Times of the Items of one Plan: the stages that each Op has, then the total, in ms."""

    def __init__(self, plan: Plan) -> None:
        self._slots = [*plan.time_slots.values(), TOTAL]
        self._names = [f"{op}.{stage}" for op, stage in plan.time_slots] + ["total"]
        self._template = ", ".join(f"{name};dur=%.3f" for name in self._names)

    def text(self, item: Item) -> str:
        """As `Server-Timing` has it."""
        times = item.times
        return self._template % tuple([times[slot] * 1e3 for slot in self._slots])

    def times_ms(self, item: Item) -> dict[str, float]:
        """The same, for an answer whose headers are out before the times are known."""
        return {name: round(item.times[slot] * 1e3, 3) for name, slot in zip(self._names, self._slots, strict=True)}
