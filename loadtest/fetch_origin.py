"""An origin on 127.0.0.1 that answers every path with an image of its own, DELAY_S after it was asked."""

import asyncio
import re
import sys
from typing import Any

import uvloop

DELAY_S = 0.1
NBYTES = 50_000
_REQUEST = re.compile(rb"GET (/\S*) HTTP/1\.1\r\n(?:.+\r\n)*\r\n")


def image(path: str) -> bytes:
    """What is answered to `path`: it begins as a JPEG does, and nothing decodes it."""
    name = path.encode()
    return (b"\xff\xd8\xff" + name * (NBYTES // len(name) + 1))[:NBYTES]


class Connection(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.Transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        while request := _REQUEST.match(self._received):
            self._received = self._received[request.end() :]
            asyncio.get_running_loop().call_later(DELAY_S, self._answer, request[1].decode())

    def _answer(self, path: str) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {NBYTES}\r\n\r\n"
        self._transport.write(head.encode() + image(path))


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(f"serving images on http://127.0.0.1:{port}", file=sys.stderr, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
