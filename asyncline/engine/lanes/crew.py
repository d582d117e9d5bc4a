"""Crew: the worker processes that there are, and who comes in the place of one that has died or grown."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from asyncline.deadline import Clock
from asyncline.engine.lanes.pool_worker import PoolWorker, State
from asyncline.engine.lanes.supervision import Restarts

log = logging.getLogger("asyncline.engine")

CLOSE_S = 2.0
"""How long a stop waits for the executors of killed workers."""


class Crew:
    """`width` workers, each with its place, which its successors have too. Iterates over all that may have Jobs.

    :param make: makes the worker of a place.
    :param freed: called with one that is there and has nothing to do.
    :param deserted: called when none is left, for now.
    """

    def __init__(
        self,
        width: int,
        make: Callable[[int], PoolWorker],
        freed: Callable[[PoolWorker], None],
        deserted: Callable[[], None],
        tasks: asyncio.TaskGroup,
        clock: Clock,
    ) -> None:
        #: By place.
        self.workers = [make(place) for place in range(width)]
        #: Those that have a successor but still work.
        self.leaving: set[PoolWorker] = set()
        #: Those that have nothing to do, and have started.
        self.free: deque[PoolWorker] = deque()
        #: How many have died.
        self.lost_count = 0
        self.is_closed = False
        self._make = make
        self._freed = freed
        self._deserted = deserted
        self._tasks = tasks
        self._clock = clock
        self._restarts = [Restarts() for _ in range(width)]
        self._starting: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Future[None]] = set()

    def __iter__(self) -> Iterator[PoolWorker]:
        return iter((*self.workers, *self.leaving))

    @property
    def alive(self) -> list[PoolWorker]:
        """Those that have started and take Jobs."""
        return [each for each in self.workers if each.alive]

    async def start(self) -> None:
        """Start them all.

        :raises LoadError: one does not start.
        """
        await asyncio.gather(*(each.start() for each in self.workers))
        self.free.extend(self.workers)

    def remove(self, dead: PoolWorker) -> None:
        """One is gone. See to a successor by `replace`, once its Jobs are seen to."""
        self._not_free(dead)
        self._discard(dead)

    def replace(self, dead: PoolWorker) -> None:
        """Start another in the place of a dead one, where that has not begun."""
        self.lost_count += 1
        self._restarts[dead.number].died(self._clock())
        if dead.successor is None:
            self._start(dead.number, self._replace(dead.number))

    def _start(self, place: int, starting: Coroutine[Any, Any, None]) -> None:
        task = self._tasks.create_task(starting, name=f"asyncline worker {place} start")
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _replace(self, place: int) -> None:
        """Start another worker in the place of a dead one, until that succeeds."""
        restarts = self._restarts[place]
        while not self.is_closed:
            fresh = self.workers[place] = self._make(place)
            await asyncio.sleep(restarts.delay_s(self._clock()))
            try:
                await fresh.start()
            except Exception as error:  # no descriptors left, for one: it may be better soon
                self._discard(fresh)
                restarts.start_failed()
                if not self.is_closed:
                    log.error("worker %d of the CPU pool: %s", place, error)
                    if not any(each.alive for each in self):
                        self._deserted()
                continue
            restarts.started()
            self._freed(fresh)
            return

    def retire(self, grown: PoolWorker, nbytes: int) -> None:
        """A worker has grown to `nbytes` of memory: start another, then let it go."""
        if grown.successor is None and not self.is_closed:
            log.warning("worker %d of the CPU pool has grown to %d MB, and is replaced", grown.number, nbytes // 10**6)
            grown.successor = self._make(grown.number)
            self._start(grown.number, self._succeed(grown, grown.successor))

    async def _succeed(self, grown: PoolWorker, fresh: PoolWorker) -> None:
        try:
            await fresh.start()
        except Exception as error:
            self._discard(fresh)
            grown.successor = None
            log.error("worker %d of the CPU pool: %s", grown.number, error)
            if grown.state is State.DEAD and not self.is_closed:
                self._restarts[grown.number].start_failed()
                await self._replace(grown.number)
            return
        self.workers[grown.number] = fresh
        self._not_free(grown)
        if grown.jobs:
            self.leaving.add(grown)
            grown.state = State.RETIRING
        elif grown.state is not State.DEAD:
            self._discard(grown)
        self._freed(fresh)

    def retired(self, grown: PoolWorker) -> None:
        """One that has a successor has done its last Job."""
        self._discard(grown)

    def _not_free(self, at: PoolWorker) -> None:
        if at in self.free:
            self.free.remove(at)

    def _discard(self, at: PoolWorker) -> None:
        self.leaving.discard(at)
        at.discard()
        if at.ended is not None and not at.ended.done():
            self._ending.add(at.ended)
            at.ended.add_done_callback(self._ending.discard)

    async def wait_closed(self) -> None:
        """End them all, the ones that are starting too."""
        for task in tuple(self._starting):
            task.cancel()
        for each in self:
            self._discard(each)
            if each.successor is not None:
                self._discard(each.successor)
        if self._ending:
            await asyncio.wait(self._ending, timeout=CLOSE_S)

    def __repr__(self) -> str:
        return f"<Crew of {len(self.workers)}, {len(self.alive)} alive, {len(self.free)} free>"
