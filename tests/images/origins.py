"""Local origins, good and hostile, that tell what reached them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
"""Enough of one for whoever looks at the first bytes only."""

Handler = Callable[["Origin", "Client", str], Awaitable[None]]


class Origin:
    """One listening socket. `handler` answers each request; the connection stays open unless it closes it."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.address = ""
        #: The paths asked for, in order.
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        #: Those open now.
        self.clients: set[Client] = set()
        self.at_once = 0
        self.most_at_once = 0
        #: Handlers that wait for it go on.
        self.gate = asyncio.Event()
        self._changed = asyncio.Event()

    @property
    def open(self) -> int:
        return len(self.clients)

    def url(self, path: str = "/image.png") -> str:
        return f"http://{self.address}{path}"

    def changed(self) -> None:
        self._changed.set()
        self._changed.clear()

    async def until(self, condition: Callable[[Origin], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition(self):
                await self._changed.wait()


class Client(asyncio.Protocol):
    """A connection, as the origin sees it. Its handler ends when it is lost."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._received = b""
        self._task: asyncio.Task[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport
        self._origin.connections += 1
        self._origin.clients.add(self)
        self._origin.changed()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        self._received = rest
        line, *fields = head.decode().split("\r\n")
        self._origin.requests.append(line.split()[1])
        self._origin.headers.append({k.lower(): v.strip() for k, _, v in (field.partition(":") for field in fields)})
        self._task = asyncio.create_task(self._answer(self._origin.requests[-1]), name="origin")
        self._origin.changed()

    async def _answer(self, path: str) -> None:
        origin = self._origin
        origin.at_once += 1
        origin.most_at_once = max(origin.most_at_once, origin.at_once)
        origin.changed()
        try:
            await origin.handler(origin, self, path)
        finally:
            origin.at_once -= 1
            origin.changed()

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    async def drain(self) -> None:
        await self._may_write.wait()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def close(self) -> None:
        self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        self._origin.clients.discard(self)
        self._origin.changed()


@asynccontextmanager
async def origin(
    handler: Handler, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Origin]:
    made = Origin(handler)
    server = await asyncio.get_running_loop().create_server(lambda: Client(made), host, port, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    made.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        yield made
    finally:
        server.close()
        for client in tuple(made.clients):
            client.transport.abort()
        await made.until(lambda made: not made.open and not made.at_once)


def answer(body: bytes = PNG, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def answers(data: bytes) -> Handler:
    async def handler(origin: Origin, client: Client, path: str) -> None:
        client.write(data)
        await client.drain()

    return handler


def closes_after(data: bytes) -> Handler:
    async def handler(origin: Origin, client: Client, path: str) -> None:
        client.write(data)
        client.close()

    return handler


def hangs_after(data: bytes) -> Handler:
    """Sends `data` and then nothing, until the gate opens or the client leaves."""

    async def handler(origin: Origin, client: Client, path: str) -> None:
        client.write(data)
        await origin.gate.wait()

    return handler


def repeats(head: bytes, data: bytes) -> Handler:
    """Sends `data` without end."""

    async def handler(origin: Origin, client: Client, path: str) -> None:
        client.write(head)
        while True:
            client.write(data)
            await client.drain()
            await asyncio.sleep(0)

    return handler


def trickles(head: bytes, data: bytes) -> Handler:
    """Sends a byte of `data` at a time, a hundred a second."""

    async def handler(origin: Origin, client: Client, path: str) -> None:
        client.write(head)
        for byte in data:
            client.write(bytes([byte]))
            await asyncio.sleep(0.01)

    return handler


def waits(data: bytes) -> Handler:
    """Sends `data` once the gate is open."""

    async def handler(origin: Origin, client: Client, path: str) -> None:
        await origin.gate.wait()
        client.write(data)
        await client.drain()

    return handler


def redirects(*locations: str, status: str = "302 Found") -> Handler:
    """`/0` leads to the first of `locations`, `/1` to the second, ...; any other path is an image."""

    async def handler(origin: Origin, client: Client, path: str) -> None:
        place = path[1:]
        if place.isdigit() and int(place) < len(locations):
            location = locations[int(place)].replace("SELF", origin.address)
            client.write(answer(b"", status, f"Location: {location}\r\n"))
        else:
            client.write(answer())
        await client.drain()

    return handler
