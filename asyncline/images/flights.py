"""Flights: one piece of work for all who ask for the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from copy import copy
from functools import partial
from typing import Any

from asyncline.errors import RequestError, Unavailable


class _Flight:
    def __init__(self, task: asyncio.Task[bytes]) -> None:
        self.task = task
        self.waiting = 0


class Flights:
    """Runs the work for a key once, however many wait for it.

    A waiter that is cancelled leaves the others their work; the last one that leaves ends it. Hence the work
    is a task of nobody's but the Flights', which `close` ends: a TaskGroup of the first waiter would end with it.
    """

    def __init__(self) -> None:
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[bytes]] = set()
        self._closed = False

    async def join(self, key: str, work: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """The result of the work in flight for `key`, which begins if there is none.

        :raises RequestError: what the work raised, a copy for each waiter.
        """
        if self._closed:
            raise Unavailable("downloads have ended")
        flight = self._flights.get(key)
        if flight is None:
            task = asyncio.get_running_loop().create_task(work(), name="asyncline download")
            flight = self._flights[key] = _Flight(task)
            self._tasks.add(task)
            task.add_done_callback(partial(self._landed, key, flight))
        flight.waiting += 1
        try:
            await asyncio.wait([flight.task])
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                # Whoever comes now must not join what is about to end.
                self._forget(key, flight)
                flight.task.cancel()
        if flight.task.cancelled():
            raise Unavailable("downloads have ended")
        error = flight.task.exception()
        if isinstance(error, RequestError):
            raise copy(error)
        return flight.task.result()

    def _landed(self, key: str, flight: _Flight, task: asyncio.Task[bytes]) -> None:
        self._forget(key, flight)
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the last waiter may have left just before

    def _forget(self, key: str, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def close(self) -> None:
        """End all work and wait for its end."""
        self._closed = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    def __len__(self) -> int:
        return len(self._flights)
