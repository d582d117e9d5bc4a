"""When a request came to each Op, which its record does not say."""

from __future__ import annotations

from asyncline.graph.op import Op
from asyncline.graph.plan import STAGES, Node
from asyncline.observe.timeline.records import ItemRecord


def arrivals(nodes: tuple[Node, ...], item: ItemRecord) -> list[float | None]:
    """When a request came to each Op: when the last of those before it had handed on. None: it did not come there."""
    found: list[float | None] = []
    left: dict[str, float | None] = {}
    for node in nodes:
        before = [left[value.name] for value in node.op.inputs if isinstance(value, Op)]
        times = item.times[len(STAGES) * node.index : len(STAGES) * (node.index + 1)]
        came = None if any(at is None for at in before) else max([item.started_at, *(at for at in before if at)])
        found.append(came)
        gone = came is not None and (item.code == "ok" or any(times[1:4]))
        left[node.name] = came + sum(times) if came is not None and gone else None
    return found
