"""An async `process`: what it may know of its batch, and what becomes of it when nobody waits for the batch."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncline import DeadlineExceeded, Each, Op, context
from asyncline.engine.context import Context
from asyncline.testing import run_virtual, virtual_engine

from .ops import graph_of


class Remote(Op):
    """Waits for `go`; keeps the batches that it began, ended and was cancelled with."""

    cpu = "inline"
    batch_size = 4

    def init_op(self) -> None:
        self.go = asyncio.Event()
        self.began: list[list[Any]] = []
        self.ended: list[list[Any]] = []
        self.cancelled: list[list[Any]] = []
        self.contexts: list[Context] = []

    async def process(self, batch: list[Any]) -> list[Any]:
        self.began.append(batch)
        self.contexts.append(context())
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(batch)
            raise
        self.ended.append(batch)
        return batch


async def turns() -> None:
    """Let the loop do all that is to be done at once."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_batch_is_cancelled_when_its_last_request_is_gone_and_its_replica_takes_the_next() -> None:
    async def main() -> None:
        graph = graph_of(Remote)
        async with virtual_engine(graph) as engine:
            op: Any = graph.ops[0]
            items = [engine.begin(n) for n in (1, 2)]
            await turns()
            items[0].cancel()
            await turns()
            assert op.began == [[1, 2]] and not op.cancelled
            items[1].cancel()
            await turns()
            assert op.cancelled == [[1, 2]]
            op.go.set()
            assert await engine.submit(3) == 3

    run_virtual(main())


def test_one_that_still_waits_gets_its_answer() -> None:
    async def main() -> None:
        graph = graph_of(Remote)
        async with virtual_engine(graph) as engine:
            op: Any = graph.ops[0]
            gone, waits = engine.begin(1), engine.begin(2)
            await turns()
            gone.cancel()
            op.go.set()
            await waits.wait()
            assert waits.result() == 2 and op.ended == [[1, 2]]

    run_virtual(main())


def test_a_batch_is_cancelled_at_the_last_deadline_of_its_requests() -> None:
    async def main() -> None:
        graph = graph_of(Remote)
        async with virtual_engine(graph) as engine:
            op: Any = graph.ops[0]
            loop = asyncio.get_running_loop()
            first, last = engine.begin(1, timeout_s=1), engine.begin(2, timeout_s=3)
            await first.wait()
            await turns()
            assert isinstance(first.error, DeadlineExceeded) and not op.cancelled
            await last.wait()
            await turns()
            assert op.cancelled == [[1, 2]] and loop.time() == pytest.approx(3, abs=0.02)
            assert engine.problem() is None

    run_virtual(main())


def test_a_request_of_many_samples_counts_once() -> None:
    class Many(Remote):
        def preprocess(self, x: list[int]) -> Each:
            return Each(x)

    async def main() -> None:
        graph = graph_of(Many)
        async with virtual_engine(graph) as engine:
            op: Any = graph.ops[0]
            item = engine.begin([1, 2, 3])
            await turns()
            item.cancel()
            await turns()
            assert op.cancelled == [[1, 2, 3]]

    run_virtual(main())


def test_context_tells_the_latest_deadline_of_a_batch_and_whose_it_is_if_it_has_one_request() -> None:
    async def main() -> None:
        graph = graph_of(Remote)
        async with virtual_engine(graph) as engine:
            op: Any = graph.ops[0]
            op.go.set()
            item = engine.begin(1, timeout_s=1, log_id="a", traceparent="b")
            await item.wait()
            await asyncio.gather(engine.submit(2, timeout=2, log_id="c"), engine.submit(3, timeout=5))
            began_at = asyncio.get_running_loop().time()
            alone, together = op.contexts
            assert alone == Context(item.data_id, "a", "b", item.expires_at)
            assert together == Context(0, "", None, began_at + 5)

    run_virtual(main())


def test_a_process_that_does_not_end_when_it_is_cancelled_makes_its_replica_hang() -> None:
    class Stubborn(Remote):
        async def process(self, batch: list[Any]) -> list[Any]:
            while not self.go.is_set():
                try:
                    await self.go.wait()
                except asyncio.CancelledError:
                    self.cancelled.append(batch)
            return batch

    async def main() -> None:
        graph = graph_of(Stubborn, concurrency=1)
        async with virtual_engine(graph) as engine:
            op: Any = graph.ops[0]
            with pytest.raises(DeadlineExceeded):
                await engine.submit(1, timeout=1)
            await asyncio.sleep(2)
            assert op.cancelled == [[1]]
            assert "op 'stubborn': replica 0 hangs in process" in str(engine.problem())
            op.go.set()
            await turns()
            assert engine.problem() is None
            assert await engine.submit(2) == 2

    run_virtual(main())
