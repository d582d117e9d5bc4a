"""Graphs of one shape, download, preprocess, model, answer; in each of them one thing is made slow.

By name, for `asyncline serve loadtest.verdict_graph:NAME`; `plants` in verdict.py says what has to be found.
"""

import asyncio
import time
from typing import Any

from asyncline import Graph, Op, Request

FAST_S = 0.002


class Get(Op):
    """Stands for a download: it waits."""

    seconds = FAST_S

    async def preprocess(self, value: Any) -> Any:
        await asyncio.sleep(self.seconds)
        return value


class Prepare(Op):
    """Stands for decoding and resizing in Python: CPU time in the pool of processes."""

    cpu = "process"
    cpu_s = 0.001

    def preprocess(self, value: Any) -> Any:
        until = time.thread_time() + self.cpu_s
        while time.thread_time() < until:
            pass
        return value


class Net(Op):
    """Stands for a model on a device: a batch takes the same time whatever its size, or so much for each sample."""

    batch_size = 4
    seconds = FAST_S
    sample_s = 0.0

    def process(self, batch: list[Any]) -> list[Any]:
        time.sleep(self.seconds + self.sample_s * len(batch))
        return batch


class Merge(Op):
    """Stands for a little of Python, on the loop."""

    cpu = "inline"
    seconds = 0.0

    def preprocess(self, value: Any) -> Any:
        if self.seconds:
            time.sleep(self.seconds)
        return value


class SlowGet(Get):
    seconds = 0.4


class SlowPrepare(Prepare):
    cpu_s = 0.02


class SlowNet(Net):
    seconds = 0.04


class SlowSamples(Net):
    """Larger batches would not help it."""

    seconds = 0.004
    sample_s = 0.009


class SlowMerge(Merge):
    seconds = 0.01


def _graph(
    get: type[Get] = Get, prepare: type[Prepare] = Prepare, net: type[Net] = Net, merge: type[Merge] = Merge
) -> Graph:
    request = Request()
    got = get(request, name="get")
    prepared = prepare(got, name="prepare")
    return Graph("planted", merge(net(prepared, name="net"), name="merge"))


plain = _graph()
slow_download = _graph(get=SlowGet)
slow_preprocess = _graph(prepare=SlowPrepare)
slow_model = _graph(net=SlowNet)
slow_samples = _graph(net=SlowSamples)
blocked_loop = _graph(merge=SlowMerge)
two_slow = _graph(get=SlowGet, prepare=Prepare, net=SlowNet)
