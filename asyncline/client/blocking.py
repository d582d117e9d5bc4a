"""Client: AsyncClient for who has no event loop."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from asyncline.client.async_client import AsyncClient
from asyncline.client.base import Refused
from asyncline.client.loop_thread import END_S, LoopThread

_T = TypeVar("_T")


class Client:
    """AsyncClient with calls that block, for scripts, notebooks and threads.

        with Client("tcp://host:8002") as client:
            texts = client("ocr", image=page)

    It has an event loop in a thread of its own. Any number of threads may call at once; their calls share the
    connections. Without `with` it ends by `close()`, or when it is forgotten, or with the interpreter. A call that is
    interrupted (Ctrl-C) is cancelled at the server. In a process that was forked after it was made it cannot be used:
    make one there.

    :param servers: as of AsyncClient, with its parameters.
    :raises ValueError: an address or a parameter is malformed.
    """

    def __init__(self, servers: str | Sequence[str], **parameters: Any) -> None:
        self._client = AsyncClient(servers, **parameters)
        self._thread = LoopThread()
        self._pid = os.getpid()
        self._end = weakref.finalize(self, _end, self._client, self._thread, self._pid)

    def __call__(self, graph: str, /, *payload: Any, **options: Any) -> Any:
        """Run one request and return its answer; parameters and errors are those of AsyncClient."""
        return self._run(self._client(graph, *payload, **options))

    def stream(self, graph: str, /, *payload: Any, **options: Any) -> Iterator[Any]:
        """Run one request and yield the parts of its answer as they come; as of AsyncClient."""
        parts = self._client.stream(graph, *payload, **options)
        try:
            while True:
                try:
                    yield self._run(_next(parts))
                except StopAsyncIteration:
                    return
        finally:
            if self._end.alive:
                self._thread.leave(parts.aclose())

    def ready(self, timeout: float = 2.0) -> bool:
        """Whether at least one server can serve."""
        return self._run(self._client.ready(timeout))

    def close(self) -> None:
        """End the connections; calls of other threads that wait for their answers fail. It may be called twice."""
        if os.getpid() == self._pid:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        if os.getpid() != self._pid:
            work.close()
            raise RuntimeError("this Client was made before the process was forked: make one in the new process")
        if not self._end.alive:
            work.close()
            raise Refused("the client was closed")
        return self._thread.run(work)

    def __repr__(self) -> str:
        return repr(self._client).replace("AsyncClient", "Client", 1)


def _end(client: AsyncClient, thread: LoopThread, pid: int) -> None:
    """Not a method: it must not hold on to the Client."""
    if os.getpid() != pid:
        return
    try:
        thread.run(asyncio.wait_for(client.close(), END_S))
    except (TimeoutError, RuntimeError):
        pass  # they end with the loop
    thread.stop()


async def _next(parts: AsyncIterator[_T]) -> _T:
    return await anext(parts)
