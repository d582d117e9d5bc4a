"""Deadlines: absolute times on the monotonic clock, made once at the edge.

CLOCK_MONOTONIC is one clock for all processes of a machine, so a deadline crosses to a pool worker as
the plain number it is.
"""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds on a monotonic clock."""


def expires_at(now: float, server_timeout_s: float, client_timeout_s: float | None = None) -> float:
    """When a request that arrives `now` expires: the earlier of the client's deadline and the server's."""
    if client_timeout_s is None or client_timeout_s > server_timeout_s:
        return now + server_timeout_s
    return now + client_timeout_s
