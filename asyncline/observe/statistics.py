"""Counts and times of requests, Ops and batches."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from asyncline.engine.hooks import Observer
from asyncline.engine.item import Item
from asyncline.engine.lanes.base import Batch
from asyncline.errors import RequestError
from asyncline.graph.plan import STAGES, Node, Plan

SECONDS = tuple(m * 10.0**e for e in range(-5, 2) for m in (1.0, 2.5, 5.0))
"""Upper bounds of the time buckets: 10 µs to 50 s, three in a decade."""
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Histogram:
    """Counts by bucket, the sum and the count. `counts` has one more entry than `bounds`: above the last."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)


class OpCounts:
    """What one Op has done."""

    def __init__(self) -> None:
        self.done = 0
        self.errors: Counter[str] = Counter()
        #: Seconds in each of `STAGES`; a stage that an Op does not have stays empty.
        self.seconds = tuple(Histogram(SECONDS) for _ in STAGES)
        self.batch_size = Histogram(SIZES)
        self.batch_seconds = Histogram(SECONDS)


class Statistics(Observer):
    """Counts everything since the start. Costs about 1 µs a request and Op."""

    def __init__(self, plan: Plan) -> None:
        #: Requests by outcome: `ok` or the code of the error (`product` for the business's own).
        self.outcomes: Counter[str] = Counter()
        self.request_seconds = Histogram(SECONDS)
        #: Requests refused at the door, by reason; they are no Items and in no other count.
        self.rejections: Counter[str] = Counter()
        self.workers_lost = 0
        self.blockages = 0
        self.ops = tuple(OpCounts() for _ in plan.nodes)
        self.names = tuple(node.name for node in plan.nodes)
        # An Op without a hook has no time in that stage; all have a wait.
        stages = ("preprocess", "process", "postprocess")
        self._stages = tuple(
            (0, *(1 + i for i, hook in enumerate(stages) if hook in node.lanes)) for node in plan.nodes
        )

    def item_done(self, item: Item) -> None:
        self.outcomes["ok" if item.error is None else _code(item.error)] += 1
        self.request_seconds.observe(item.finished_at - item.started_at)

    def op_done(self, node: Node, item: Item) -> None:
        counts = self.ops[node.index]
        counts.done += 1
        first = len(STAGES) * node.index
        for stage in self._stages[node.index]:
            counts.seconds[stage].observe(item.times[first + stage])

    def op_failed(self, node: Node, item: Item, error: RequestError) -> None:
        self.ops[node.index].errors[_code(error)] += 1

    def batch_done(self, node: Node, batch: Batch) -> None:
        counts = self.ops[node.index]
        counts.batch_size.observe(len(batch.samples))
        counts.batch_seconds.observe(batch.ended_at - batch.started_at)

    def rejected(self, reason: str) -> None:
        self.rejections[reason] += 1

    def worker_lost(self, op: str, hook: str, reason: str) -> None:
        self.workers_lost += 1

    def loop_blocked(self, where: str, seconds: float, stack: str) -> None:
        self.blockages += 1


def _code(error: RequestError) -> str:
    # A business has any number of codes: as labels they would be without bound.
    return error.code if type(error).code == error.code and isinstance(error.code, str) else "product"
