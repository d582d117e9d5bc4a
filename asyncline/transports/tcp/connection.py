"""Connection: one client of TcpTransport."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Iterator
from functools import partial
from typing import cast

from asyncline.engine.alarm import Alarm
from asyncline.engine.item import Item
from asyncline.errors import (
    BadRequest,
    NotFound,
    OpError,
    Overloaded,
    RequestError,
    SlowClient,
    Unauthenticated,
    Unavailable,
    hook_error,
)
from asyncline.transports.guard.guard import Ticket
from asyncline.transports.guard.unread import Unread
from asyncline.transports.tcp.parts import PartsOut
from asyncline.transports.tcp.shared import Shared
from asyncline.wire.frame import decoder, messages
from asyncline.wire.frame.decoder import Buffer, Decoder, Frame
from asyncline.wire.weight import Scale

log = logging.getLogger("asyncline.tcp")

HEADER_WEIGHT = 64
"""What a byte of msgpack may become in memory: an empty map."""
JOINED_NBYTES = 64 * 1024
"""Up to here, copying what is to be written into one piece costs less than writing it in several."""

NEW, OPEN, ENDING, CLOSING, LOST = range(5)
"""States of a connection, in order: no HELLO yet; calls are taken; GOAWAY has been said and nothing is taken in any
more; the socket is closed, once the client has read what is written; the socket is gone."""


class Connection(asyncio.BufferedProtocol):
    """One client, from HELLO to its end."""

    _socket: asyncio.Transport
    _loop: asyncio.AbstractEventLoop
    _alarm: Alarm

    def __init__(self, shared: Shared, ticket: Ticket) -> None:
        self._shared = shared
        self._ticket = ticket
        self._engine = shared.engine
        self._limits = shared.limits
        self._call_limits = shared.call_limits
        self._decoder = Decoder(shared.max_body_nbytes, self._wants)
        self._state = NEW
        #: Whether GOAWAY has been said to a client that did nothing wrong.
        self._is_leaving = False
        #: Items by stream.
        self._items: dict[int, Item] = {}
        #: Of those that are answered in parts.
        self._parts: dict[int, PartsOut] = {}
        #: Frames that wait for another turn, or for the client to read; None where there are none.
        self._waiting: Iterator[Frame] | None = None
        self._is_turn_due = False
        #: Bytes of the budget taken for the CALL whose body is being received.
        self._reserved = 0
        self._out: list[Buffer] = []
        self._out_nbytes = 0
        self._is_flush_due = False
        #: Whether so much is written and not read that nothing more is taken.
        self._is_paused = False
        self._unread = Unread(ticket.guard)
        self._made_at = 0.0
        self._read_at = 0.0
        self._read_nbytes = 0
        #: The frame that has begun, by its number: when, and how much had been read by then.
        self._frame = -1
        self._frame_began_at = 0.0
        self._frame_began_nbytes = 0
        self._ends_at = 0.0

    # -- the socket ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(self._loop, self._check)
        self._shared.connections.add(self)
        self._socket.set_write_buffer_limits(self._limits.unread_nbytes)
        now = self._made_at = self._read_at = self._loop.time()
        self._alarm.set(now + self._limits.header_s, now)
        if self._shared.connections.is_closing:
            self._socket.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        buffer = self._decoder.buffer
        return self._shared.scratch if buffer is None or self._state >= ENDING else buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._state >= ENDING:
            return
        self._read_at = self._loop.time()
        self._read_nbytes += nbytes
        if self._decoder.buffer is not None:
            received = self._decoder.received(nbytes)
            if received:
                self._take(iter(received))
        else:
            self._take(self._decoder.feed(self._shared.scratch[:nbytes]))

    def eof_received(self) -> None:
        """A client that sends nothing more is gone: returning nothing closes the connection."""
        if self._state < ENDING:
            self._close()

    def pause_writing(self) -> None:
        self._is_paused = True
        self._socket.pause_reading()
        now = self._loop.time()
        self._alarm.set(self._unread.begin(self._socket.get_write_buffer_size(), now), now)
        for parts in self._parts.values():
            parts.pause()

    def resume_writing(self) -> None:
        self._is_paused = False
        if self._state == CLOSING:
            return
        self._unread.end()
        for parts in self._parts.values():
            parts.resume()
        self._frame = -1  # who was not listened to is not slow
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = LOST
        self._alarm.cancel()
        self._unread.end()
        self._forget()
        self._ticket.close()
        self._shared.connections.discard(self)

    # -- frames -------------------------------------------------------------------------------------

    def _take(self, frames: Iterator[Frame]) -> None:
        """Do what the frames say; what is too much for one turn waits."""
        turns = self._shared.turns
        most = left = min(turns.left, self._call_limits.burst)
        if left <= 0:
            self._waiting = frames
            self._go_on()
            return
        try:
            for kind, stream, header, body in frames:
                left -= 1
                if kind == decoder.CALL and self._state == OPEN:
                    self._call(stream, header, body)
                else:
                    self._control(kind, stream, header)
                if self._state >= ENDING:
                    return
                if self._out_nbytes > self._limits.unread_nbytes:
                    self._flush()
                if not left or self._is_paused:
                    self._waiting = frames
                    break
            else:
                if self._decoder.error is not None:
                    self._end(self._decoder.error)
                if self._state >= ENDING:
                    return
                self._watch_frame()
        finally:
            turns.spend(most - left)
        self._flush()
        if self._waiting is not None:
            self._go_on()

    def _go_on(self) -> None:
        """Take what waits in the next turn of the loop, and read only then; neither while the client does not."""
        if self._is_paused or self._waiting is not None:
            self._socket.pause_reading()
        else:
            self._watch_frame()
            self._socket.resume_reading()
        if self._waiting is not None and not self._is_paused and not self._is_turn_due:
            self._is_turn_due = True
            self._shared.turns.wait(self._turn)

    def _turn(self) -> None:
        self._is_turn_due = False
        frames = self._waiting
        if frames is not None and not self._is_paused:
            self._waiting = None
            self._take(frames)
            self._go_on()

    def _watch_frame(self) -> None:
        """See to it that a frame that has begun is complete in time."""
        if self._decoder.is_partial and self._decoder.count != self._frame:
            self._frame = self._decoder.count
            now = self._frame_began_at = self._loop.time()
            self._frame_began_nbytes = self._read_nbytes
            self._alarm.set(self._limits.upload_ends_at(now, 0), now)

    def _control(self, kind: int, stream: int, header: bytes) -> None:
        """A frame that is no CALL, or comes before HELLO."""
        try:
            if self._state == NEW:
                if kind != decoder.HELLO:
                    raise BadRequest("expected a HELLO first: this port speaks msgpack over TCP")
                self._greet(messages.decode_client_hello(stream, header))
            elif kind == decoder.CANCEL:
                item = self._items.get(stream)
                if item is not None:  # else its answer is on the way
                    item.cancel()
            elif kind == decoder.MORE:
                count = messages.decode_more(header)
                if stream in self._parts:
                    self._parts[stream].more(count)
            else:
                raise BadRequest(f"a client says no {decoder.NAMES[kind]} here")
        except RequestError as error:
            self._end(error)

    def _greet(self, hello: messages.ClientHello) -> None:
        token = self._shared.token
        if token is not None and not hmac.compare_digest((hello.token or "").encode(errors="replace"), token):
            raise Unauthenticated("a token is required: say it in HELLO")
        self._state = OPEN
        self._alarm.set(self._read_at + self._limits.keepalive_s, self._read_at)
        self._write(self._shared.hello)

    # -- calls --------------------------------------------------------------------------------------

    def _wants(self, kind: int, stream: int, header_nbytes: int, body_nbytes: int) -> bool:
        """Whether there is room for a body that is about to be received; where there is not, its CALL is answered."""
        if self._state != OPEN or kind != decoder.CALL:
            self._end(BadRequest(f"a {decoder.NAMES[kind]} is not expected here"))
            return False
        if stream in self._items:
            self._end(_in_use(stream))
            return False
        try:
            self._reserved = self._reserve(header_nbytes, body_nbytes)
        except RequestError as error:
            self._engine.note_rejected(error)
            self._refuse(stream, error)
            return False
        return True

    def _reserve(self, header_nbytes: int, body_nbytes: int) -> int:
        """Take the bytes of a CALL from the budget."""
        engine = self._engine
        nbytes = body_nbytes + HEADER_WEIGHT * header_nbytes
        if engine.state != "ready":
            raise Unavailable(f"the server is {engine.state}")
        if len(self._items) >= self._call_limits.max_streams:
            raise Overloaded(f"{len(self._items)} calls of this connection are in flight, the most allowed")
        engine.admission.reserve(nbytes)
        return nbytes

    def _call(self, stream: int, header: bytes, body: memoryview | None) -> None:
        if stream in self._items:
            self._end(_in_use(stream))
            return
        engine = self._engine
        reserved, self._reserved = self._reserved, 0
        try:
            if not reserved:
                reserved = self._reserve(len(header), len(body) if body is not None else 0)
            scale = None if body is None else Scale(self._shared.max_weight)
            graph, options, value = messages.decode_call(header, body, self._call_limits.max_value_nbytes, scale)
            if scale is not None and scale.nbytes:
                engine.reserve(scale.nbytes, reserved)
                reserved += scale.nbytes
            if graph != engine.graph.name:
                raise NotFound(f"there is no graph {graph[:64]!r} (there is: {engine.graph.name})")
            parts = PartsOut(stream, options.parts, self._shared.encoder, self._say) if options.parts else None
            item = engine.begin(
                value,
                timeout_s=options.timeout_s,
                log_id=options.log_id,
                traceparent=options.traceparent,
                priority=min(options.priority, self._shared.settings.priorities),
                wire="tcp",
                on_part=None if parts is None else parts.on_part,
            )
        except RequestError as error:
            engine.admission.release(reserved)
            engine.note_rejected(error)
            self._refuse(stream, error)
        except Exception:
            engine.admission.release(reserved)
            log.exception("stream %d: the server failed", stream)
            self._refuse(stream, OpError("the server failed; its log says how"))
        else:
            if item.done:
                engine.admission.release(reserved)
                self._answer(stream, item)
            else:
                self._items[stream] = item
                item.on_done = partial(self._done, stream, reserved)
                if parts is not None:
                    self._parts[stream] = parts
                    parts.begin(item, is_paused=self._is_paused)

    def _done(self, stream: int, reserved: int, item: Item) -> None:
        self._engine.admission.release(reserved)
        del self._items[stream]
        if self._parts:
            self._parts.pop(stream, None)
        if self._state != OPEN:
            return
        self._answer(stream, item)
        self._flush_soon()
        if self._is_leaving and not self._items:
            self._linger()

    def _answer(self, stream: int, item: Item) -> None:
        error = item.error
        if error is None:
            try:
                parts, nbytes = messages.encode_result(self._shared.encoder, stream, item.data_id, item.value)
            except RequestError as unwritable:
                error = unwritable
            except Exception as unexpected:
                error = hook_error(unexpected, "response", "encode")
            else:
                self._out += parts
                self._out_nbytes += nbytes
                return
        self._write(messages.encode_error(stream, error, item.data_id))

    def _refuse(self, stream: int, error: RequestError) -> None:
        self._write(messages.encode_error(stream, error, next(self._engine.ids), was_refused=True))

    # -- writing ------------------------------------------------------------------------------------

    def _write(self, parts: list[Buffer]) -> None:
        self._out += parts
        self._out_nbytes += sum(map(len, parts))

    def _say(self, parts: list[Buffer], nbytes: int) -> None:
        """Write a PART, together with what else is said in this turn."""
        self._out += parts
        self._out_nbytes += nbytes
        if self._out_nbytes > JOINED_NBYTES:
            self._flush()
        else:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """One write for all that was said in this turn."""
        self._is_flush_due = False
        out, nbytes = self._out, self._out_nbytes
        if not nbytes or self._state == LOST:
            return
        self._out, self._out_nbytes = [], 0
        if self._is_paused:
            self._unread.add(nbytes)
        if nbytes > JOINED_NBYTES:
            self._socket.writelines(out)
        else:
            self._socket.write(b"".join(out))

    # -- the end ------------------------------------------------------------------------------------

    def leave(self, why: RequestError) -> None:
        """Ask the client to send no more. What is in flight is answered, then the connection ends."""
        if self._state == NEW:
            self._socket.close()
        elif self._state == OPEN and not self._is_leaving:
            self._is_leaving = True
            self._write(messages.encode_goaway(why))
            self._flush()
            self._linger()

    def abort(self, reason: str) -> None:
        self._ticket.because(reason)
        self._socket.abort()

    def _end(self, why: RequestError, reason: str = "malformed") -> None:
        """Say what the client did wrong, and hang up."""
        log.info("a client is hung up on: %s", why)
        self._ticket.because(reason)
        self._state = ENDING
        self._forget()
        self._write(messages.encode_goaway(why))
        self._flush()
        # It may still be sending. Were the socket closed now, what it has not read yet would be lost to it.
        if self._socket.can_write_eof():
            self._socket.write_eof()
        self._socket.resume_reading()
        self._linger()

    def _close(self) -> None:
        """Take nothing more; what is written is sent as long as the client reads."""
        self._state = CLOSING
        self._forget()
        self._socket.close()
        now = self._loop.time()
        self._alarm.set(self._unread.begin(self._socket.get_write_buffer_size(), now), now)

    def _linger(self) -> None:
        now = self._loop.time()
        self._ends_at = now + self._limits.linger_s
        self._alarm.set(self._ends_at, now)

    def _forget(self) -> None:
        """Cancel what is in flight."""
        self._waiting = None
        self._engine.admission.release(self._reserved)
        self._reserved = 0
        for item in tuple(self._items.values()):
            item.cancel()

    def _check(self) -> None:
        """End what has taken too long, and set the alarm for what may."""
        now, limits = self._loop.time(), self._limits
        if self._state == ENDING:
            due = self._ends_at
            if now >= due:
                self._socket.abort()
                return
        elif self._is_paused or self._state == CLOSING:
            again = self._unread.look(self._socket.get_write_buffer_size(), now)
            if again is None:
                log.info("a client that reads too little is hung up on")
                self.abort("stalled")
                return
            due = again
        elif self._state == NEW:
            due = self._made_at + limits.header_s
            if now >= due:
                self._end(SlowClient(f"no HELLO within {limits.header_s:g} s"), "slow")
                return
        elif self._decoder.is_partial and self._waiting is None:
            due = limits.upload_ends_at(self._frame_began_at, self._read_nbytes - self._frame_began_nbytes)
            if now >= due:
                self._end(SlowClient(limits.slow_upload), "slow")
                return
        elif self._items:
            due = now + limits.keepalive_s
        elif self._is_leaving:
            due = self._ends_at
            if now >= due:
                self._close()
                return
        else:
            due = self._read_at + limits.keepalive_s
            if now >= due:
                self._ticket.because("idle")
                self.leave(Unavailable(f"nothing came for {limits.keepalive_s:g} s"))
                return
        self._alarm.set(due, now)

    def __repr__(self) -> str:
        state = ("new", "open", "ending", "closing", "lost")[self._state]
        return f"<Connection {state}, {len(self._items)} in flight{', paused' if self._is_paused else ''}>"


def _in_use(stream: int) -> RequestError:
    return BadRequest(f"stream {stream} waits for its answer already")
