"""Lanes of the event loop: hooks that are async, streaming or not, and plain ones of a few microseconds (`inline`)."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from asyncline.deadline import Clock
from asyncline.engine.context import Context, current
from asyncline.engine.lanes.base import Batch, Job, Lane, LaneStatistics, Replica
from asyncline.engine.lanes.call import arguments, fail, take_results
from asyncline.engine.parts import run_stream
from asyncline.errors import OpError, hook_error, load_error
from asyncline.graph.plan import Node

if TYPE_CHECKING:
    from asyncline.engine.visit import Sample

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
        current.set(job.context())
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
        if task.cancelled():
            job.started_at = job.started_at or job.ended_at
            if job.error is None:
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


class Call:
    """A Batch in an async `process`, as work for its Items: cancelled when the last of them is dead."""

    __slots__ = ("_alive", "context", "items", "task")

    task: asyncio.Task[None]

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.items = list({sample.visit.item: None for sample in samples})
        self._alive = sum(not item.done for item in self.items)
        expires_at = max(sample.visit.expires_at for sample in samples)
        if len(self.items) == 1:
            (item,) = self.items
            self.context = Context(item.data_id, item.log_id, item.traceparent, expires_at)
        else:
            self.context = Context(0, "", None, expires_at)
        for item in self.items:
            item.jobs.append(self)

    def cancel(self) -> None:
        self._alive -= 1
        if not self._alive:
            self.task.cancel()

    def over(self) -> None:
        for item in self.items:
            item.jobs.remove(self)


class LoopReplica(Replica):
    """A replica whose `process` is `async def`: one task for each Batch, cancelled when all its Items are dead.

    One that does not end then keeps the replica, which is said to hang some time after the batch's deadlines.
    """

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
        call = Call(batch.samples)
        self._running = call.task = self._tasks.create_task(self._run(batch, call.context), name=name)
        self._running.add_done_callback(partial(self._hand_back, batch, call))

    async def _run(self, batch: Batch, context: Context) -> None:
        current.set(context)
        batch.started_at = self._clock()
        try:
            given = arguments(self._op, batch)
            if batch.samples:
                self._note_span(batch, context)
                take_results(self._op, batch, await self._op.hook("process")(*given))  # type: ignore[misc]  # the Op has it
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a SystemExit of a hook must not end the server
            fail(self._op, batch, error)

    def _note_span(self, batch: Batch, context: Context) -> None:
        """Where there are Spans, calls of `process` are of the batch's own, whatever it is of."""
        spans = batch.samples[0].visit.item.engine.spans
        if spans is not None:
            requests = {sample.visit.item.data_id: sample.visit.item for sample in batch.samples}
            of = [(data_id, item.traceparent) for data_id, item in requests.items()]
            current.set(replace(context, traceparent=spans.of_batch(self.node.index, self.index, batch.started_at, of)))

    def _hand_back(self, batch: Batch, call: Call, task: asyncio.Task[None]) -> None:
        call.over()
        batch.ended_at = self._clock()
        if not (batch.started_at and batch.samples):
            batch.started_at = batch.ended_at  # nothing ran
        if task.cancelled() and batch.error is None:
            # Nobody waits any more; else `process` let an inner cancel escape.
            batch.error = OpError(f"op {self.node.name!r} process: was cancelled")
        batch.done(batch)

    def close(self) -> None:
        pass

    async def wait_closed(self) -> None:
        if self._running is not None and not self._running.done():
            self._running.cancel()
            await asyncio.wait([self._running], timeout=1.0)
