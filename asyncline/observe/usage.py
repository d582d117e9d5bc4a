"""What was counted, as the Open Inference Protocol's statistics have it."""

from __future__ import annotations

import time

from asyncline.engine.engine import Engine
from asyncline.graph.plan import Node
from asyncline.observe.statistics import Statistics
from asyncline.wire.oip.models import BatchUsage, Duration, Usage


class Usages:
    """Usage of the graph, by the name `""`, and of each Op.

    Of a request, `queue` is its wait at an Op, `compute_input` its `preprocess`, `compute_infer` the `process` of the
    batches that it was in, `compute_output` its `postprocess` and the handing over. Of the graph they are the sums over
    the Ops, which run side by side where the graph has branches; its `success` and `fail` are whole requests. Of an Op,
    fails are those that it caused.
    """

    def __init__(self, engine: Engine, statistics: Statistics) -> None:
        self._engine = engine
        self._statistics = statistics

    def __call__(self) -> dict[str, Usage]:
        self._statistics.fold()
        ops = {node.name: self._of_op(node) for node in self._engine.plan.nodes}
        return {"": self._of_graph(list(ops.values())), **ops}

    def _of_graph(self, ops: list[Usage]) -> Usage:
        counted = self._statistics
        count = counted.outcomes["ok"]
        failed_s = counted.failed_seconds
        return Usage(
            success=_duration(count, counted.request_seconds.sum - failed_s),
            fail=_duration(counted.request_seconds.count - count, failed_s),
            queue=Duration(count, sum(op.queue.ns for op in ops)),
            compute_input=Duration(count, sum(op.compute_input.ns for op in ops)),
            compute_infer=Duration(count, sum(op.compute_infer.ns for op in ops)),
            compute_output=Duration(count, sum(op.compute_output.ns for op in ops)),
            inference_count=counted.rows if self._engine.graph.takes_rows else count,
            execution_count=count,
            last_inference_ms=self._last_ms(),
        )

    def _of_op(self, node: Node) -> Usage:
        counted = self._statistics
        count = counted.op_seconds[node.name, "wait"].count  # every Op has that stage
        stages = (("wait",), ("pre",), ("mid",), ("post", "out"))
        queue, before, infer, after = (_duration(count, self._seconds(node, each)) for each in stages)
        failed = counted.op_failures[node.name]
        sizes = counted.executions.get(node.name)
        batches: tuple[BatchUsage, ...]
        if sizes is None:  # every request is run by itself
            batches = (BatchUsage(1, before, infer, after),) if count else ()
        else:
            batches = tuple(
                BatchUsage(size, Duration(runs), _duration(runs, seconds), Duration(runs))
                for size, (runs, seconds) in sorted(sizes.items())
            )
        return Usage(
            success=Duration(count, queue.ns + before.ns + infer.ns + after.ns),
            fail=_duration(failed.count, failed.seconds),
            queue=queue,
            compute_input=before,
            compute_infer=infer,
            compute_output=after,
            inference_count=sum(batch.batch_size * batch.compute_infer.count for batch in batches),
            execution_count=sum(batch.compute_infer.count for batch in batches),
            batches=batches,
            last_inference_ms=self._last_ms() if count or failed.count else 0,
        )

    def _seconds(self, node: Node, stages: tuple[str, ...]) -> float:
        found = [self._statistics.op_seconds.get((node.name, stage)) for stage in stages]
        return sum(histogram.sum for histogram in found if histogram is not None)

    def _last_ms(self) -> int:
        started_at = self._statistics.last_started_at
        if started_at is None:
            return 0
        return int((time.time() - (self._engine.clock() - started_at)) * 1e3)


def _duration(count: int, seconds: float) -> Duration:
    return Duration(count, max(0, round(seconds * 1e9)))
