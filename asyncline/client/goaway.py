"""grpclib's client side, but a server that is stopping may finish: GOAWAY means no more calls, and those that are there
are still answered. grpclib, and h2 under it, end the connection and every call with it.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

from grpclib.client import Channel, Handler
from grpclib.exceptions import StreamTerminatedError
from grpclib.protocol import EventsProcessor, H2Protocol, Stream
from h2.errors import ErrorCodes
from h2.events import StreamReset
from hyperframe.frame import GoAwayFrame


class NotRun(StreamTerminatedError):
    """The server says that it did nothing for a call."""


class LeavingChannel(Channel):
    """Makes a new connection for the next call as soon as a server asks for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._protocols: weakref.WeakSet[H2Protocol] = weakref.WeakSet()

    def _protocol_factory(self) -> H2Protocol:
        protocol = _Protocol(Handler(), self._config, self._h2_config)
        self._protocols.add(protocol)
        return protocol

    def close(self) -> None:
        """Also the connections that servers are leaving."""
        for protocol in tuple(self._protocols):
            if hasattr(protocol, "processor"):  # else it was never connected
                protocol.processor.close()
        super().close()


class _Protocol(H2Protocol):
    processor: _Processor

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.processor = _Processor(self.handler, self.connection)
        self.connection._connection._frame_dispatch_table[GoAwayFrame] = self._leave

    def _leave(self, frame: GoAwayFrame) -> tuple[list[Any], list[Any]]:
        # In place of h2's own, after which it takes no more frames.
        self.handler.close()  # for the Channel, which only asks whether it was
        self.processor.leave(frame.last_stream_id)
        return [], []


class _Processor(EventsProcessor):
    is_leaving = False

    def leave(self, last: int) -> None:
        """:param last: the last call that the server does something for."""
        self.is_leaving = True
        for number, stream in self.streams.items():
            if number > last:
                _end(stream, NotRun("the server is stopping"))
        self._close_if_idle()

    def register(self, stream: Stream) -> Callable[[], None]:
        release = super().register(stream)

        def release_and_close() -> None:
            release()
            self._close_if_idle()

        return release_and_close

    def process_stream_reset(self, event: StreamReset) -> None:
        stream = self.streams.get(event.stream_id or 0)
        if stream is not None and event.remote_reset and event.error_code == ErrorCodes.REFUSED_STREAM:
            _end(stream, NotRun("the server refused it"))
            self.connection.streams_failed += 1
        else:
            super().process_stream_reset(event)

    def _close_if_idle(self) -> None:
        # Not at once: frames are being taken, or are still to be written.
        if self.is_leaving and not self.streams:
            asyncio.get_running_loop().call_soon(self.close, "the server is stopping")


def _end(stream: Stream, error: Exception) -> None:
    if stream.wrapper is not None:
        stream.wrapper.cancel(error)
