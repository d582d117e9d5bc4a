"""Lanes of the event loop: hooks that are async, streaming or not, and plain ones of a few microseconds (`inline`)."""

from __future__ import annotations

import asyncio
import copy
from functools import partial

from asyncline.deadline import Clock
from asyncline.engine.context import current
from asyncline.engine.lanes.base import Batch, Job, Lane, LaneStatistics, Replica
from asyncline.engine.lanes.call import arguments, fail, take_results
from asyncline.engine.parts import run_stream
from asyncline.errors import OpError, hook_error, load_error
from asyncline.graph.plan import Node

CLOSE_S = 1.0
"""How long cancelled hooks have for their `finally` when all ends."""
WIDTH = 64
"""Most Items of one Op in an async hook at once, where its `concurrency` does not say."""


class InlineLane(Lane):
    """Runs a Job right where it is handed in."""

    width = 1

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def start(self) -> None:
        pass

    def submit(self, job: Job) -> None:
        current.set(job.item)
        job.started_at = self._clock()
        try:
            job.value = getattr(job.node.op, job.hook)(*job.args)
        except BaseException as error:  # a SystemExit of a hook must not end the server
            job.error = hook_error(error, job.node.name, job.hook)
        job.ended_at = self._clock()
        job.done(job)

    def close(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass

    def statistics(self) -> LaneStatistics:
        return LaneStatistics(1, 1, 0, 0, 0)


class LoopLane(Lane):
    """One task for each Job. The Op's `concurrency` bounds them; the lane itself does not."""

    width = window = WIDTH

    def __init__(self, tasks: asyncio.TaskGroup, clock: Clock) -> None:
        self._tasks = tasks
        self._clock = clock
        self._running: dict[Job, asyncio.Task[None]] = {}

    async def start(self) -> None:
        pass

    def submit(self, job: Job) -> None:
        name = f"asyncline {job.node.name}.{job.hook} {job.item.data_id}"
        self._running[job] = task = self._tasks.create_task(self._run(job), name=name)
        # Not at the end of `_run`: a task that is cancelled before its first step never gets there.
        task.add_done_callback(partial(self._hand_back, job))

    def cancel(self, job: Job) -> None:
        task = self._running.get(job)
        # Its own task sees for itself that the Item is done, and has its generator to close.
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _run(self, job: Job) -> None:
        current.set(job.item)
        job.started_at = self._clock()
        try:
            if job.hook == job.node.stream_hook:
                await run_stream(job)
            else:
                job.value = await getattr(job.node.op, job.hook)(*job.args)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a SystemExit of a hook must not end the server
            job.error = hook_error(error, job.node.name, job.hook)

    def _hand_back(self, job: Job, task: asyncio.Task[None]) -> None:
        del self._running[job]
        job.ended_at = self._clock()
        job.started_at = job.started_at or job.ended_at
        if task.cancelled() and job.error is None:
            job.error = OpError(f"op {job.node.name!r} {job.hook}: was cancelled")
        job.done(job)

    def close(self) -> None:
        pass

    async def wait_closed(self) -> None:
        # The second cancel is for those that do not end their `finally` in time.
        for cancelled_already in (0, 1):
            if tasks := tuple(self._running.values()):
                for task in tasks:
                    if task.cancelling() <= cancelled_already:
                        task.cancel()
                await asyncio.wait(tasks, timeout=CLOSE_S)

    def statistics(self) -> LaneStatistics:
        return LaneStatistics(self.width, self.width, len(self._running), 0, 0)


class LoopReplica(Replica):
    """A replica whose `process` is `async def`: one task for each Batch."""

    def __init__(self, node: Node, index: int, device: str, tasks: asyncio.TaskGroup, clock: Clock) -> None:
        self.node = node
        self.index = index
        self.device = device
        self._tasks = tasks
        self._clock = clock
        self._op = copy.copy(node.op)
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        load = self._op.hook("load_model")
        if load is None:
            return
        try:
            loaded = load(self.device)
            self._op.model = await loaded if asyncio.iscoroutine(loaded) else loaded
        except Exception as error:
            raise load_error(error, self.node.name, "load_model") from error

    def submit(self, batch: Batch) -> None:
        name = f"asyncline {self.node.name}.process replica {self.index}"
        self._running = self._tasks.create_task(self._run(batch), name=name)
        self._running.add_done_callback(partial(self._hand_back, batch))

    async def _run(self, batch: Batch) -> None:
        current.set(None)
        batch.started_at = self._clock()
        try:
            given = arguments(self._op, batch)
            if batch.samples:
                take_results(self._op, batch, await self._op.hook("process")(*given))  # type: ignore[misc]  # the Op has it
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a SystemExit of a hook must not end the server
            fail(self._op, batch, error)

    def _hand_back(self, batch: Batch, task: asyncio.Task[None]) -> None:
        batch.ended_at = self._clock()
        batch.started_at = batch.started_at or batch.ended_at
        if task.cancelled() and batch.error is None:
            # Ours at the close; else `process` let an inner cancel escape.
            batch.error = OpError(f"op {self.node.name!r} process: was cancelled")
        batch.done(batch)

    def close(self) -> None:
        pass

    async def wait_closed(self) -> None:
        if self._running is not None and not self._running.done():
            self._running.cancel()
            await asyncio.wait([self._running], timeout=1.0)
