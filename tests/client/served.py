"""A graph that does what it is told, served in this process by every wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asyncline import Engine, Graph, ProductError, Request, context, errors, op
from asyncline.client import AsyncClient
from asyncline.settings import Settings, Source, merge
from asyncline.transports.base import Transport
from asyncline.transports.grpc.inference import Inference
from asyncline.transports.grpc.transport import GrpcTransport
from asyncline.transports.oip import Models
from asyncline.transports.rest.transport import RestTransport
from asyncline.transports.tcp.transport import TcpTransport

WIRES = ("http", "tcp", "grpc")


class Orders:
    """What the graph was told, and what became of it."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.cancelled: list[Any] = []
        self.contexts: list[Any] = []
        self.release = asyncio.Event()
        self._news = asyncio.Event()

    def note(self, where: list[Any], what: Any) -> None:
        where.append(what)
        self._news.set()

    async def until(self, where: list[Any], count: int = 1) -> None:
        async with asyncio.timeout(10):
            while len(where) < count:
                self._news.clear()
                await self._news.wait()

    async def run(self, order: Any) -> Any:
        if not isinstance(order, dict) or "do" not in order:
            return order
        self.contexts.append(context())
        self.note(self.begun, order)
        if order["do"] == "raise":
            kind = getattr(errors, order["kind"])
            raise kind(order["code"], "as told") if kind is ProductError else kind("as told")
        if order["do"] == "crash":
            raise ZeroDivisionError("as told")
        try:
            await (self.release.wait() if order["do"] == "wait" else asyncio.sleep(60))
        except asyncio.CancelledError:
            self.note(self.cancelled, order)
            raise
        return order


class Served:
    """The same Engine behind every wire."""

    def __init__(self, engine: Engine, orders: Orders, transports: dict[str, Transport]) -> None:
        self.engine = engine
        self.orders = orders
        self.transports = transports
        self.addresses = {wire: transport.address for wire, transport in transports.items()}

    def client(self, wire: str, **parameters: Any) -> AsyncClient:
        # On a busy machine a connection may take longer than the usual 2 s.
        return AsyncClient(self.addresses[wire], **{"retries": 0, "connect_timeout": 20.0, **parameters})

    async def until_empty(self) -> None:
        """Nothing announces that a server has seen a client leave: let the loop go round, for a bounded time."""
        async with asyncio.timeout(20):
            while self.engine.admission.in_flight or self.engine.admission.nbytes:  # noqa: ASYNC110  # as it says
                await asyncio.sleep(0)


def settings_of(graph: Graph, **service: Any) -> Settings:
    service = {"http_port": 0, "tcp_port": 0, "grpc_port": 0, **service}
    return merge(graph.name, {each.name: {} for each in graph.ops}, Source("test", {"service": service}))


@asynccontextmanager
async def served(*, streaming: bool = False, **service: Any) -> AsyncIterator[Served]:
    """Serve the graph `told`, whose answer is that of its orders; `streaming`: of a list of orders, one by one."""
    orders = Orders()

    @op(cpu="inline", concurrency=100_000)
    async def run(order: Any) -> Any:
        return await orders.run(order)

    @op(cpu="inline", concurrency=100_000)
    async def run_each(several: list[Any]) -> AsyncIterator[Any]:
        for order in several:
            yield await orders.run(order)

    graph = Graph("told", (run_each if streaming else run)(Request()))
    settings = settings_of(graph, **service)
    async with Engine(graph, settings) as engine:
        transports: dict[str, Transport] = {
            "http": RestTransport(engine, settings.service, lambda: b""),
            "tcp": TcpTransport(engine, settings.service),
            "grpc": GrpcTransport(engine, settings.service, [Inference(engine, Models(engine, dict))]),
        }
        for transport in transports.values():
            await transport.start()
        try:
            yield Served(engine, orders, transports)
        finally:
            orders.release.set()
            for transport in transports.values():
                transport.close()
            for transport in transports.values():
                await transport.wait_closed()
