"""Server: the whole life of a serving process, on one page.

listen → load models → ready → first signal: not ready, stop accepting, drain → exit
                               second signal: exit at once
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version

import uvloop
from rich.console import Console

from asyncline.engine.engine import Engine
from asyncline.errors import LoadError, SettingsError
from asyncline.exits import Exit
from asyncline.graph.graph import Graph
from asyncline.observe.admin import Admin
from asyncline.observe.logs.logs import Logs
from asyncline.observe.observing import Observing
from asyncline.observe.progress import Progress
from asyncline.settings import Settings
from asyncline.transports.base import Transport
from asyncline.transports.grpc.inference import Inference
from asyncline.transports.grpc.paddle import PaddleService
from asyncline.transports.grpc.transport import GrpcTransport
from asyncline.transports.guard.guard import ConnGuard
from asyncline.transports.oip import Models
from asyncline.transports.rest.example import curl
from asyncline.transports.rest.intake import Intake
from asyncline.transports.rest.observe import ObserveRoutes
from asyncline.transports.rest.oip import OipRoutes
from asyncline.transports.rest.routes import Routes
from asyncline.transports.rest.transport import RestTransport
from asyncline.transports.tcp.transport import TcpTransport

log = logging.getLogger("asyncline.server")

LOOPBACK = ("127.", "localhost", "::1")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
FLUSH_S = 0.5
"""How long an exit at once waits for the log."""
UVLOOP = (0, 23)
"""Earlier versions can hand one client's bytes to another: a cancelled connect closes a descriptor twice."""


def serve(graph: Graph, settings: Settings, console: Console) -> int:
    """Serve `graph` until a signal; returns the exit code.

    :raises SettingsError: the settings are unsafe or cannot work here.
    :raises LoadError: an Op or a model cannot be loaded, or the address is taken.
    """
    found = version("uvloop")
    if tuple(map(int, found.split(".")[:2])) < UVLOOP:
        raise SettingsError(f"uvloop {found} is unsafe: pip install 'uvloop>=0.23.0'")
    logs = Logs(settings.service, graph)
    logs.start()
    try:
        return uvloop.run(Server(graph, settings, console, logs).run())
    finally:
        logs.close()


class Server:
    """One Engine and its transports, in this process."""

    def __init__(self, graph: Graph, settings: Settings, console: Console, logs: Logs) -> None:
        self._logs = logs
        self.engine = Engine(graph, settings)
        self._settings = settings
        self._console = console
        self.observing = Observing(self.engine, settings, logs)
        service = settings.service
        #: One for all transports.
        self.guard = ConnGuard(self.engine, service)
        #: One for the wires that speak the Open Inference Protocol.
        self.models = Models(self.engine, self.observing.usages)
        routes: list[Callable[[Intake], Routes]]
        routes = [partial(OipRoutes, self.engine, self.models), partial(ObserveRoutes, self.observing)]
        self.rest = RestTransport(self.engine, service, self.observing.metrics.render, self.guard, routes=routes)
        #: Transports, and the settings of the ports they are to listen on.
        self.transports: list[tuple[Transport, str]] = [(self.rest, "http_port")]
        if service.grpc_port is not None or service.grpc_fd is not None:
            services = [Inference(self.engine, self.models), PaddleService(self.engine)]
            self.transports.append((GrpcTransport(self.engine, service, services, self.guard), "grpc_port"))
        if service.tcp_port is not None or service.tcp_fd is not None:
            self.transports.append((TcpTransport(self.engine, service, self.guard), "tcp_port"))

    async def run(self) -> int:
        """Serve until a signal; returns the exit code."""
        stop = asyncio.Event()
        with _signals(stop, self._logs, self.observing.admin):
            try:
                await self._listen()
                if not await self._load(stop):
                    return Exit.OK
                with _frozen():
                    self.observing.start()
                    self._announce()
                    if not await self._serve(stop):
                        return Exit.FAULT
            finally:
                drained = await self._shut_down()
        return Exit.OK if drained else Exit.ABORTED

    async def _listen(self) -> None:
        # Before the models: a port that is taken shows at once, and probes see "starting".
        service = self._settings.service
        for transport, setting in self.transports:
            try:
                await transport.start()
            except (OSError, ssl.SSLError) as error:
                option = setting.replace("_", "-")
                raise LoadError(
                    f"cannot listen on {service.host}:{getattr(service, setting)}: {_reason(error)} (see --{option})"
                ) from error

    async def _load(self, stop: asyncio.Event) -> bool:
        """Start the Engine; False when a signal came first."""
        progress = Progress(self.engine.plan, self._console)
        self.engine.hooks.add(progress)
        starting = asyncio.create_task(self.engine.start(), name="asyncline start")
        stopping = asyncio.create_task(stop.wait(), name="asyncline stop")
        try:
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return False
            starting.result()
            return True
        finally:
            stopping.cancel()
            if not starting.done():
                starting.cancel()
                await asyncio.wait([starting])
            progress.stop()
            self.engine.hooks.remove(progress)

    async def _serve(self, stop: asyncio.Event) -> bool:
        """Wait for a signal; False when the Engine ended first, which it never should."""
        stopping = asyncio.create_task(stop.wait(), name="asyncline stop")
        ending = asyncio.create_task(self.engine.wait_closed(), name="asyncline engine's end")
        await asyncio.wait([stopping, ending], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not ending.done():
            ending.cancel()
            return True
        log.critical("the engine has failed", exc_info=ending.exception())
        return False

    async def _shut_down(self) -> bool:
        """Refuse, finish what is in flight within `drain_s`, close."""
        for transport, _ in self.transports:
            transport.close()
        drained = await self.engine.drain(self._settings.service.drain_s)
        for transport, _ in self.transports:
            await transport.wait_closed()  # so that the last answers are written before anything ends
        self.observing.close()
        await self.observing.wait_closed()
        await self.engine.close()
        return drained

    def _announce(self) -> None:
        service = self._settings.service
        address = self.rest.address
        if not service.host.startswith(LOOPBACK) and service.auth_token is None:
            self._console.print(
                f"[yellow]warning: {service.host} is open to other machines and no --auth-token is set[/]"
            )
        name = self.engine.graph.name
        self._console.print(f"serving [bold]{name}[/] on {address}  (try it: {address}/docs)", highlight=False)
        for transport, _ in self.transports[1:]:
            self._console.print(f"and on {transport.address}", highlight=False)
        self._console.print(curl(self.engine.graph, address), highlight=False, soft_wrap=True, markup=False)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


@contextmanager
def _frozen() -> Iterator[None]:
    """What is loaded by now is kept out of the collector's way: going through all of it stopped the loop for 60 ms
    every few seconds, with no model.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _signals(stop: asyncio.Event, logs: Logs, admin: Admin) -> Iterator[None]:
    """The first SIGTERM or SIGINT sets `stop`; the second ends the process. SIGUSR1 has the stacks logged."""
    loop = asyncio.get_running_loop()

    def arrived(number: int) -> None:
        if stop.is_set():
            logs.flush(FLUSH_S)
            os._exit(128 + number)
        stop.set()

    def log_stacks() -> None:
        text = admin.stacks()
        loop.run_in_executor(None, lambda: log.info("%s", text()))

    for number in SIGNALS:
        loop.add_signal_handler(number, arrived, number)
    loop.add_signal_handler(signal.SIGUSR1, log_stacks)
    try:
        yield
    finally:
        for number in (*SIGNALS, signal.SIGUSR1):
            loop.remove_signal_handler(number)
