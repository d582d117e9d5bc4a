"""Connection: one client of RestTransport. aiohttp's protocol, with a limit for each of its phases."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo

from asyncline.engine.alarm import Alarm
from asyncline.errors import BadRequest, OpError, RequestError, SlowClient
from asyncline.transports.guard.guard import Ticket
from asyncline.transports.guard.turns import Turns
from asyncline.transports.guard.unread import Unread
from asyncline.transports.rest.answer import HeadTooLarge

log = logging.getLogger("asyncline.rest")

TOO_MANY_HEADERS = "Too many headers received"
"""What aiohttp says of them; there is no class for it."""


WAITING_NBYTES = 16 * 1024
"""With more than this waiting for its turn, nothing more is read from a client. One read may be longer."""


class Connection(web.RequestHandler):
    """One client, from its first byte to its end.

    aiohttp times nothing but idle connections. Here a head, a body and the reading of answers have limits too; one
    Alarm watches them all, and is not touched by a request that comes in one piece and whose answer is taken.

    :param turns: of all connections.
    :param refuse: the answer to what is no request.
    """

    def __init__(
        self, server: web.Server, ticket: Ticket, turns: Turns, refuse: Callable[[RequestError], web.StreamResponse]
    ) -> None:
        limits = ticket.limits
        loop = asyncio.get_running_loop()
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # it may be; aiohttp says so to `web.Server`
            keepalive_timeout=limits.keepalive_s,
            auto_decompress=False,
            lingering_time=limits.linger_s,
        )
        self._ticket = ticket
        self._limits = limits
        self._turns = turns
        self._refuse = refuse
        #: What was read and waits for its turn, and whether nothing more is read until then.
        self._waiting = b""
        self._is_full = False
        self._unread = Unread(ticket.guard)
        self._alarm = Alarm(loop, self._check)
        #: Whether nothing has come at all. Browsers open connections that they may never use.
        self._is_spare = True
        #: When a head has begun that is not complete, or the connection itself; 0 where none has.
        self._head_began_at = 0.0
        #: The body that is being received, and why it will not be.
        self._body: StreamReader | None = None
        self.body_error: RequestError | None = None
        self._body_began_at = 0.0
        self._body_timeout: asyncio.Timeout
        #: Whether nothing will be answered any more.
        self._is_ending = False
        self._lost: asyncio.Future[None] | None = None

    # -- the socket ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        super().connection_made(transport)
        assert self._task_handler is not None
        self._task_handler.add_done_callback(self._ended)
        self._begin_head()

    def data_received(self, data: bytes) -> None:
        if data:  # else aiohttp says so, to go on with what it has
            turns = self._turns
            if turns.left <= 0 or self._waiting:
                self._wait(data)
                return
            turns.spend()
        count = self._request_count
        super().data_received(data)
        if self._request_count != count:
            self._is_spare = False
            self._head_began_at = 0.0
            if self._body is None or self._body.is_eof():
                return
            if isinstance(malformed := self._messages[-1][0], _ErrInfo):
                self._end_body(BadRequest(f"the body is malformed: {_first_line(malformed.message)}"), "malformed")
        elif data and (self._is_spare or (not self._head_began_at and self._waits())):
            self._is_spare = False
            self._begin_head()  # a request was waited for, and this was less than one

    def _wait(self, data: bytes) -> None:
        """Keep what came for this connection's turn."""
        if not self._waiting:
            self._turns.wait(self._turn)
        self._waiting += data
        # Not at once: to stop and to begin again costs a sixth of a small request, and nearly always that is all.
        if not self._is_full and len(self._waiting) > WAITING_NBYTES:
            self._is_full = True
            self._pause_transport_reading()

    def _turn(self) -> None:
        """Take in what waits."""
        data, self._waiting = self._waiting, b""
        if not self._ticket.is_open:
            return
        self.data_received(data)
        if self._is_full:
            self._is_full = False
            if not self._reading_paused and not self._buffer_paused:
                self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        if not self._is_full:
            super()._resume_transport_reading()

    def _waits(self) -> bool:
        """Whether all that came is answered. A request that aiohttp's task has not taken yet is there already."""
        return self._waiter is not None and not self._waiter.done()

    def pause_writing(self) -> None:
        super().pause_writing()
        now = self._loop.time()
        self._alarm.set(self._unread.begin(self._socket.get_write_buffer_size(), now), now)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self._is_ending:
            self._unread.end()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._alarm.cancel()
        self._unread.end()
        self._ticket.close()
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)

    async def wait_closed(self) -> None:
        """Wait until it is lost."""
        if self._ticket.is_open:
            self._lost = self._lost or self._loop.create_future()
            await asyncio.shield(self._lost)

    def because(self, reason: str) -> None:
        """It is about to end for this reason."""
        self._ticket.because(reason)

    def refuse_more(self) -> None:
        """It is over the limit of connections, and is not for an operator."""
        self._ticket.refuse()

    def abort(self, reason: str) -> None:
        self._ticket.because(reason)
        self._socket.abort()

    # -- requests -----------------------------------------------------------------------------------

    def receiving(self, body: StreamReader) -> asyncio.Timeout:
        """A context in which `body` has to arrive as the limits say; else it ends with a TimeoutError, and
        `body_error` says why.
        """
        now = self._loop.time()
        self.body_error = None
        self._body, self._body_began_at = body, now
        self._body_timeout = asyncio.timeout(None)
        self._alarm.set(self._limits.upload_ends_at(now, body.total_bytes), now)
        return self._body_timeout

    def received(self) -> None:
        """The body is there, or will not be."""
        self._body = None

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what never became a request, in our words and not in aiohttp's."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun")
        if isinstance(exc, RequestError):
            return self._refuse(exc)
        if isinstance(exc, HttpProcessingError):
            self._ticket.because("malformed")
            what = _first_line(message or "")
            log.debug("a client speaks no HTTP: %s", what)
            if isinstance(exc, LineTooLong) or what == TOO_MANY_HEADERS:
                return self._refuse(HeadTooLarge("the request's head is too long: a line, or the number of its fields"))
            return self._refuse(BadRequest(f"malformed HTTP: {what}"))
        log.error("a request: the server failed", exc_info=exc)
        return self._refuse(OpError("the server failed; its log says how"))

    # -- limits -------------------------------------------------------------------------------------

    def _begin_head(self) -> None:
        now = self._head_began_at = self._loop.time()
        self._alarm.set(now + self._limits.header_s, now)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Nothing more will be answered: what is written is sent as long as the client takes it."""
        self._is_ending = True
        if self._ticket.is_open:
            now = self._loop.time()
            self._alarm.set(self._unread.begin(self._socket.get_write_buffer_size(), now), now)

    def _check(self) -> None:
        """End what has taken too long, and set the alarm for what may."""
        now = self._loop.time()
        if self._is_ending or self.writing_paused:
            due = self._unread.look(self._socket.get_write_buffer_size(), now)
            if due is None:
                self.abort("stalled")
                return
        elif self._body is not None:
            due = self._limits.upload_ends_at(self._body_began_at, self._body.total_bytes)
            if now >= due:
                self._end_body(SlowClient(self._limits.slow_upload), "slow")
                return
        elif self._head_began_at:
            due = self._head_began_at + self._limits.header_s
            if now >= due and self._is_spare:
                self._ticket.because("idle")
                self.force_close()
                return
            if now >= due:
                self._ticket.because("slow")
                self._say(SlowClient(f"no request was complete within {self._limits.header_s:g} s"))
                return
        else:
            return
        self._alarm.set(due, now)

    def _end_body(self, error: RequestError, reason: str) -> None:
        self._ticket.because(reason)
        self._body = None
        self.body_error = error
        self._body_timeout.reschedule(self._loop.time())

    def _say(self, error: RequestError) -> None:
        """Answer something though there is no request, and hang up: as aiohttp does for a malformed one."""
        self._messages.append((_ErrInfo(status=0, exc=error, message=""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _process_keepalive(self) -> None:
        if (
            self._waiter is not None
            and not self._waiter.done()
            and self._loop.time() >= self._next_keepalive_close_time
        ):
            self._ticket.because("idle")
        super()._process_keepalive()


def _first_line(message: str) -> str:
    """What aiohttp says of malformed bytes, without the bytes."""
    return " ".join(message.partition("\n")[0].split()).rstrip(":")
