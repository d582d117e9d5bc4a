"""Connection: one client of GrpcTransport."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

from asyncline.engine.alarm import Alarm
from asyncline.errors import SlowClient
from asyncline.transports.grpc.call import Call
from asyncline.transports.grpc.head import NotGrpc, read
from asyncline.transports.grpc.http2 import ServerConnection
from asyncline.transports.grpc.meter import PREFACE, Abuse, Meter
from asyncline.transports.grpc.shared import Shared
from asyncline.transports.guard.guard import Ticket
from asyncline.transports.guard.unread import Unread

log = logging.getLogger("asyncline.grpc")

FORGET_EVERY = 64
"""Calls, after which those that are closed are looked for."""
FLUSH_NBYTES = 2**18
"""With so much to write, it is written before the turn ends."""
HTTP1 = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"this port speaks gRPC, over HTTP/2\n"
)
NEW, OPEN, LEAVING, ENDING, LOST = range(5)
"""States of a connection, in order: no preface yet; calls are taken; GOAWAY has been said and those that are there are
finished; nothing is taken in any more; the socket is gone."""


class Connection(asyncio.Protocol):
    """One client, from its preface to its end."""

    _socket: asyncio.Transport

    def __init__(self, shared: Shared, ticket: Ticket) -> None:
        self.shared = shared
        self._ticket = ticket
        self._limits = shared.limits
        self._call_limits = shared.call_limits
        self._loop = asyncio.get_running_loop()
        self._h2 = ServerConnection(shared.call_limits)
        self._meter = Meter(shared.call_limits, self._loop.time)
        self._alarm = Alarm(self._loop, self._check)
        self._state = NEW
        self.calls: dict[int, Call] = {}
        self._count = 0
        #: Calls that the client owes bytes; since when, and how many had come by then.
        self._receiving: dict[Call, tuple[float, int]] = {}
        #: Calls that have more to write than the client takes.
        self._writing: dict[Call, Unread] = {}
        #: Bytes that wait for the rest of the preface, or for another turn.
        self._waiting = b""
        self._is_turn_due = False
        self._is_flush_due = False
        #: Whether so much is written and not read that nothing more is taken.
        self._is_paused = False
        self._unread = Unread(ticket.guard)
        self._made_at = 0.0
        self._read_at = 0.0
        #: When a frame last began: one that never ends keeps no connection open.
        self._begun_at = 0.0
        self._ends_at = 0.0
        #: When the client was asked whether it is there, and has said nothing since.
        self._pinged_at: float | None = None

    # -- the socket ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        self.shared.connections.add(self)
        self._socket.set_write_buffer_limits(self._limits.unread_nbytes)
        now = self._made_at = self._read_at = self._begun_at = self._loop.time()
        self._alarm.set(now + self._limits.header_s, now)
        if self.shared.connections.is_closing:
            self._socket.close()

    def data_received(self, data: bytes) -> None:
        if self._state >= ENDING:
            return
        self._read_at = self._loop.time()
        self._pinged_at = None
        if self._waiting:
            data = self._waiting + data
            self._waiting = b""
        if self._state == NEW and not self._greet(data):
            return
        if self._is_turn_due:
            self._waiting = data  # it came before reading was stopped
        else:
            self._take(data)

    def eof_received(self) -> None:
        """A client that sends nothing more is gone: returning nothing closes the connection."""

    def pause_writing(self) -> None:
        self._is_paused = True
        self._socket.pause_reading()
        now = self._loop.time()
        self._alarm.set(self._unread.begin(self._socket.get_write_buffer_size(), now), now)

    def resume_writing(self) -> None:
        self._is_paused = False
        self._unread.end()
        # Who was not listened to is not slow.
        self._receiving = {call: (self._loop.time(), call.received_nbytes) for call in self._receiving}
        self._pump_all()
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = LOST
        self._alarm.cancel()
        self._unread.end()
        self._forget()
        self._ticket.close()
        self.shared.connections.discard(self)

    # -- frames -------------------------------------------------------------------------------------

    def _greet(self, data: bytes) -> bool:
        """Whether the client has said the preface of HTTP/2."""
        if not PREFACE.startswith(data[: len(PREFACE)]):
            if b"\r\n" in data:
                self._socket.write(HTTP1)
            self._end()
            return False
        if len(data) < len(PREFACE):
            self._waiting = data
            return False
        self._state = OPEN
        self._h2.begin()
        self._alarm.set(self._read_at + self._limits.keepalive_s, self._read_at)
        return True

    def _take(self, data: bytes) -> None:
        """Do what the frames say; what is too much for one turn waits."""
        turns = self.shared.turns
        most = min(turns.left, self._call_limits.burst)
        if most <= 0:
            self._waiting = data
            self._go_on()
            return
        try:
            place = self._meter.walk(data, most)
            if self._meter.walked:
                self._begun_at = self._read_at
                turns.spend(self._meter.walked)
            events = self._h2.receive_data(data if place == len(data) else memoryview(data)[:place])
            for event in events:
                handle = _HANDLERS.get(type(event))
                if handle is not None:
                    handle(self, event)
        except Abuse as error:
            self._hang_up(ErrorCodes.ENHANCE_YOUR_CALM, str(error))
        except ProtocolError as error:
            self._hang_up(None, str(error))
        except Exception as error:  # h2 takes the other side's word for what is there
            log.debug("unexpected of h2", exc_info=error)
            self._hang_up(ErrorCodes.PROTOCOL_ERROR, type(error).__name__)
        else:
            if place < len(data):
                self._waiting = data[place:]
                self._go_on()
            if self.calls:
                self._alarm.set(self._read_at + self._call_limits.ping_s, self._read_at)
            if self._receiving:
                self._alarm.set(self._limits.upload_ends_at(self._read_at, 0), self._read_at)
        self._flush()

    def _go_on(self) -> None:
        """Take what waits in the next turn of the loop, and read only then; neither while the client does not."""
        if self._state >= ENDING:
            return
        if self._is_paused or self._waiting:
            self._socket.pause_reading()
        else:
            self._socket.resume_reading()
        if self._waiting and not self._is_paused and not self._is_turn_due:
            self._is_turn_due = True
            self.shared.turns.wait(self._turn)

    def _turn(self) -> None:
        self._is_turn_due = False
        data, self._waiting = self._waiting, b""
        if data and self._state < ENDING:
            if self._is_paused:
                self._waiting = data
            else:
                self._take(data)
                self._go_on()

    def _accept(self, event: RequestReceived) -> None:
        stream_id = event.stream_id
        assert stream_id is not None
        if self._state != OPEN or len(self.calls) >= self._call_limits.max_streams:
            # Which says that nothing was done for it: the client may try elsewhere.
            self._h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            self._meter.reset()
            return
        self._count += 1
        if not self._count % FORGET_EVERY:
            self._h2.forget_closed()
        try:
            head = read(event.headers)
        except NotGrpc as error:
            headers = [(":status", str(error.status)), ("content-type", "text/plain"), ("grpc-message", str(error))]
            self._h2.write_headers(stream_id, headers, end=True)
            if self._h2.is_open(stream_id):
                self._h2.reset_stream(stream_id)
            self._meter.reset()
            return
        call = self.calls[stream_id] = Call(self, stream_id, head, self._read_at)
        call.open()
        if call.is_receiving and not call.is_settled:
            self._receiving[call] = (self._read_at, 0)

    def _data(self, event: DataReceived) -> None:
        stream_id = event.stream_id
        assert stream_id is not None
        data, nbytes = event.data, event.flow_controlled_length
        assert data is not None and nbytes is not None
        call = self.calls.get(stream_id)
        if call is None:
            self._h2.acknowledge_received_data(nbytes, stream_id)
            return
        call.received(data, nbytes)
        if not call.is_receiving:
            self._receiving.pop(call, None)
        elif call not in self._receiving:
            self._receiving[call] = (self._read_at, call.received_nbytes)

    def _ended(self, event: StreamEnded) -> None:
        assert event.stream_id is not None
        call = self.calls.get(event.stream_id)
        if call is not None:
            self._receiving.pop(call, None)
            call.ended()

    def _reset(self, event: StreamReset) -> None:
        assert event.stream_id is not None
        call = self.calls.get(event.stream_id)
        if call is not None:
            self._close(call)
        if not event.remote_reset:
            self._meter.reset()

    def _window(self, event: WindowUpdated) -> None:
        if event.stream_id:
            call = self.calls.get(event.stream_id)
            if call is not None and call in self._writing:
                self.pump(call)
        else:
            self._pump_all()

    def _settings(self, event: RemoteSettingsChanged) -> None:
        self._pump_all()

    def _terminated(self, event: ConnectionTerminated) -> None:
        """The client says GOAWAY: it will not call again, and h2 would not let us answer."""
        self._state = ENDING
        self._forget()
        self._socket.close()

    # -- for calls ----------------------------------------------------------------------------------

    def ack(self, call: Call, nbytes: int) -> None:
        """Let the client send so much more."""
        if self._state < ENDING:
            self._h2.acknowledge_received_data(nbytes, call.stream_id)
            self._flush_soon()

    def pump(self, call: Call) -> None:
        """Write what a call has to say, as far as the client takes it."""
        if self._state >= ENDING:
            return
        h2, stream_id, out = self._h2, call.stream_id, call.out
        if not out and out.trailers is None:
            return
        if not h2.is_open(stream_id):
            return  # its RST_STREAM came with what it is the answer to, and is the next event
        initial = out.initial()
        if initial is not None:
            if not out and out.trailers is not None:  # an error alone is one frame
                h2.write_headers(stream_id, initial + out.trailers, end=True)
                self._meter.allow(1)
                self._close(call)
                return
            h2.write_headers(stream_id, initial, end=False)
        while out and not self._is_paused:
            window = h2.window_of(stream_id)
            if window <= 0:
                break
            h2.write_data(stream_id, out.take(window))
            self._meter.allow(1)
            if h2.unsent_nbytes > FLUSH_NBYTES:
                self._flush()
        self._flush_soon()
        if not out:
            if out.trailers is not None:
                h2.write_headers(stream_id, out.trailers, end=True)
                self._close(call)
            else:
                self._keep(call)
                call.drained()
        else:
            self._keep(call)

    def _keep(self, call: Call) -> None:
        """Count what the client does not take as bytes in flight: there is less room then for what would add to it."""
        unread = self._writing.get(call)
        if not call.out.nbytes:
            if unread is not None:
                unread.end()
                del self._writing[call]
        elif unread is None:
            unread = self._writing[call] = Unread(self._ticket.guard)
            now = self._loop.time()
            self._alarm.set(unread.begin(call.out.nbytes, now), now)

    def added(self, call: Call, nbytes: int) -> None:
        """A call has so much more to write."""
        unread = self._writing.get(call)
        if unread is not None:
            unread.add(nbytes)

    def _pump_all(self) -> None:
        for call in tuple(self._writing):
            self.pump(call)

    def _close(self, call: Call) -> None:
        """There is nothing more to say, or nobody to say it to."""
        self._receiving.pop(call, None)
        del self.calls[call.stream_id]
        call.gone()
        self._keep(call)
        if self._state >= ENDING:
            return
        if not call.is_ended and self._h2.is_open(call.stream_id):
            self._h2.reset_stream(call.stream_id, ErrorCodes.NO_ERROR)
        self._flush_soon()
        if not self.calls:
            if self._state == LEAVING:
                self._linger()
            else:
                now = self._loop.time()
                self._alarm.set(now + self._limits.keepalive_s, now)

    # -- writing ------------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """One write for all that was said in this turn."""
        self._is_flush_due = False
        data = self._h2.data_to_send()
        if data and self._state != LOST:
            self._socket.write(data)

    # -- the end ------------------------------------------------------------------------------------

    def leave(self, reason: str = "stopping") -> None:
        """Ask the client to call no more. The calls that are there are answered, then the connection ends."""
        if self._state == NEW:
            self._ticket.because(reason)
            self._socket.close()
        elif self._state == OPEN:
            self._ticket.because(reason)
            self._state = LEAVING
            self._h2.leave()
            self._flush()
            if not self.calls:
                self._linger()

    def stop(self) -> None:
        """End the calls that have no end of their own."""
        for call in tuple(self.calls.values()):
            call.stop()

    def abort(self, reason: str) -> None:
        self._ticket.because(reason)
        self._socket.abort()

    def _hang_up(self, code: int | None, why: str) -> None:
        """Say what the client did wrong, and let nothing more in.

        :param code: None: h2 has said GOAWAY already.
        """
        log.info("a client is hung up on: %s", why)
        if code is not None:
            self._h2.leave(code, why.encode()[:128])
        self._flush()
        self._end()

    def _end(self) -> None:
        self._ticket.because("malformed")
        self._state = ENDING
        self._forget()
        # It may still be sending. Were the socket closed now, what it has not read yet would be lost to it.
        if self._socket.can_write_eof():
            self._socket.write_eof()
        self._socket.resume_reading()
        self._linger()

    def _linger(self) -> None:
        now = self._loop.time()
        self._ends_at = now + self._limits.linger_s
        self._alarm.set(self._ends_at, now)

    def _forget(self) -> None:
        self._waiting = b""
        for call in tuple(self.calls.values()):
            self._close(call)

    def _check(self) -> None:
        """End what has taken too long, and set the alarm for what may."""
        now, limits = self._loop.time(), self._limits
        if self._state == NEW:
            due = self._made_at + limits.header_s
            if now >= due:
                self.abort("slow")
                return
        elif self._state == ENDING or (self._state == LEAVING and not self.calls):
            due = self._ends_at
            if now >= due:
                self._socket.abort() if self._is_paused or self._state == ENDING else self._socket.close()
                return
        elif self._is_paused:
            again = self._unread.look(self._socket.get_write_buffer_size(), now)
            if again is None:
                log.info("a client that reads too little is hung up on")
                self.abort("stalled")
                return
            due = again
        else:
            due = min(self._check_receiving(now), self._check_writing(now), self._check_alive(now))
        if self._state < LOST:
            self._alarm.set(due, now)

    def _check_receiving(self, now: float) -> float:
        """Calls whose message does not come, or too slowly."""
        due = float("inf")
        if self._waiting:  # who is not listened to is not slow
            return now + self._limits.body_s
        for call, (began_at, began_nbytes) in tuple(self._receiving.items()):
            ends_at = self._limits.upload_ends_at(began_at, call.received_nbytes - began_nbytes)
            if now < ends_at:
                due = min(due, ends_at)
            else:
                del self._receiving[call]
                call.fail(SlowClient(self._limits.slow_upload))
        return due

    def _check_writing(self, now: float) -> float:
        """Calls whose answer is not taken."""
        due = float("inf")
        for call, unread in tuple(self._writing.items()):
            again = unread.look(call.out.nbytes, now)
            if again is not None:
                due = min(due, again)
                continue
            log.info("call %d is ended: the client does not take its answer", call.stream_id)
            self._h2.reset_stream(call.stream_id, ErrorCodes.CANCEL)
            self._close(call)
        return due

    def _check_alive(self, now: float) -> float:
        """A client that waits for an answer has to be there; one that does not is asked to leave after a while."""
        limits = self._call_limits
        if not self.calls:
            due = self._begun_at + self._limits.keepalive_s
            if now >= due and self._state == OPEN:
                self.leave("idle")
                return self._ends_at
            return due
        due = self._read_at + limits.ping_s
        if now < due:
            return due
        if self._pinged_at is None:
            self._pinged_at = now
            self._h2.ping(b"are you?")
            self._flush()
        elif now >= self._pinged_at + limits.pong_s:
            self.abort("left")
        return self._pinged_at + limits.pong_s

    def __repr__(self) -> str:
        state = ("new", "open", "leaving", "ending", "lost")[self._state]
        return f"<Connection {state}, {len(self.calls)} calls{', paused' if self._is_paused else ''}>"


_HANDLERS: dict[type[Event], Callable[[Connection, Any], None]] = {
    RequestReceived: Connection._accept,
    DataReceived: Connection._data,
    StreamEnded: Connection._ended,
    StreamReset: Connection._reset,
    WindowUpdated: Connection._window,
    RemoteSettingsChanged: Connection._settings,
    ConnectionTerminated: Connection._terminated,
}
