"""FrameSocket: frames of msgpack over TCP, in and out of one socket. What they say is for its subclass."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import cast

from asyncline.wire.frame.decoder import Admit, Buffer, Decoder, Frame

SCRATCH_NBYTES = 64 * 1024
JOINED_NBYTES = 64 * 1024
"""Up to here, copying what is to be written into one piece costs less than writing it in several."""
UNSENT_NBYTES = 2**20
"""With more than this written and not yet taken by the server, calls wait."""


class FrameSocket(asyncio.BufferedProtocol, ABC):
    """:param admit: whether a body that is about to come is received."""

    _socket: asyncio.Transport

    def __init__(self, admit: Admit) -> None:
        self._loop = asyncio.get_running_loop()
        self._decoder = Decoder(admit=admit)
        self._scratch = memoryview(bytearray(SCRATCH_NBYTES))
        self._out: list[Buffer] = []
        self._is_flush_due = False
        self._is_paused = False

    @abstractmethod
    def _take(self, frames: Iterable[Frame]) -> None:
        """Frames have come; where the decoder has an error then, nothing that follows can be trusted."""

    @abstractmethod
    def _send(self) -> None:
        """There may be room for more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        self._socket.set_write_buffer_limits(UNSENT_NBYTES)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._scratch if self._decoder.buffer is None else self._decoder.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._decoder.buffer is None:
            self._take(self._decoder.feed(self._scratch[:nbytes]))
        else:
            self._take(self._decoder.received(nbytes))

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._send()

    def _write(self, parts: list[Buffer]) -> None:
        """With all that is said in this turn of the loop."""
        self._out += parts
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        out, self._out = self._out, []
        if self._socket.is_closing():
            return
        if sum(map(len, out)) > JOINED_NBYTES:
            self._socket.writelines(out)
        else:
            self._socket.write(b"".join(out))
