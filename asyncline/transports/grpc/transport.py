"""GrpcTransport: gRPC in front of one Engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from grpclib.const import Handler

from asyncline.engine.engine import Engine
from asyncline.settings import ServiceSettings
from asyncline.transports.base import Transport
from asyncline.transports.grpc.connection import Connection
from asyncline.transports.grpc.health import Health
from asyncline.transports.grpc.limits import CallLimits
from asyncline.transports.grpc.reflection import Reflection
from asyncline.transports.grpc.service import Service
from asyncline.transports.grpc.shared import Shared
from asyncline.transports.guard.guard import ConnGuard, Ticket
from asyncline.transports.guard.listener import Listener


class GrpcTransport(Transport):
    """The listening socket and its connections.

    :param services: besides health and reflection.
    :param guard: that of the server; one of its own by default.
    """

    def __init__(
        self,
        engine: Engine,
        settings: ServiceSettings,
        services: Iterable[Service] = (),
        guard: ConnGuard | None = None,
        limits: CallLimits | None = None,
    ) -> None:
        self._settings = settings
        self._guard = guard or ConnGuard(engine, settings)
        served = [*services]
        served.append(Health(engine, Reflection(served).names))
        served.append(Reflection(served))
        methods: dict[str, Handler] = {}
        for service in served:
            methods.update(service.__mapping__())
        open_methods = frozenset(path for service in served for path in service.open_methods)
        self._shared = Shared(engine, settings, self._guard, limits or CallLimits(), methods, open_methods)
        self._listener = Listener(self._guard, "grpc", self._connect, alpn=("h2",))

    async def start(self) -> None:
        await self._listener.start(self._settings, self._settings.grpc_port, self._settings.grpc_fd)

    def _connect(self, ticket: Ticket) -> Connection:
        return Connection(self._shared, ticket)

    @property
    def address(self) -> str:
        return f"{'grpc' if self._settings.tls_cert is None else 'grpcs'}://{self._listener.place}"

    @property
    def connections(self) -> frozenset[Connection]:
        """Those that are open."""
        return frozenset(self._shared.connections)

    def close(self) -> None:
        self._shared.connections.is_closing = True
        self._listener.close()
        for connection in self._shared.connections:
            connection.leave()

    async def wait_closed(self) -> None:
        await self._listener.wait_closed()
        shared = self._shared
        for connection in shared.connections:
            connection.stop()
        if shared.tasks:
            await asyncio.wait(tuple(shared.tasks))
        await shared.connections.wait_closed(self._guard.limits.linger_s)
