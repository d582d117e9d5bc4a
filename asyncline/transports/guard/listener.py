"""Listener: the listening sockets of one transport."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from asyncline.settings import ServiceSettings
from asyncline.transports.base import BACKLOG
from asyncline.transports.guard.guard import ConnGuard, Ticket

log = logging.getLogger("asyncline.guard")

BURST = 64
"""Most that are accepted in one turn of the loop."""
PAUSE_S = 0.1
"""How long nothing is accepted once descriptors are short."""
SAY_S = 10.0
"""How often that is said."""

Factory = Callable[[Ticket], asyncio.BaseProtocol]


class Listener:
    """Accepts what the guard admits, and makes a protocol of each connection.

    No `loop.create_server`: uvloop's stops for good when there is no descriptor left, and neither it nor asyncio's
    lets one refuse a connection before its TLS handshake.

    :param wire: `rest`, `grpc` or `tcp`.
    :param factory: makes the protocol of a connection. It has to `close` the Ticket when that is lost.
    :param alpn: what is spoken, for the TLS handshake to agree on.
    """

    def __init__(self, guard: ConnGuard, wire: str, factory: Factory, alpn: Sequence[str] = ()) -> None:
        self._guard = guard
        self._wire = wire
        self._factory = factory
        self._alpn = alpn
        self._sockets: list[socket.socket] = []
        self._tls: ssl.SSLContext | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._said_at = 0.0

    async def start(self, settings: ServiceSettings, port: int | None, fd: int | None) -> None:
        """Listen on `port` of the host, or on the socket `fd`.

        :raises OSError: the address is taken or not ours.
        :raises ssl.SSLError: the certificate is none.
        """
        self._loop = asyncio.get_running_loop()
        self._tls = _tls(settings, self._alpn)
        try:
            if fd is not None:
                self._sockets.append(socket.socket(fileno=fd))
            else:
                for family, address in await self._addresses(settings.host, port):
                    self._sockets.append(socket.create_server(address, family=family, backlog=BACKLOG))
        except OSError:
            self.close()
            raise
        for listening in self._sockets:
            listening.setblocking(False)
        self._listen()

    async def _addresses(self, host: str, port: int | None) -> list[tuple[int, Any]]:
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return list(dict.fromkeys((family, address[:2]) for family, _, _, _, address in found))

    @property
    def place(self) -> str:
        """Where it listens: `127.0.0.1:8000`."""
        assert self._sockets, "not started"
        host, port = self._sockets[0].getsockname()[:2]
        return f"{f'[{host}]' if ':' in host else host}:{port}"

    def close(self) -> None:
        """Accept no more."""
        if self._pause is not None:
            self._pause.cancel()
        for listening in self._sockets:
            if listening.fileno() >= 0:
                self._loop.remove_reader(listening)
                listening.close()

    async def wait_closed(self) -> None:
        """Wait until no handshake is on its way; they are cut off."""
        for task in self._opening:
            task.cancel()
        if self._opening:
            await asyncio.wait(self._opening)

    # -- accepting ----------------------------------------------------------------------------------

    def _listen(self) -> None:
        for listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(BURST):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:  # no descriptor, no memory: it would be the same in the next turn
                self._wait(error.strerror or str(error))
                return
            is_last = accepted.fileno() >= self._guard.limits.max_descriptor
            ticket = self._guard.admit(self._wire, address)
            if ticket is None:
                accepted.close()
                continue
            accepted.setblocking(False)
            task = self._loop.create_task(self._open(accepted, ticket), name=f"asyncline accept {self._wire}")
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
            if is_last:
                self._wait("too many descriptors are in use")
                return

    def _wait(self, why: str) -> None:
        """Accept nothing for a while: who is not accepted waits in the kernel, and is served if that gets better."""
        now = self._loop.time()
        if not self._said_at or now - self._said_at >= SAY_S:
            self._said_at = now
            log.warning("no connection is accepted for %g s at a time: %s", PAUSE_S, why)
        if self._pause is not None:
            return
        for listening in self._sockets:
            self._loop.remove_reader(listening)
        self._pause = self._loop.call_later(PAUSE_S, self._look)

    def _look(self) -> None:
        """Go on where there is a descriptor."""
        self._pause = None
        try:
            lowest = os.dup(self._sockets[0].fileno())
        except OSError as error:
            self._wait(error.strerror or str(error))
            return
        os.close(lowest)
        if lowest > self._guard.limits.max_descriptor:
            self._wait("too many descriptors are in use")
        else:
            self._listen()

    async def _open(self, accepted: socket.socket, ticket: Ticket) -> None:
        """Make a connection of it; ends when the protocol has it."""
        tls = self._tls
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._factory(ticket),
                accepted,
                ssl=tls,
                ssl_handshake_timeout=ticket.limits.header_s if tls is not None else None,
            )
        except BaseException as error:
            accepted.close()
            ticket.close("handshake")
            if not isinstance(error, OSError):  # ssl.SSLError is one, and so is a client that leaves
                raise
            log.debug("a connection of %s was not made: %s", ticket.peer, error)


def _tls(settings: ServiceSettings, alpn: Sequence[str]) -> ssl.SSLContext | None:
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context
