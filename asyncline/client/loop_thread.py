"""LoopThread: an event loop in a thread of its own, for calls that block."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

END_S = 2.0
"""How long an end waits for the connections to close."""

_T = TypeVar("_T")


class LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="asyncline client", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        await self._stopped.wait()

    def begin(self, work: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        """Run a coroutine there, without waiting for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine there, and wait for it."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a Client cannot be called from its own thread")
        future = self.begin(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # of an interrupt; else it is over
            raise

    def leave(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it; wait for it unless that is here, where the garbage collector may call."""
        if threading.current_thread() is self._thread:
            self.begin(work)
        else:
            self.run(work)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(END_S)
