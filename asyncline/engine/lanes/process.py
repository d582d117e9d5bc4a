"""Lane of processes: the CPU pool.

Single-worker `ProcessPoolExecutor`s, one Job in flight per worker, so that a crash costs one request and
names its culprit, and a hung worker can be killed. A shared pool would fail every pending Job on one crash.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import multiprocessing
import os
import pickle
import select
import signal
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial, reduce
from typing import Any

from asyncline.deadline import Clock
from asyncline.engine.hooks import Hooks
from asyncline.engine.lanes import worker
from asyncline.engine.lanes.base import Job, Lane, LaneStatistics
from asyncline.errors import LoadError, OpError, Unavailable, WorkerCrashed, public_message
from asyncline.graph.op import recipe
from asyncline.graph.plan import Node

log = logging.getLogger("asyncline.engine")

GRACE_S = 1.0
"""How long past the deadline of its Item a hook may run before its worker is killed."""
START_S = 60.0
"""How long a worker may take to import the Ops' modules and run `init_op`."""
CLOSE_S = 2.0
"""How long a stop waits for the executors of killed workers."""
BACKOFF_S = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0)
"""Waits before a worker is started again, by how many starts in a row have failed."""


class Slot:
    """One worker process, replaced when it dies: STARTING -> READY <-> BUSY -> DEAD -> STARTING."""

    def __init__(self, number: int, lane: ProcessLane) -> None:
        self.number = number
        self.job: Job | None = None
        self.ready = False
        self.retired: asyncio.Future[None] | None = None
        self._lane = lane
        self._executor: ProcessPoolExecutor | None = None
        self._pidfd: int | None = None
        self._kill_timer: asyncio.TimerHandle | None = None
        self._killed_because = ""

    async def start(self) -> None:
        """Start a worker.

        :raises LoadError: it died, took too long, or an Op could not be made in it.
        """
        try:
            async with asyncio.timeout(START_S):
                # In a thread: starting a process talks to the fork server and waits for it.
                started = await asyncio.wrap_future(await asyncio.to_thread(self._spawn))
                if isinstance(started, LoadError):
                    raise started
                # By descriptor, so that a signal can never reach another process with a reused id.
                self._pidfd = os.pidfd_open(started)
        except TimeoutError:
            raise LoadError(f"a worker of the CPU pool did not start within {START_S:.0f} s") from None
        except LoadError:
            raise
        except BrokenProcessPool:
            raise LoadError("a worker of the CPU pool died while it started") from None
        except Exception as error:
            raise LoadError(f"a worker of the CPU pool did not start: {public_message(error)}") from error
        self._lane.loop.add_reader(self._pidfd, self._died)
        self.ready = True

    def _spawn(self) -> Future[int | LoadError]:
        context = multiprocessing.get_context("forkserver")
        self._executor = ProcessPoolExecutor(max_workers=1, mp_context=context)
        return self._executor.submit(worker.start, self._lane.recipes)

    def run(self, job: Job) -> None:
        self.job = job
        item = job.item
        call = worker.Call(
            job.node.name, job.hook, job.args, item.data_id, item.log_id, item.traceparent, job.expires_at
        )
        loop = self._lane.loop
        try:
            future = self._executor.submit(worker.call, call)  # type: ignore[union-attr]  # ready slots have one
        except BrokenProcessPool as error:
            future = Future()
            future.set_exception(error)
        self._kill_timer = loop.call_at(job.expires_at + GRACE_S, self.kill, "hung past the deadline")
        future.add_done_callback(partial(_to_loop, loop, self._hand_back))

    def kill(self, reason: str) -> None:
        if self._pidfd is not None:
            self._killed_because = reason
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _hand_back(self, future: Future[worker.Answer]) -> None:
        job, self.job = self.job, None
        assert job is not None
        self._kill_timer.cancel()  # type: ignore[union-attr]  # set when the Job was handed over
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            self._lane.lost(self, job, self._killed_because or "died")
            return
        if error is not None:
            # Arguments or a result that pickle refuses; the worker is well.
            text = f"{type(error).__name__}: {public_message(error)}"
            job.error = OpError(f"op {job.node.name!r} {job.hook}: a value cannot cross to the CPU pool: {text}")
        else:
            answer = future.result()
            job.value, job.error = answer.value, answer.error
            job.started_at, job.ended_at = answer.started_at, answer.ended_at
        self._lane.finished(self, job)

    def _died(self) -> None:
        """The worker has ended. While it ran a Job, the executor says so too, with the Job."""
        self._lane.loop.remove_reader(self._pidfd)  # type: ignore[arg-type]  # set while there is a reader
        if self.job is None:
            self._lane.lost(self, None, "died while idle")

    def is_dead(self) -> bool:
        """Whether the worker has ended, even if the loop has not been told yet."""
        if self._pidfd is None:
            return True
        poll = select.poll()  # not select(): a server's descriptors go past 1024
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def discard(self) -> None:
        """Let go of a worker, dead or alive."""
        self.ready = False
        self._killed_because = ""
        if self._pidfd is not None:
            self._lane.loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        executor, self._executor = self._executor, None
        if executor is not None:
            # In a thread: it joins the executor's own, which ends with its worker.
            self.retired = self._lane.loop.run_in_executor(None, executor.shutdown)


class ProcessLane(Lane):
    """`width` worker processes and one queue of Jobs in front of them, oldest first."""

    def __init__(self, width: int, nodes: list[Node], tasks: asyncio.TaskGroup, hooks: Hooks, clock: Clock) -> None:
        self.width = width
        self.loop = asyncio.get_running_loop()
        self.recipes: list[worker.Recipe] = []
        self._nodes = nodes
        self._tasks = tasks
        self._hooks = hooks
        self._clock = clock
        self._slots = [Slot(number, self) for number in range(width)]
        self._free: deque[Slot] = deque()
        self._jobs: deque[Job] = deque()
        self._replaced = 0
        self._closed = False

    async def start(self) -> None:
        self.recipes = [make_recipe(node) for node in self._nodes]
        await asyncio.gather(*(slot.start() for slot in self._slots))
        self._free.extend(self._slots)

    def submit(self, job: Job) -> None:
        self._jobs.append(job)
        self._dispatch()

    def _dispatch(self) -> None:
        while self._jobs and self._free:
            job = self._jobs.popleft()
            if job.item.done:
                self.loop.call_soon(job.done, job)
                continue
            slot = self._free.popleft()
            if slot.is_dead():
                self._jobs.appendleft(job)
                self.lost(slot, None, "died while idle")
            else:
                slot.run(job)

    def finished(self, slot: Slot, job: Job) -> None:
        self._free.append(slot)
        self._dispatch()
        job.done(job)

    def lost(self, slot: Slot, job: Job | None, reason: str) -> None:
        """A worker is gone, with the Job it ran."""
        slot.discard()
        if job is None and slot in self._free:
            self._free.remove(slot)
        op, hook = (job.node.name, job.hook) if job is not None else ("", "")
        if job is not None:
            job.error = WorkerCrashed(f"op {op!r} {hook}: the worker process {reason}")
        if self._closed:
            if job is not None:
                job.done(job)
            return
        self._replaced += 1
        log.error("worker %d of the CPU pool %s%s", slot.number, reason, f" in op {op!r} {hook}" if op else "",
                  extra=_ids(job))  # fmt: skip
        if self._hooks.worker_lost:
            self._hooks.emit(self._hooks.worker_lost, op, hook, reason)
        self._tasks.create_task(self._replace(slot), name=f"asyncline worker {slot.number} restart")
        if job is not None:
            job.done(job)

    async def _replace(self, slot: Slot) -> None:
        for attempt in range(1_000_000):
            await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
            try:
                await slot.start()
            except LoadError as error:
                log.error("worker %d of the CPU pool: %s", slot.number, error)
                slot.discard()
                if not any(other.ready for other in self._slots):
                    self._refuse()
                continue
            self._free.append(slot)
            self._dispatch()
            return

    def _refuse(self) -> None:
        """No worker is left: fail what waits, rather than let it run into its deadline."""
        waiting, self._jobs = self._jobs, deque()
        for job in waiting:
            job.error = Unavailable(f"op {job.node.name!r} {job.hook}: no worker of the CPU pool is alive")
            job.done(job)

    def close(self) -> None:
        self._closed = True

    async def wait_closed(self) -> None:
        for slot in self._slots:
            slot.kill("closed")
            slot.discard()
        retired = [slot.retired for slot in self._slots if slot.retired is not None]
        if retired:
            await asyncio.wait(retired, timeout=CLOSE_S)

    def statistics(self) -> LaneStatistics:
        alive = [slot for slot in self._slots if slot.ready]
        running = sum(slot.job is not None for slot in alive)
        return LaneStatistics(self.width, len(alive), running, len(self._jobs), self._replaced)


def make_recipe(node: Node) -> worker.Recipe:
    """How workers make this Op.

    :raises LoadError: its class cannot be imported there, or its arguments cannot be pickled.
    """
    cls = type(node.op)
    cure = "define it at the top level of a module, or set cpu = 'thread'"
    where = f"op {node.name!r}: its hooks run in the CPU pool, which cannot import {cls.__qualname__!r}"
    main = importlib.import_module(cls.__module__)
    if cls.__module__ == "__main__" and getattr(main, "__file__", None) is None:
        raise LoadError(f"{where} from an interactive session: {cure}")
    try:
        found: Any = reduce(getattr, cls.__qualname__.split("."), main)
    except AttributeError:
        raise LoadError(f"{where} from {cls.__module__!r}: {cure}") from None
    if found is not cls:
        raise LoadError(f"{where} from {cls.__module__!r}, where that name is something else: {cure}")
    args, kwargs = recipe(node.op)
    made = worker.Recipe(node.name, cls, args, kwargs, node.settings)
    try:
        pickle.dumps(made)
    except Exception as error:
        raise LoadError(
            f"op {node.name!r}: its arguments have to reach the CPU pool, but {public_message(error)}: "
            "pass plain values and build the rest in init_op, or set cpu = 'thread'"
        ) from error
    return made


def _to_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[Future[Any]], None], future: Future[Any]) -> None:
    try:
        loop.call_soon_threadsafe(callback, future)
    except RuntimeError:
        pass  # the loop is closed: nobody waits


def _ids(job: Job | None) -> dict[str, Any]:
    return {} if job is None else {"data_id": job.item.data_id, "log_id": job.item.log_id}
