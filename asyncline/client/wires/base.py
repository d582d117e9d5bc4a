"""Wire: the contract of a way to one server of ours; and what is sent by it."""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from asyncline.client.address import Address
from asyncline.errors import BadRequest
from asyncline.wire.frame.messages import LOG_ID
from asyncline.wire.traceparent import TRACEPARENT

GRACE_S = 0.04
"""How much longer than its timeout a call waits: the server's own answer says where the time went."""
LOWEST_PRIORITY = 99


@dataclass(frozen=True)
class Call:
    """One request, as often as it is sent."""

    graph: str
    payload: Any
    log_id: str = ""
    priority: int = 1
    traceparent: str | None = None

    def __post_init__(self) -> None:
        """:raises BadRequest: something that no server takes, or that has no place in a header."""
        if self.log_id and not LOG_ID.fullmatch(self.log_id):
            raise BadRequest("log_id: expected at most 128 printable ASCII characters")
        if type(self.priority) is not int or not 1 <= self.priority <= LOWEST_PRIORITY:
            raise BadRequest(f"priority: expected a whole number from 1, the highest, to {LOWEST_PRIORITY}")
        if self.traceparent is not None and not TRACEPARENT.fullmatch(self.traceparent):
            raise BadRequest("traceparent: expected one of the W3C's form, 00-...-...-01")


@dataclass(frozen=True)
class WireSettings:
    """What all wires of a client have in common."""

    token: str | None
    connections: int | None
    """Most at a time to one server; None: as many as suit the wire."""
    connect_s: float
    """Longest time to connect."""
    tls: ssl.SSLContext | None
    """For the addresses that are TLS, in place of `verify`."""
    verify: bool | str
    """Whether certificates have to be good; or a file of those that are trusted."""
    max_answer_nbytes: int
    """Longer answers are refused."""


class Wire(ABC):
    """Connects when it is first needed, and again when a connection was lost. Belongs to the loop it is used on.

    Answers are plain values and arrays. The errors of both ways to ask are

    - Refused, or one with `was_refused`: nothing was run;
    - Unavailable: the connection was lost, and nobody knows whether it was run;
    - DeadlineExceeded: it took longer than `timeout_s`, or the server says so;
    - Malformed: the answer is rubbish or too long;
    - RequestError: what the server says became of it, of its class.

    A caller that is cancelled, or leaves a stream, cancels the request at the server.
    """

    def __init__(self, address: Address, settings: WireSettings) -> None:
        self.address = address
        self.settings = settings

    @abstractmethod
    async def call(self, call: Call, timeout_s: float) -> Any:
        """Run one request and return its answer."""

    @abstractmethod
    def stream(self, call: Call, timeout_s: float) -> AsyncGenerator[Any, None]:
        """Run one request and yield the parts of its answer as they come."""

    @abstractmethod
    async def ready(self, timeout_s: float) -> bool:
        """Whether the server can serve; false also where nobody is there."""

    @abstractmethod
    async def close(self) -> None:
        """End the connections; what is outstanding fails."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"


async def context(address: Address, settings: WireSettings) -> ssl.SSLContext | None:
    """What makes it TLS, where the address is."""
    if not address.tls:
        return None
    return settings.tls or await asyncio.to_thread(_context, settings.verify)  # it reads files


def _context(verify: bool | str) -> ssl.SSLContext:
    found = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    if verify is False:
        found.check_hostname = False
        found.verify_mode = ssl.CERT_NONE
    return found
