"""What one would write without asyncline, on the loop that it uses: an echo that unpacks and packs, and a bare copy."""

import asyncio
import sys
from typing import cast

import msgpack
import uvloop

from asyncline.wire.frame.decoder import CALL, PREFIX, RESULT


class Echo(asyncio.Protocol):
    """Unpacks each message, packs it again, and writes it; takes the frames of `asyncline.wire.frame`."""

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        place = 0
        while len(data) - place >= PREFIX.size:
            kind, _, header_nbytes, stream, _ = PREFIX.unpack_from(data, place)
            start = place + PREFIX.size
            if start + header_nbytes > len(data):
                break
            place = start + header_nbytes
            if kind == CALL:
                _, _, value = msgpack.unpackb(data[start:place])
                answer = msgpack.packb([1, value])
                self._socket.write(PREFIX.pack(RESULT, 0, len(answer), stream, 0) + answer)
        self._rest = data[place:]


class Copy(asyncio.Protocol):
    """Writes what it reads."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._socket.write(data)

    def pause_writing(self) -> None:
        self._socket.pause_reading()

    def resume_writing(self) -> None:
        self._socket.resume_reading()


async def serve() -> None:
    loop = asyncio.get_running_loop()
    for protocol in (Echo, Copy):
        server = await loop.create_server(protocol, "127.0.0.1", 0)
        name = protocol.__name__.lower()
        print(f"{name} on tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", file=sys.stderr, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
