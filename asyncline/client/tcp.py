"""TcpConnection: one connection to a server's `tcp_port`, by which many calls go at once.

    async with await TcpConnection.open("127.0.0.1", 8002) as connection:
        texts = await connection.call("ocr", {"image": page}, timeout=2)
        async for token in connection.stream("chat", {"text": "Hello"}):
            print(token)

When to connect again, and what to send again, is for whoever holds several of these to decide.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Iterable
from types import TracebackType
from typing import Any, Self

from asyncline.client.base import CONNECT_S, Malformed, Refused
from asyncline.client.frame_socket import FrameSocket
from asyncline.client.tcp_calls import C, Call, PartsCall
from asyncline.errors import BadRequest, DeadlineExceeded, RequestError, TooLarge, Unavailable
from asyncline.wire.frame import decoder, messages
from asyncline.wire.frame.decoder import Buffer, Frame
from asyncline.wire.frame.messages import ClientHello, Options, ServerHello
from asyncline.wire.frame.values import Encoder

AHEAD = 32
"""Most parts of one answer that are sent before they are taken."""
LAST_STREAM = 2**32 - 1
GRACE_S = 0.04
"""How much longer than its timeout a call waits: the server's own answer says where the time went."""
LEAST_S = 1e-3
"""A loop's timers have milliseconds."""
CLOSE_S = 1.0
"""How long a close waits for what is still to be sent."""


class TcpConnection(FrameSocket):
    """Open it with `open`. Belongs to the loop on which it was opened.

    :param max_answer_nbytes: longer answers are refused.
    """

    def __init__(self, address: str, max_answer_nbytes: int) -> None:
        super().__init__(self._wants)
        self.address = address
        #: What the server said of itself.
        self.server: ServerHello
        self._encoder = Encoder(copy=False)
        self._max_answer_nbytes = max_answer_nbytes
        self._greeted: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        #: By stream: calls that wait for their answers; None for those that nobody waits for any more.
        self._calls: dict[int, Call | None] = {}
        #: By stream, in order: the frames of calls that wait until there is room for them.
        self._unsent: dict[int, list[Buffer]] = {}
        self._stream = 0
        #: Why there will be no more calls.
        self._end: RequestError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = CONNECT_S,  # noqa: ASYNC109  # of all that it takes to connect
        max_answer_nbytes: int = 2**28,
    ) -> Self:
        """Connect and say hello.

        :param token: the server's `auth_token`.
        :param tls: makes it TLS.
        :param timeout: seconds.
        :raises Refused: there is nobody, or it took too long.
        :raises RequestError: the server does not want this client, `Unauthenticated` above all.
        :raises Malformed: it is no such server.
        """
        scheme = "tcp" if tls is None else "tcps"
        address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        try:
            async with asyncio.timeout(timeout):
                _, self = await asyncio.get_running_loop().create_connection(
                    lambda: cls(address, max_answer_nbytes), host, port, ssl=tls
                )
                try:
                    # Not in `connection_made`: who is cancelled right after that has a socket that is closed already.
                    self._write(messages.encode_hello(ClientHello(token)))
                    await self._greeted
                except BaseException:
                    self._socket.abort()
                    raise
        except TimeoutError:
            raise Refused(f"{address} did not answer within {timeout:g} s") from None
        except OSError as error:
            raise Refused(f"{address} cannot be reached: {error.strerror or error}") from error
        return self

    # -- calls --------------------------------------------------------------------------------------

    async def call(
        self,
        graph: str,
        payload: Any,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # also tells the server
        log_id: str = "",
        priority: int = 1,
        traceparent: str | None = None,
    ) -> Any:
        """Run one request and return its answer.

        :param payload: the fields by name, or the whole payload of a bare Request. Arrays and bytes are sent from where
            they lie: they must not change until the answer is there.
        :param timeout: seconds; the server's own deadline holds where it is earlier.
        :returns: plain values; arrays are read-only views of what was received.
        :raises Refused: nothing was run: this connection has ended or is about to.
        :raises Unavailable: the connection was lost; nobody knows whether it was run.
        :raises RequestError: what became of it instead, of the class that the server says.
        """
        stream, call = self._begin(graph, payload, Options(timeout, log_id, priority, traceparent), Call)
        try:
            return await call.answer
        except asyncio.CancelledError:
            self._forsake(stream)
            raise

    async def stream(
        self,
        graph: str,
        payload: Any,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # also tells the server
        log_id: str = "",
        priority: int = 1,
        traceparent: str | None = None,
        ahead: int = AHEAD,
    ) -> AsyncGenerator[Any, None]:
        """Run one request, and iterate over the parts of its answer as they come; see `call` for the rest.

        `async for token in connection.stream("chat", {...}): ...`. Leaving the loop cancels the request; to be sure
        when, use `contextlib.aclosing`. Other calls are not held up by a loop that is slow.

        :param timeout: seconds for all of it.
        :param ahead: most parts that the server sends before they are taken here.
        :raises RequestError: what became of it instead, perhaps after some parts.
        """
        if not 1 <= ahead <= messages.MAX_PARTS:
            raise ValueError(f"{ahead} parts ahead: expected 1 to {messages.MAX_PARTS}")
        options = Options(timeout, log_id, priority, traceparent, ahead)
        stream, call = self._begin(graph, payload, options, PartsCall)
        taken = 0
        try:
            while True:
                while call.ready:
                    yield call.ready.popleft()
                    taken += 1
                    if 2 * taken >= ahead and self._calls.get(stream) is call:
                        self._write(messages.encode_more(stream, taken))
                        taken = 0
                if call.answer.done():
                    break
                await call.wait()
            if call.answer.result() != call.count:
                raise Malformed(f"{self.address} sent {call.count} parts and said {call.answer.result()!r}")
        finally:
            if self._calls.get(stream) is call:
                self._forsake(stream)
            if call.answer.done():
                call.answer.exception()  # it is known, though perhaps nobody asks

    def _begin(self, graph: str, payload: Any, options: Options, kind: type[C]) -> tuple[int, C]:
        """Send a call as soon as there is room for it; its stream, and itself."""
        timeout_s = options.timeout_s
        if timeout_s is not None and not timeout_s > 0:
            raise ValueError(f"a timeout of {timeout_s} s: expected more than 0")
        if self._end is not None:
            raise self._refused()
        stream = self._next_stream()
        parts, body_nbytes = messages.encode_call(self._encoder, stream, graph, options, payload)
        if body_nbytes > self.server.max_body_nbytes:
            raise TooLarge(f"a body of {body_nbytes} bytes is over the server's limit of {self.server.max_body_nbytes}")
        expires_at = None if timeout_s is None else self._loop.time() + timeout_s + GRACE_S
        self._calls[stream] = call = kind(self._loop.create_future(), timeout_s, expires_at)
        if expires_at is not None:
            self._watch(expires_at)
        self._unsent[stream] = parts
        self._send()
        return stream, call

    @property
    def in_flight(self) -> int:
        """How many calls wait for their answer."""
        return len(self._calls)

    @property
    def is_open(self) -> bool:
        """Whether calls can be made."""
        return self._end is None

    async def close(self) -> None:
        """End the connection; calls that wait for their answer fail."""
        if self._end is None:
            self._end = Unavailable("it was closed")
        self._socket.close()
        await asyncio.wait([self._lost], timeout=CLOSE_S)
        self._socket.abort()
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended, by whomsoever."""
        await asyncio.shield(self._lost)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _next_stream(self) -> int:
        while True:
            self._stream = self._stream + 1 if self._stream < LAST_STREAM else 1
            if self._stream not in self._calls:
                return self._stream

    def _send(self) -> None:
        """Send what waits for it, as far as there is room."""
        unsent = self._unsent
        while unsent and not self._is_paused and len(self._calls) - len(unsent) < self.server.max_streams:
            self._write(unsent.pop(next(iter(unsent))))

    def _forsake(self, stream: int) -> None:
        """Nobody waits for the answer. Where the call was sent it comes nevertheless, and frees the stream."""
        if self._unsent.pop(stream, None) is not None:
            del self._calls[stream]
        elif self._calls.get(stream) is not None:
            self._calls[stream] = None
            self._write(messages.encode_cancel(stream))

    def _refused(self) -> RequestError:
        return Refused(f"{self.address} takes no more calls by this connection: {self._end}")

    # -- deadlines ----------------------------------------------------------------------------------

    # Not the Engine's Alarm: who only calls servers imports no Engine.
    def _watch(self, at: float) -> None:
        """One timer for whatever call is due first."""
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = max(at, self._loop.time() + LEAST_S)
        self._timer = self._loop.call_at(self._timer_at, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        later = []
        for stream, call in tuple(self._calls.items()):
            if call is None or call.expires_at is None:
                continue
            if call.expires_at > now:
                later.append(call.expires_at)
            elif not call.answer.done():
                self._forsake(stream)
                call.answer.set_exception(DeadlineExceeded(f"no answer within {call.timeout_s:g} s"))
        if later:
            self._watch(min(later))

    # -- answers ------------------------------------------------------------------------------------

    def _take(self, frames: Iterable[Frame]) -> None:
        try:
            for kind, stream, header, body in frames:
                if kind in (decoder.RESULT, decoder.ERROR) and stream in self._calls:
                    self._answered(kind, stream, header, body)
                elif kind == decoder.PART and stream in self._calls:
                    self._take_part(stream, header, body)
                elif kind == decoder.GOAWAY:
                    self._dismissed(messages.decode_error(header))
                elif kind == decoder.HELLO and not self._greeted.done():
                    self.server = messages.decode_server_hello(stream, header)
                    self._greeted.set_result(None)
                else:
                    raise BadRequest(f"a {decoder.NAMES[kind]} of stream {stream} that was not expected")
            if self._decoder.error is not None:
                raise self._decoder.error
        except RequestError as error:
            # Nothing that follows can be trusted.
            self._end = Malformed(f"{self.address} does not speak msgpack over TCP: {error}")
            self._socket.abort()
            return
        self._send()
        if self._end is not None and not self._calls:
            self._socket.close()

    def _answered(self, kind: int, stream: int, header: bytes, body: memoryview | None) -> None:
        call = self._calls.pop(stream)
        if call is None or call.answer.done():
            return
        try:
            if kind == decoder.RESULT:
                call.answer.set_result(messages.decode_result(header, body))
            else:
                call.answer.set_exception(messages.decode_error(header))
        except BadRequest as error:
            call.answer.set_exception(Malformed(f"{self.address} gave an answer that cannot be used: {error}"))

    def _take_part(self, stream: int, header: bytes, body: memoryview | None) -> None:
        """:raises BadRequest: it was not asked for."""
        call = self._calls[stream]
        if call is None or call.answer.done():
            return
        if not isinstance(call, PartsCall):
            raise BadRequest(f"a PART of stream {stream}, which asked for none")
        try:
            call.put(*messages.decode_part(header, body))
        except BadRequest as error:
            self._forsake(stream)
            call.answer.set_exception(Malformed(f"{self.address} gave an answer that cannot be used: {error}"))

    def _wants(self, kind: int, stream: int, header_nbytes: int, body_nbytes: int) -> bool:
        call = self._calls.get(stream)
        if body_nbytes <= self._max_answer_nbytes and call is not None:
            return True
        if kind != decoder.PART:
            self._calls.pop(stream, None)
        elif call is not None:
            self._forsake(stream)  # more of it is on the way
        if call is not None and not call.answer.done():
            what = f"an answer of {body_nbytes} bytes, over the limit of {self._max_answer_nbytes}"
            call.answer.set_exception(Malformed(f"{self.address} gave {what}"))
        return False

    def _dismissed(self, why: RequestError) -> None:
        """The server takes no more calls. Those that it has it answers, unless it is about to hang up."""
        if self._end is None:
            self._end = why
        if not self._greeted.done():
            self._not_greeted(why)
        for stream in self._unsent:
            call = self._calls.pop(stream)
            if call is not None and not call.answer.done():
                call.answer.set_exception(self._refused())
        self._unsent.clear()

    # -- the socket ---------------------------------------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        why = self._end or Unavailable(str(exc or "the server closed it"))
        self._end = why
        if self._timer is not None:
            self._timer.cancel()
        if not self._greeted.done():
            refusal = why if isinstance(why, Malformed) else Refused(f"{self.address} hung up without a HELLO: {why}")
            self._not_greeted(refusal)
        calls, self._calls = self._calls, {}
        for stream, call in calls.items():
            if call is not None and not call.answer.done():
                lost = Unavailable(f"the connection to {self.address} was lost before the answer came: {why}")
                call.answer.set_exception(self._refused() if stream in self._unsent else lost)
        self._unsent.clear()
        self._lost.set_result(None)

    def _not_greeted(self, why: RequestError) -> None:
        self._greeted.set_exception(why)
        self._greeted.exception()  # perhaps nobody waits for it any more

    def __repr__(self) -> str:
        state = "open" if self._end is None else f"ended: {self._end}"
        return f"<TcpConnection {self.address} {state}, {len(self._calls)} in flight>"
