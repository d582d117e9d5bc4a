"""GrpcTransport: gRPC in front of one Engine."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable
from functools import partial
from typing import Any

from grpclib.const import Handler

from asyncline.engine.engine import Engine
from asyncline.settings import ServiceSettings
from asyncline.transports.base import BACKLOG, Transport
from asyncline.transports.grpc.connection import Connection, Shared
from asyncline.transports.grpc.health import Health
from asyncline.transports.grpc.limits import Limits
from asyncline.transports.grpc.reflection import Reflection
from asyncline.transports.grpc.service import Service


class GrpcTransport(Transport):
    """The listening socket and its connections.

    :param services: besides health and reflection.
    """

    def __init__(
        self,
        engine: Engine,
        settings: ServiceSettings,
        services: Iterable[Service] = (),
        limits: Limits | None = None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._limits = limits or Limits()
        served = [*services]
        names = Reflection(served).names
        health = Health(engine, names)
        self._services = [*served, health, Reflection([*served, health])]
        self._shared: Shared | None = None
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        methods: dict[str, Handler] = {}
        for service in self._services:
            methods.update(service.__mapping__())
        open_methods = frozenset(path for service in self._services for path in service.open_methods)
        self._shared = Shared(self._engine, self._settings, self._limits, methods, open_methods)
        where: dict[str, Any] = {"host": self._settings.host, "port": self._settings.grpc_port}
        if self._settings.grpc_fd is not None:
            where = {"sock": socket.socket(fileno=self._settings.grpc_fd)}
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
        context.set_alpn_protocols(["h2"])
        return context

    @property
    def address(self) -> str:
        assert self._listener is not None, "not started"
        host, port = self._listener.sockets[0].getsockname()[:2]
        scheme = "grpc" if self._settings.tls_cert is None else "grpcs"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def connections(self) -> frozenset[Connection]:
        """Those that are open."""
        return frozenset(self._shared.connections) if self._shared is not None else frozenset()

    def close(self) -> None:
        if self._shared is None:
            return
        self._shared.is_closing = True
        if self._listener is not None:
            self._listener.close()
        for connection in self.connections:
            connection.leave()

    async def wait_closed(self) -> None:
        shared = self._shared
        if shared is None:
            return
        for connection in self.connections:
            for call in tuple(connection.calls.values()):
                call.stop()
        if shared.tasks:
            await asyncio.wait(tuple(shared.tasks))
        if not shared.connections:
            return
        shared.empty = shared.loop.create_future()
        # Twice: until a client has closed its end, or is closed, and until its last answer is out.
        await asyncio.wait([shared.empty], timeout=2 * self._limits.linger_s)
        for connection in self.connections:
            connection.abort()
        await shared.empty
