"""A gRPC client in a process of its own: a line of JSON on stdin for each run, and one on stdout.

It is as lean as Python allows, so that it is not what is measured: its calls are frames that are written beforehand,
of answers it reads the prefixes of frames. As other clients do it sends headers in full once, and then says that they
are the same.
"""

import asyncio
import struct
import time
from dataclasses import dataclass
from typing import cast

import numpy as np
import uvloop
from hpack import Encoder

from asyncline.wire.oip import InferRequest, InferTensor, grpc
from asyncline.wire.oip.schema import method
from loadtest.driven import drive

DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
END_STREAM, ACK = 1, 1
FRAME = struct.Struct(">BHBBI")
WINDOW = 2**31 - 1
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + FRAME.pack(0, 6, SETTINGS, 0, 0) + struct.pack(">HI", 4, WINDOW)
MORE = FRAME.pack(0, 4, 8, 0, 0) + struct.pack(">I", WINDOW - 65_535)
AGAIN_NBYTES = 2**29
FRAME_NBYTES = 16 * 1024


@dataclass(frozen=True)
class Run:
    """What is to be done."""

    host: str
    port: int
    seconds: float
    in_flight: int
    method: str
    floats: int = 0
    """Of the tensor of a ModelInfer."""

    @property
    def message(self) -> bytes:
        if not self.floats:
            return b""
        tensor = InferTensor("x", "FP32", np.arange(self.floats, dtype=np.float32))
        return grpc.encode_request(InferRequest((tensor,), "echo", id="1"))


class Pipeline(asyncio.Protocol):
    """Keeps so many calls in flight."""

    def __init__(self, run: Run) -> None:
        headers = [
            (":method", "POST"), (":scheme", "http"), (":path", method(run.method)), (":authority", run.host),
            ("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "loadtest"),
        ]  # fmt: skip
        encoder = Encoder()
        self._first, self._block = encoder.encode(headers), encoder.encode(headers)
        message = run.message
        data = b"\0" + struct.pack(">I", len(message)) + message
        self._parts = [data[place : place + FRAME_NBYTES] for place in range(0, len(data), FRAME_NBYTES)]
        self._in_flight = run.in_flight
        self._ends_at = time.monotonic() + run.seconds
        self._rest = b""
        self._stream = -1
        self._read_nbytes = 0
        self.count = 0
        self.answers = 0
        self._socket: asyncio.Transport
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        self._socket.write(HELLO + MORE)

    def _call(self, block: bytes) -> bytes:
        self._stream += 2
        frames = [FRAME.pack(len(block) >> 16, len(block) & 0xFFFF, HEADERS, 4, self._stream), block]
        for part in self._parts:
            last = END_STREAM if part is self._parts[-1] else 0
            frames += (FRAME.pack(len(part) >> 16, len(part) & 0xFFFF, DATA, last, self._stream), part)
        return b"".join(frames)

    def _calls(self, count: int) -> list[bytes]:
        return [self._call(self._block) for _ in range(count)]

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        place, end, ended = 0, len(data), 0
        out = []
        while end - place >= FRAME.size:
            high, low, kind, flags, _ = FRAME.unpack_from(data, place)
            nbytes = high << 16 | low
            if place + FRAME.size + nbytes > end:
                break
            if kind == DATA:
                self._read_nbytes += nbytes
            elif kind == HEADERS and flags & END_STREAM:
                ended += 1
            elif kind == HEADERS:  # an error alone has none but those that end it
                self.answers += 1
            elif kind in (SETTINGS, PING) and not flags & ACK:
                said = data[place + FRAME.size : place + FRAME.size + nbytes] if kind == PING else b""
                out.append(FRAME.pack(0, len(said), kind, ACK, 0) + said)
                if self._stream < 0:  # it has said how much it takes
                    out += [self._call(self._first), *self._calls(self._in_flight - 1)]
            elif kind == GOAWAY:
                self._end(RuntimeError("the server said GOAWAY"))
                return
            place += FRAME.size + nbytes
        self._rest = data[place:]
        self.count += ended
        if self._read_nbytes > AGAIN_NBYTES:
            out.append(FRAME.pack(0, 4, 8, 0, 0) + struct.pack(">I", self._read_nbytes))
            self._read_nbytes = 0
        if time.monotonic() > self._ends_at:
            self._end(None)
        elif ended or out:
            self._socket.write(b"".join([*out, *self._calls(ended)]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or RuntimeError("the server hung up"))

    def _end(self, error: Exception | None) -> None:
        if not self.ended.done():
            self._socket.abort()
            if error is None and self.answers < self.count:
                error = RuntimeError(f"{self.count} calls ended, with {self.answers} answers")
            if error is None:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(error)


async def pipeline(run: Run) -> int:
    """How many answers there were."""
    _, client = await asyncio.get_running_loop().create_connection(lambda: Pipeline(run), run.host, run.port)
    await client.ended
    return client.count


if __name__ == "__main__":
    drive(Run, lambda run: uvloop.run(pipeline(run)))
