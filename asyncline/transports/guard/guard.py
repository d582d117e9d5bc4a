"""ConnGuard: who may connect."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from typing import Any

from asyncline.engine.engine import Engine
from asyncline.settings import ServiceSettings
from asyncline.transports.guard.limits import Limits
from asyncline.transports.guard.turns import Turns

log = logging.getLogger("asyncline.guard")

MAPPED = bytes(10) + b"\xff\xff"
"""What an IPv6 address begins with that stands for one of IPv4."""


class ConnGuard:
    """Counts the connections of all transports of one server, in all and by peer.

    Over a limit, a few of REST are let in all the same, to show an operator what goes on: whoever asks for something
    else on them than a page for operators is refused then.

    :param limits: those of `settings` by default.
    """

    def __init__(self, engine: Engine, settings: ServiceSettings, limits: Limits | None = None) -> None:
        self.engine = engine
        self.limits = limits or Limits.of(settings)
        #: How many are open.
        self.count = 0
        #: How many are open to an address.
        self.peers: Counter[str] = Counter()
        #: How many of the reserve are open, which are in no other count.
        self.reserved = 0
        #: What each wire does in a turn of the loop.
        self.turns: list[Turns] = []

    def admit(self, wire: str, address: Any) -> Ticket | None:
        """Count a new connection; None where it is one too many.

        :param wire: `rest`, `grpc` or `tcp`.
        :param address: of the peer, as `accept` says it.
        """
        limits, peer = self.limits, peer_of(address)
        over = ""
        if self.count >= limits.max_connections:
            over = "connections"
        elif peer and self.peers[peer] >= limits.max_connections_per_peer:
            over = "peer"
        if over and (wire != "rest" or self.reserved >= limits.reserved):
            self.refuse(wire, over, address)
            return None
        return Ticket(self, wire, peer, over)

    def refuse(self, wire: str, reason: str, address: Any) -> None:
        """Say that a client is not served, as it is over the limit `reason`."""
        log.debug("a connection of %s is refused: over the limit of %s", address, reason)
        hooks = self.engine.hooks
        if hooks.connection_refused:
            hooks.emit(hooks.connection_refused, wire, reason)

    def __repr__(self) -> str:
        return f"<ConnGuard {self.count} of {self.limits.max_connections} connections, {len(self.peers)} peers>"


class Ticket:
    """One connection that is counted, until `close`.

    :param over: the limit that it is over, where it is one of the reserve.
    """

    __slots__ = ("guard", "is_open", "limits", "over", "peer", "reason", "wire")

    def __init__(self, guard: ConnGuard, wire: str, peer: str, over: str = "") -> None:
        self.guard = guard
        self.wire = wire
        self.peer = peer
        self.over = over
        self.limits = guard.limits.of_reserve if over else guard.limits
        #: Why the connection ends; the first reason is the one.
        self.reason = ""
        self.is_open = True
        if over:
            guard.reserved += 1
        else:
            guard.count += 1
            if peer:
                guard.peers[peer] += 1
        hooks = guard.engine.hooks
        if hooks.connection_opened:
            hooks.emit(hooks.connection_opened, wire)

    def because(self, reason: str) -> None:
        """It ends for this reason; see the table in the package's docstring."""
        self.reason = self.reason or reason

    def refuse(self) -> None:
        """It is one of the reserve, and wants something else than that is for."""
        self.because("refused")
        self.guard.refuse(self.wire, self.over, self.peer)

    def close(self, reason: str = "left") -> None:
        """It has ended. May be said again."""
        if not self.is_open:
            return
        self.is_open = False
        guard, peer = self.guard, self.peer
        if self.over:
            guard.reserved -= 1
        else:
            guard.count -= 1
            if peer:
                guard.peers[peer] -= 1
                if not guard.peers[peer]:
                    del guard.peers[peer]
        self.because(reason)
        hooks = guard.engine.hooks
        if hooks.connection_closed:
            hooks.emit(hooks.connection_closed, self.wire, self.reason)


def peer_of(address: Any) -> str:
    """Whom a connection is counted for: an IPv4 address, the network of an IPv6 one; nobody where there is no address.

    A client of IPv6 has a whole /64 to connect from.
    """
    if not isinstance(address, tuple):
        return ""
    host: str = address[0]
    if ":" not in host:
        return host
    data = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    if data.startswith(MAPPED):
        return socket.inet_ntop(socket.AF_INET, data[12:])
    return socket.inet_ntop(socket.AF_INET6, data[:8] + bytes(8))
