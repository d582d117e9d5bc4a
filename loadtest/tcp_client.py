"""Clients of msgpack over TCP in a process of their own: a line of JSON on stdin for each run, and one on stdout.

What is counted are whole answers. One client is as lean as Python allows, so that it is not what is measured: its calls
are written beforehand, and of an answer it reads the first 12 bytes. The other one is `TcpConnection`.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import uvloop

from asyncline.client.tcp import TcpConnection
from asyncline.wire.frame.decoder import CALL, ERROR, GOAWAY, PREFIX, RESULT
from asyncline.wire.frame.messages import NO_OPTIONS, ClientHello, encode_call, encode_hello
from asyncline.wire.frame.values import Encoder
from loadtest.driven import drive

MESSAGE = {"text": "hello pipeline", "count": 3, "scores": [0.25, 0.5]}
"""As echo.lua sends it to REST."""
READ_NBYTES = 256 * 1024


@dataclass(frozen=True)
class Run:
    """What is to be done."""

    host: str
    port: int
    seconds: float
    in_flight: int
    nbytes: int = 0
    """Of a tensor that goes each way; 0: MESSAGE does."""
    lean: bool = True

    @property
    def payload(self) -> Any:
        return {"x": np.arange(self.nbytes // 4, dtype=np.float32)} if self.nbytes else MESSAGE


class Pipeline(asyncio.BufferedProtocol):
    """Keeps so many calls in flight, one for each of its streams."""

    def __init__(self, run: Run) -> None:
        encoder = Encoder(copy=False)
        self._calls = [
            b"".join(encode_call(encoder, stream, "echo", NO_OPTIONS, run.payload)[0])
            for stream in range(run.in_flight)
        ]
        self._ends_at = time.monotonic() + run.seconds
        self._buffer = memoryview(bytearray(READ_NBYTES))
        self._rest = b""
        self._to_skip = 0
        self._stream = 0
        self._socket: asyncio.Transport
        self.count = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        self._socket.write(b"".join([*encode_hello(ClientHello()), *self._calls]))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._to_skip > nbytes:
            self._to_skip -= nbytes
            return
        again = []
        place = 0
        if self._to_skip:
            again.append(self._calls[self._stream])
            place, self._to_skip = self._to_skip, 0
        data = self._rest + self._buffer[place:nbytes].tobytes()
        place, end = 0, len(data)
        while end - place >= PREFIX.size:
            kind, _, header_nbytes, stream, body_nbytes = PREFIX.unpack_from(data, place)
            place += PREFIX.size + header_nbytes + body_nbytes
            if kind in (RESULT, CALL):  # a bare copy says CALL
                if place > end:
                    self._to_skip, self._stream = place - end, stream
                    break
                again.append(self._calls[stream])
            elif kind in (ERROR, GOAWAY):
                self._end(RuntimeError(f"answered {data!r}"))
                return
        self._rest = data[place:]
        self.count += len(again)
        if time.monotonic() > self._ends_at:
            self._end(None)
        elif again:
            self._socket.write(again[0] if len(again) == 1 else b"".join(again))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or RuntimeError("the server hung up"))

    def _end(self, error: Exception | None) -> None:
        if not self.ended.done():
            self._socket.abort()
            if error is None:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(error)


async def pipeline(run: Run) -> int:
    """How many answers the lean client got."""
    _, client = await asyncio.get_running_loop().create_connection(lambda: Pipeline(run), run.host, run.port)
    await client.ended
    return client.count


async def connection(run: Run) -> int:
    """How many answers a `TcpConnection` got."""
    count = 0
    async with await TcpConnection.open(run.host, run.port) as client:
        ends_at = time.monotonic() + run.seconds
        payload = run.payload

        async def caller() -> None:
            nonlocal count
            while time.monotonic() < ends_at:
                await client.call("echo", payload, timeout=10)
                count += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(run.in_flight):
                tasks.create_task(caller())
    return count


if __name__ == "__main__":
    drive(Run, lambda run: uvloop.run(pipeline(run) if run.lean else connection(run)))
