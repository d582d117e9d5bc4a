"""Limits: what connections may take, in time, in bytes and in number."""

from __future__ import annotations

import resource
from dataclasses import dataclass, replace

from asyncline.settings import ServiceSettings

MAX_CONNECTIONS = 2048
"""With a default `max_connections`, where there are descriptors for so many."""
SPARE_DESCRIPTORS = 256
"""Left over by them, for models, downloads, workers and logs."""
RESERVE_S = 1.0
"""How long a connection of the reserve may take to say what it wants: there are few."""
RESERVED_DESCRIPTORS = 64
"""The last ones are never given to a connection, however few there are in all."""


def _descriptors() -> int:
    """How many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if soft == resource.RLIM_INFINITY else soft


@dataclass(frozen=True)
class Limits:
    """Times in seconds, rates in bytes a second. `of` takes those that an operator sets."""

    max_connections: int = MAX_CONNECTIONS
    """Most that are open, on all transports together."""
    max_connections_per_peer: int = 256
    """Most that are open to one address."""
    reserved: int = 8
    """Over all these, for who looks in: see ConnGuard."""
    max_descriptor: int = 2**20
    """Once a connection has this one or a higher, no more are accepted. The kernel gives the lowest that is free, so
    that this says how many are in use."""
    header_s: float = 10.0
    """How long a TLS handshake, the first message, and a head that has begun may take."""
    body_s: float = 30.0
    """How long a body may take."""
    upload_nbytes_s: float = 16_000
    """How fast it has to come, on average, ..."""
    grace_s: float = 5.0
    """... not counting so much at its beginning."""
    keepalive_s: float = 75.0
    """How long a connection without requests stays open."""
    unread_nbytes: int = 2**20
    """With more than this written and not yet read, nothing more is taken from a client of TCP."""
    stall_s: float = 30.0
    """How often a client that has much to read has to have read ..."""
    download_nbytes_s: float = 16_000
    """... as much as this makes of that time."""
    linger_s: float = 1.0
    """How long a client may take to close its end once it was told that this is the end."""

    @classmethod
    def of(cls, settings: ServiceSettings) -> Limits:
        descriptors = _descriptors()
        fitting = max(descriptors - SPARE_DESCRIPTORS, descriptors // 2)
        return cls(
            max_connections=settings.max_connections or min(MAX_CONNECTIONS, fitting),
            max_connections_per_peer=settings.max_connections_per_peer,
            max_descriptor=descriptors - 1 - min(RESERVED_DESCRIPTORS, descriptors // 4),
            header_s=settings.header_timeout_s,
            body_s=settings.body_timeout_s,
            upload_nbytes_s=settings.min_rate_kb_s * 1e3,
            keepalive_s=settings.keepalive_s,
            stall_s=settings.stall_timeout_s,
            download_nbytes_s=settings.min_rate_kb_s * 1e3,
        )

    @property
    def of_reserve(self) -> Limits:
        """Those of a connection of the reserve."""
        return replace(self, header_s=min(self.header_s, RESERVE_S))

    def upload_ends_at(self, began_at: float, nbytes: int) -> float:
        """When an upload will have been too slow, if nothing more came than `nbytes`."""
        latest = began_at + self.body_s
        if not self.upload_nbytes_s:
            return latest
        return min(latest, began_at + self.grace_s + nbytes / self.upload_nbytes_s)

    @property
    def slow_upload(self) -> str:
        """What a client is told whose request was not there by then."""
        rate = f", or came slower than {self.upload_nbytes_s / 1e3:g} kB/s" if self.upload_nbytes_s else ""
        return f"a request did not arrive within {self.body_s:g} s{rate}"
