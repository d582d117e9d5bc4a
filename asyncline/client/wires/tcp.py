"""TcpWire: msgpack over TCP, by a few connections of which each carries many calls."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from typing import Any

from asyncline.client.address import Address
from asyncline.client.base import Refused
from asyncline.client.tcp import TcpConnection
from asyncline.client.wires.base import Call, Wire, WireSettings, context
from asyncline.errors import DeadlineExceeded, RequestError

CONNECTIONS = 1
"""Most connections to one server: a second one helps only calls that would wait behind very long frames."""


async def connect(address: Address, settings: WireSettings) -> TcpWire:
    """Nothing is sent yet."""
    return TcpWire(address, settings, await context(address, settings))


class TcpWire(Wire):
    def __init__(self, address: Address, settings: WireSettings, tls: ssl.SSLContext | None) -> None:
        super().__init__(address, settings)
        self._loop = asyncio.get_running_loop()
        self._tls = tls
        self._most = settings.connections or CONNECTIONS
        self._connections: list[TcpConnection] = []
        self._opening: asyncio.Task[TcpConnection] | None = None
        self._is_closed = False

    async def call(self, call: Call, timeout_s: float) -> Any:
        expires_at = self._loop.time() + timeout_s
        connection = await self._connection(timeout_s)
        return await connection.call(call.graph, call.payload, **self._options(call, expires_at))

    async def stream(self, call: Call, timeout_s: float) -> AsyncGenerator[Any, None]:
        expires_at = self._loop.time() + timeout_s
        connection = await self._connection(timeout_s)
        parts = connection.stream(call.graph, call.payload, **self._options(call, expires_at))
        try:
            async for part in parts:
                yield part
        finally:
            await parts.aclose()

    def _options(self, call: Call, expires_at: float) -> dict[str, Any]:
        return {
            "timeout": max(1e-3, expires_at - self._loop.time()),
            "log_id": call.log_id,
            "priority": call.priority,
            "traceparent": call.traceparent,
        }

    async def ready(self, timeout_s: float) -> bool:
        """Whether it says HELLO: the frames have no question for more."""
        try:
            await self._connection(timeout_s)
        except RequestError:
            return False
        return True

    async def _connection(self, timeout_s: float) -> TcpConnection:
        """The connection with the fewest calls; another one where all have some and there may be more."""
        self._connections = [each for each in self._connections if each.is_open]
        best = min(self._connections, key=lambda each: each.in_flight, default=None)
        if best is not None and (not best.in_flight or len(self._connections) >= self._most):
            return best
        if self._is_closed:
            raise Refused("the client was closed")
        if self._opening is None:
            self._opening = self._loop.create_task(self._open(), name=f"asyncline client connects to {self.address}")
            self._opening.add_done_callback(self._opened)
        if best is not None:
            return best  # until the new one is there
        opening = self._opening
        done, _ = await asyncio.wait([opening], timeout=timeout_s)
        if not done:
            raise DeadlineExceeded(f"no connection to {self.address} within {timeout_s:g} s")
        if opening.cancelled():
            raise Refused("the client was closed")
        return opening.result()

    async def _open(self) -> TcpConnection:
        settings, address = self.settings, self.address
        connection = await TcpConnection.open(
            address.host,
            address.port,
            token=settings.token,
            tls=self._tls,
            timeout=settings.connect_s,
            max_answer_nbytes=settings.max_answer_nbytes,
        )
        self._connections.append(connection)
        return connection

    def _opened(self, opening: asyncio.Task[TcpConnection]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # whoever waited has it; it is no matter where nobody did

    async def close(self) -> None:
        self._is_closed = True
        if self._opening is not None:
            opening = self._opening
            opening.cancel()
            await asyncio.wait([opening])
        for connection in self._connections:
            await connection.close()
