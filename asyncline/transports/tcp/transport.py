"""TcpTransport: msgpack over TCP in front of one Engine."""

from __future__ import annotations

from asyncline.engine.engine import Engine
from asyncline.errors import Unavailable
from asyncline.settings import ServiceSettings
from asyncline.transports.base import Transport
from asyncline.transports.guard.guard import ConnGuard, Ticket
from asyncline.transports.guard.listener import Listener
from asyncline.transports.tcp.connection import Connection
from asyncline.transports.tcp.limits import CallLimits
from asyncline.transports.tcp.shared import Shared


class TcpTransport(Transport):
    """The listening socket and its connections.

    :param guard: that of the server; one of its own by default.
    """

    def __init__(
        self,
        engine: Engine,
        settings: ServiceSettings,
        guard: ConnGuard | None = None,
        limits: CallLimits | None = None,
    ) -> None:
        self._settings = settings
        self._guard = guard or ConnGuard(engine, settings)
        self._shared = Shared(engine, settings, self._guard, limits or CallLimits())
        self._listener = Listener(self._guard, "tcp", self._connect)

    async def start(self) -> None:
        await self._listener.start(self._settings, self._settings.tcp_port, self._settings.tcp_fd)

    def _connect(self, ticket: Ticket) -> Connection:
        return Connection(self._shared, ticket)

    @property
    def address(self) -> str:
        return f"{'tcp' if self._settings.tls_cert is None else 'tcps'}://{self._listener.place}"

    @property
    def connections(self) -> frozenset[Connection]:
        """Those that are open."""
        return frozenset(self._shared.connections)

    def close(self) -> None:
        self._shared.connections.is_closing = True
        self._listener.close()
        for connection in self._shared.connections:
            connection.leave(Unavailable("the server is stopping"))

    async def wait_closed(self) -> None:
        await self._listener.wait_closed()
        await self._shared.connections.wait_closed(self._guard.limits.linger_s)
