"""The figures of a running server, as server-sent events, one each second, until the server stops.

    event: graph                    once: the Ops, edges, lanes and settings
    data: {"graph":"ocr",...}

    event: figures                  at once, then each second: all figures; nothing needs those before
    data: {"now":{...},"last":{...},"verdict":{...},...}

Made once for all who watch, and not at all while nobody does. Who reads slowly misses events, and nothing waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from aiohttp import web

from asyncline.errors import Overloaded, Unavailable
from asyncline.transports.rest.events import EVENTS, bound_kernel
from asyncline.wire import json

MOST_VIEWERS = 16


class Watched(Protocol):
    """Where it comes from: `observe.Observing`."""

    def watch(self, listener: Callable[[], None]) -> Callable[[], None]: ...
    def graph(self) -> dict[str, Any]: ...
    def now(self) -> dict[str, Any]: ...


class Viewer(web.StreamResponse):
    """One of those who watch, on a connection that ends with it."""

    def __init__(self, request: web.BaseRequest) -> None:
        # Not super().__init__(), as with Answer.
        self._status = 200
        self._keep_alive = False
        self._eof_sent = True
        self._request = request
        #: HTTP/1.0 has no chunks: there the end of the connection is that of the answer.
        self._has_chunks = request.version >= (1, 1)
        self._closed = asyncio.Event()
        framing = "Transfer-Encoding: chunked\r\n" if self._has_chunks else ""
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: {EVENTS}\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\n"
            f"{framing}Connection: close\r\n\r\n"
        )
        self._write(head.encode())
        bound_kernel(request)

    def send(self, event: bytes) -> None:
        """Write it, unless what came before is still unread: the next one has all that this one has."""
        if not self._request.protocol.writing_paused:
            self._write(b"%x\r\n%b\r\n" % (len(event), event) if self._has_chunks else event)

    def close(self) -> None:
        """End the answer."""
        if not self._closed.is_set():
            self._closed.set()
            if self._has_chunks:
                self._write(b"0\r\n\r\n")

    async def wait_closed(self) -> None:
        await self._closed.wait()

    def _write(self, data: bytes) -> None:
        transport = self._request.transport
        if transport is not None and not transport.is_closing():
            transport.write(data)
            self._request.writer.output_size += len(data)  # by which aiohttp knows that an answer has begun

    # -- for aiohttp --------------------------------------------------------------------------------

    async def prepare(self, request: web.BaseRequest) -> Any:
        """All is written already."""

    async def write_eof(self, data: bytes = b"") -> None:
        pass


class Viewers:
    """All who watch; the server is watched while there is one."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._viewers: set[Viewer] = set()
        self._unwatch: Callable[[], None] | None = None
        self._is_closed = False

    async def watch(self, request: web.BaseRequest) -> web.StreamResponse:
        """Until the client leaves, or the server stops.

        :raises Unavailable: the server is starting or stopping.
        :raises Overloaded: as many watch as may.
        """
        if self._is_closed:
            raise Unavailable("the server is stopping")
        if len(self._viewers) >= MOST_VIEWERS:
            raise Overloaded(f"{MOST_VIEWERS} watch already: that is all who may")
        events = _event("graph", self._watched.graph()) + self._figures()
        viewer = Viewer(request)
        self._viewers.add(viewer)
        if self._unwatch is None:
            self._unwatch = self._watched.watch(self._tick)
        try:
            viewer.send(events)
            await viewer.wait_closed()
        finally:
            self._viewers.discard(viewer)
            if not self._viewers:
                self._unwatch()
                self._unwatch = None
        return viewer

    def _tick(self) -> None:
        event = self._figures()
        for viewer in self._viewers:
            viewer.send(event)

    def _figures(self) -> bytes:
        return _event("figures", self._watched.now())

    def close(self) -> None:
        """End all of them; there will be no more."""
        self._is_closed = True
        for viewer in self._viewers:
            viewer.close()

    def __len__(self) -> int:
        return len(self._viewers)


def _event(kind: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.encode(data))
