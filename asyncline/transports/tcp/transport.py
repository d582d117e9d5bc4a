"""TcpTransport: msgpack over TCP in front of one Engine."""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import partial
from typing import Any

from asyncline.engine.engine import Engine
from asyncline.errors import Unavailable
from asyncline.settings import ServiceSettings
from asyncline.transports.base import BACKLOG, Transport
from asyncline.transports.tcp.connection import Connection, Shared
from asyncline.transports.tcp.limits import Limits


class TcpTransport(Transport):
    """The listening socket and its connections."""

    def __init__(self, engine: Engine, settings: ServiceSettings, limits: Limits | None = None) -> None:
        self._settings = settings
        self._limits = limits or Limits()
        self._shared = Shared(engine, settings, self._limits)
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        where: dict[str, Any] = {"host": self._settings.host, "port": self._settings.tcp_port}
        if self._settings.tcp_fd is not None:
            where = {"sock": socket.socket(fileno=self._settings.tcp_fd)}
        tls = self._tls()
        self._listener = await asyncio.get_running_loop().create_server(
            partial(Connection, self._shared),
            **where,
            ssl=tls,
            ssl_handshake_timeout=self._limits.hello_s if tls is not None else None,
            backlog=BACKLOG,
        )

    def _tls(self) -> ssl.SSLContext | None:
        if self._settings.tls_cert is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._settings.tls_cert, self._settings.tls_key)
        return context

    @property
    def address(self) -> str:
        assert self._listener is not None, "not started"
        host, port = self._listener.sockets[0].getsockname()[:2]
        scheme = "tcp" if self._settings.tls_cert is None else "tcps"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def connections(self) -> frozenset[Connection]:
        """Those that are open."""
        return frozenset(self._shared.connections)

    def close(self) -> None:
        self._shared.is_closing = True
        if self._listener is not None:
            self._listener.close()
        for connection in self.connections:
            connection.leave(Unavailable("the server is stopping"))

    async def wait_closed(self) -> None:
        if not self.connections:
            return
        self._shared.empty = asyncio.get_running_loop().create_future()
        # Twice: until a client has closed its end, or is closed, and until its last answer is out.
        await asyncio.wait([self._shared.empty], timeout=2 * self._limits.linger_s)
        for connection in self.connections:
            connection.abort()
        await self._shared.empty
