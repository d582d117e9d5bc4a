"""Lane of threads: for hooks whose native code releases the GIL. No copy at all."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from queue import SimpleQueue

from asyncline.deadline import Clock
from asyncline.engine.context import current
from asyncline.engine.lanes.base import Job, Lane, LaneStatistics
from asyncline.engine.lanes.steps import run_here
from asyncline.errors import hook_error
from asyncline.graph.plan import Node

log = logging.getLogger("asyncline.engine")

JOIN_S = 1.0
"""How long a stop waits for a thread that is still in a hook; being a daemon, it ends with the process."""


class Ending:
    """Lets the loop wait for threads to end, without a thread to wait in."""

    def __init__(self, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._left = count
        self._all = asyncio.Event()

    def one_ended(self) -> None:
        """Called by a thread as its last act."""
        try:
            self._loop.call_soon_threadsafe(self._count)
        except RuntimeError:
            pass  # the loop is closed: nobody waits

    def _count(self) -> None:
        self._left -= 1
        if not self._left:
            self._all.set()

    async def wait(self, what: str) -> None:
        try:
            async with asyncio.timeout(JOIN_S):
                await self._all.wait()
        except TimeoutError:
            log.warning("%s is still in a hook; it is left behind", what)


class Bound:
    """At most so many Jobs of one Op in the queue or at work; others wait here. Threads and the loop share it without a
    lock: each adds what it has, a Job or a place, and then looks whether there is one of both.
    """

    __slots__ = ("places", "waiting")

    def __init__(self, most: int) -> None:
        self.places = deque((None,) * most)
        self.waiting: deque[Job] = deque()

    def next(self) -> Job | None:
        """A Job that may begin, in a place that is taken for it."""
        while self.waiting and self.places:
            try:
                self.places.pop()
            except IndexError:  # another thread was faster
                return None
            try:
                return self.waiting.popleft()
            except IndexError:
                self.places.append(None)  # and look again: who came meanwhile found no place
        return None

    def leave(self) -> None:
        self.places.append(None)


class ThreadLane(Lane):
    """`width` threads that share one queue of Jobs, oldest first. Hooks of one Op may run in several at once.

    To wake a thread costs more than a short hook, and threads that are awake fight for the interpreter. So one is
    woken at a time: it wakes the next where it leaves Jobs behind, before it begins with its own, and then takes as
    many as it can. Those that end while the loop is busy are handed back together.
    """

    fuses = True
    bounds = True

    def __init__(self, width: int, clock: Clock) -> None:
        self.width = width
        self._clock = clock
        self._jobs: deque[Job] = deque()
        #: True: there is a Job. False: the end.
        self._calls: SimpleQueue[bool] = SimpleQueue()
        #: Whether a thread has been called that has not looked yet. Whoever takes the call looks after it has said so.
        self._is_called = False
        self._ended: deque[Job] = deque()
        #: The same for the loop, and `_ended`.
        self._is_loop_called = False
        self._running = 0
        self._bounds: dict[int, Bound | None] = {}
        self._ending: Ending | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = Ending(self.width)
        for number in range(self.width):
            threading.Thread(target=self._work, args=(number,), name=f"asyncline cpu {number}", daemon=True).start()

    def submit(self, job: Job) -> None:
        self._running += 1
        index = job.node.index
        if index not in self._bounds:
            self._bounds[index] = _bound(job.node)
        bound = self._bounds[index]
        if bound is None:
            self._jobs.append(job)
            self._call()
        else:
            bound.waiting.append(job)
            if (job_now := bound.next()) is not None:
                self._jobs.append(job_now)
                self._call()

    def _call(self) -> None:
        """See to it that a thread looks for Jobs."""
        if not self._is_called:
            self._is_called = True
            self._calls.put(True)

    def _work(self, number: int) -> None:
        while self._calls.get():
            self._is_called = False
            while self._jobs:
                try:
                    job = self._jobs.popleft()
                except IndexError:  # another thread was faster
                    break
                if self._jobs:
                    self._call()
                job.worker = number
                self._run(job)
                if (bound := self._bounds[job.node.index]) is not None:
                    bound.leave()
                    if (following := bound.next()) is not None:
                        self._jobs.append(following)  # for this thread, or one that is faster
                        del following
                self._ended.append(job)
                del job  # neither is kept while the thread waits for the next
                current.set(None)
                if not self._is_loop_called:
                    self._is_loop_called = True
                    try:
                        self._loop.call_soon_threadsafe(self._hand_back)
                    except RuntimeError:
                        return  # the loop is closed: nobody waits
        if self._ending is not None:
            self._ending.one_ended()

    def _run(self, job: Job) -> None:
        job.started_at = job.ended_at = self._clock()
        if job.item.done:
            return
        current.set(job.context())
        if job.steps:
            self._run_steps(job)
            return
        try:
            job.value = getattr(job.node.op, job.hook)(*job.args)
        except BaseException as error:  # a SystemExit of a hook must not end the thread
            job.error = hook_error(error, job.node.name, job.hook)
        job.ended_at = self._clock()

    def _run_steps(self, job: Job) -> None:
        results = []
        for result in run_here(job, self._clock):
            results.append(result)
            if job.item.done:
                break
        job.set_results(*results)

    def _hand_back(self) -> None:
        self._is_loop_called = False
        for _ in range(len(self._ended)):  # what ends from here on has a call of its own
            job = self._ended.popleft()
            self._running -= 1
            job.hand_back()

    def close(self) -> None:
        for _ in range(self.width):
            self._calls.put(False)

    async def wait_closed(self) -> None:
        if self._ending is not None:
            await self._ending.wait("a thread of the CPU lane")

    def statistics(self) -> LaneStatistics:
        waiting = len(self._jobs) + sum(len(bound.waiting) for bound in self._bounds.values() if bound is not None)
        return LaneStatistics(self.width, self.width, max(0, self._running - waiting), waiting, 0)


def _bound(node: Node) -> Bound | None:
    limits = (node.op.cpu_concurrency, None if "process" in node.lanes else node.settings.concurrency)
    found = [limit for limit in limits if limit is not None]
    return Bound(min(found)) if found else None
