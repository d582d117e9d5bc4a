"""Server-sent events: the parts of one answer, each as soon as it is there.

    data: "Hel"                                                   one event for each part, as JSON

    data: "lo"

    : still here                                                  in a pause, so that proxies keep the connection

    event: done                                                   the end; or `error`, with the usual body and `status`
    data: {"data_id":7,"parts":2,"times_ms":{"op.wait":0.02,"op.pre":31.7,"total":31.9}}

With `Accept: text/event-stream;data=msgpack`, a part is msgpack in base64, with arrays as `wire/msgpack.py` says.

What fails before the first part is a plain HTTP error with its status. An answer without parts is one `done`.

A client that reads slowly holds the generator: what is written and not sent is KERNEL_NBYTES, 64 KiB and the parts of
one turn. One that takes too little of that is hung up on by the connection guard.
"""

from __future__ import annotations

import asyncio
import socket
from base64 import b64encode
from typing import Any

from aiohttp import web

from asyncline.engine.item import Item
from asyncline.transports.rest.answer import error_body, id_lines, trace_lines
from asyncline.transports.timing import Timing
from asyncline.wire import json, msgpack

EVENTS = "text/event-stream"
"""Media type of an answer in parts."""
HEARTBEAT_S = 10.0
"""After a pause of this length, at most twice of it, there is a comment. Proxies commonly close after 60 s."""
KERNEL_NBYTES = 128 * 1024
"""What the kernel takes before it is sent. Else it takes megabytes, and reports room for a third of them at once."""
UNSENT_NBYTES = 64 * 1024
"""What is not written before the turn of the loop is over, at most."""

_HEAD = (
    f"HTTP/1.1 200 OK\r\nContent-Type: {EVENTS}\r\n"
    # Neither caches nor nginx may keep events until there are more of them.
    "Cache-Control: no-store\r\nX-Accel-Buffering: no\r\n"
)


def bound_kernel(request: web.BaseRequest) -> None:
    """Let the kernel keep little of what is written: what it has taken is out of our hands."""
    if (made := request.get_extra_info("socket")) is not None:
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_NBYTES)
        except OSError:
            pass  # no TCP, or lost already


class EventStream(web.StreamResponse):
    """One answer on one connection: hand `on_part` and `on_done` to `Engine.begin`, then `await run(item)`."""

    def __init__(self, request: web.BaseRequest, timing: Timing, accept: str, *, close: bool) -> None:
        # Not super().__init__(), as with Answer.
        self._status = 200
        self._keep_alive = request.keep_alive and request.version >= (1, 1) and not close
        self._eof_sent = True
        self._request = request
        self._encode = _encode_msgpack if msgpack.EVENTS in accept else json.encode
        self._timing = timing
        #: HTTP/1.0 has no chunks: there the end of the connection is that of the answer.
        self._has_chunks = request.version >= (1, 1)
        #: Whether something has been said; if not, the Item's error is still to be answered.
        self.has_begun = False
        self._out: list[bytes] = []
        self._out_nbytes = 0
        self._is_quiet = False
        self._news = asyncio.Event()

    def on_part(self, item: Item, part: Any) -> None:
        """:raises OpError: `part` has no JSON form."""
        self._say(item, b"data: %b\n\n" % self._encode(part))

    def on_done(self, item: Item) -> None:
        error = item.error
        if error is None:
            said = {"data_id": item.data_id, "parts": item.value, "times_ms": self._timing.times_ms(item)}
            self._say(item, b"event: done\ndata: %b\n\n" % json.encode(said))
        elif self.has_begun:
            self._say(item, b"event: error\ndata: %b\n\n" % error_body(error, item.data_id, with_status=True))
        self._news.set()

    async def run(self, item: Item) -> None:
        """Until the answer is written and mostly read, or the client is hung up on."""
        try:
            while not item.done:
                await self._wait_for_news()
                await self._drain(item)
            if self.has_begun:
                self._flush(item)
                if self._has_chunks:
                    self._write(b"0\r\n\r\n")
                await self._drain(item)
        finally:
            item.cancel()  # nobody waits for it any more, if it is not done

    async def _wait_for_news(self) -> None:
        """Until there is something to see to, or it is time for a heartbeat."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._news.wait()
                self._news.clear()
        except TimeoutError:
            if self._is_quiet and self.has_begun:
                self._write(self._chunk(b": still here\n\n"))
            self._is_quiet = True

    async def _drain(self, item: Item) -> None:
        """Until the client has read enough for more; the connection sees to it that this does not take for ever."""
        if self._request.protocol.writing_paused:
            await self._request.writer.drain()
        item.go_on()

    # -- writing ------------------------------------------------------------------------------------

    def _say(self, item: Item, event: bytes) -> None:
        """Write it, together with what else comes in this turn of the loop."""
        self._is_quiet = False
        if not self.has_begun:
            self.has_begun = True
            self._write(self._head(item))
            bound_kernel(self._request)
        if not self._out:
            item.engine.loop.call_soon(self._flush, item)
        self._out.append(event)
        self._out_nbytes += len(event)
        if self._out_nbytes > UNSENT_NBYTES:
            self._flush(item)

    def _flush(self, item: Item) -> None:
        if self._out:
            out, self._out, self._out_nbytes = self._out, [], 0
            self._write(self._chunk(b"".join(out)))
            if self._request.protocol.writing_paused:
                item.hold()
                self._news.set()

    def _head(self, item: Item) -> bytes:
        framing = "Transfer-Encoding: chunked\r\n" if self._has_chunks else ""
        connection = "" if self._keep_alive else "Connection: close\r\n"
        return f"{_HEAD}{id_lines(item)}{trace_lines(item, self._request.headers)}{framing}{connection}\r\n".encode(
            "latin-1"
        )

    def _chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._has_chunks else data

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


def _encode_msgpack(part: Any) -> bytes:
    return b64encode(msgpack.encode(part, tensors=True))
