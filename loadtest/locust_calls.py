"""Locust's users of gRPC and of TCP: our own client, on one event loop beside locust's greenlets."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from functools import cache
from typing import Any, ClassVar, TypeVar

from locust import User
from locust.exception import StopTest

from asyncline.client import AsyncClient

_T = TypeVar("_T")


class Loop:
    """The event loop of a process.

    Locust has gevent replace threads by greenlets of one thread, sockets by such as let the others go on, and the
    selectors of asyncio by its own. A loop in such a thread therefore holds nobody up, but there is room for only one:
    asyncio knows the loop that runs by its thread. So `asyncline.client.Client`, which brings a loop of its own, would
    do for one user of one wire only.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="clients", daemon=True).start()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine there; the greenlet that asks waits, others go on."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # locust ends users by an exception
            raise


@cache
def loop() -> Loop:
    return Loop()


class CallUser(User):
    """A user with a connection of its own."""

    abstract = True
    wire: ClassVar[str]
    """What it is called in the table."""
    url: ClassVar[str]
    timeout_s: ClassVar[float] = 60.0

    def on_start(self) -> None:
        self._client = AsyncClient(self.url, retries=0, timeout=self.timeout_s)
        if not loop().run(self._client.ready()):
            raise StopTest(f"nobody is ready at {self.url}")

    def on_stop(self) -> None:
        loop().run(self._client.close())

    def call(self, graph: str, kind: str, payload: Any) -> Any:
        """One request; locust is told what became of it."""
        began_at = time.perf_counter()
        answer, error = None, None
        try:
            answer = loop().run(self._client(graph, payload))
        except Exception as raised:  # of whatever kind: it is a line in the table
            error = raised
        self.environment.events.request.fire(
            request_type=self.wire,
            name=f"{graph}, {kind}",
            response_time=(time.perf_counter() - began_at) * 1e3,
            response_length=0,
            exception=error,
            context={},
        )
        return answer
