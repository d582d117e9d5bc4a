"""Tracer: the figures of each interval as text, in the layout of Paddle Serving's `pipeline.tracer`; the verdict."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from asyncline.engine.engine import Engine
from asyncline.graph.op import Op
from asyncline.observe.figures import Figures, OpFigures
from asyncline.observe.statistics import Statistics
from asyncline.observe.verdict import verdict
from asyncline.observe.windows import Windows

log = logging.getLogger("asyncline.tracer")

HEADLINE = "==================== TRACER ======================"


class Tracer:
    """Writes a block every `interval_s` seconds, which has the figures since the block before."""

    def __init__(self, engine: Engine, statistics: Statistics, windows: Windows, interval_s: int) -> None:
        self._engine = engine
        self._statistics = statistics
        self._windows = windows
        self._interval_s = interval_s
        self._left_s = interval_s
        #: When the block before ended. Seconds that are late make an interval longer, and no request is to be left out.
        self._since = 0.0

    def start(self) -> None:
        """Begin; the Windows have begun."""
        self._since = self._windows.at
        self._windows.listeners.append(self._tick)

    def _tick(self) -> None:
        self._left_s -= 1
        if self._left_s <= 0:
            self._left_s = self._interval_s
            figures = self._windows.figures(self._windows.at - self._since)
            self._since = self._windows.at
            since = figures.at - figures.seconds
            failed = [failure.data_id for failure in self._statistics.last_failures if failure.at >= since]
            judged = verdict(figures, self._engine.plan)
            for line in lines(figures, self._engine, failed):
                log.info(line)
            log.info("%s", judged)

    def close(self) -> None:
        if self._tick in self._windows.listeners:
            self._windows.listeners.remove(self._tick)


def lines(figures: Figures, engine: Engine, failed: list[int]) -> Iterator[str]:
    """The block, but for the verdict.

    :param failed: ids of requests that failed, as many as are known.
    """
    yield HEADLINE
    for op in figures.ops:
        yield from _of_op(op)
    if figures.count:
        yield "DAGExecutor:"
        yield f"\tQuery count[{figures.count}]"
        yield f"\tQPS[{figures.qps:.2f} q/s]"
        yield f"\tSucc[{figures.success:.4g}]"
        yield f"\tError req[{', '.join(map(str, failed))}]"
        yield "\tLatency:"
        yield f"\t\tave[{figures.latency.mean_ms:.3f} ms]"
        for number, value in figures.latency.percentiles_ms.items():
            yield f"\t\t.{number}[{value:.3f} ms]"
    for code, count in sorted(figures.rejected.items()):
        yield f"\trefused[{count} {code}]"
    yield "Channel (server worker num[1]):"
    for number, (node, op) in enumerate(zip(engine.plan.nodes, figures.ops, strict=True)):
        sources = [value.name for value in node.op.inputs if isinstance(value, Op)] or ["@DAGExecutor"]
        yield f"\tchl{number}(In: {sources}, Out: [{op.name!r}]) size[{op.depth}/{op.channel_size}]"


def _of_op(op: OpFigures) -> Iterator[str]:
    if not (op.count or op.errors):
        return
    yield f"Op({op.name}):"
    yield f"\tin[{op.in_ms:.3f} ms]"
    yield f"\tprep[{op.prep_ms:.3f} ms]"
    yield f"\tmidp[{op.midp_ms:.3f} ms]"
    yield f"\tpostp[{op.postp_ms:.3f} ms]"
    yield f"\tout[{op.out_ms:.3f} ms]"
    yield f"\tidle[{op.idle:.2f}]"
    if op.batches:
        yield f"\tbatch size[{op.batch_size:.2f}]"
    yield f"\tqueue[{op.depth} now, {op.depth_max} at most]"
    for code, count in sorted(op.errors.items()):
        yield f"\terrors[{count} {code}]"
