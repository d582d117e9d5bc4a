"""Alarm: one timer for whatever comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LEAST_S = 1e-3
"""A loop's timers have milliseconds; uvloop takes a shorter wait for none, and would go round and round."""


class Alarm:
    """Calls `ring` once, at the earliest of the times that it was set for since it last rang.

    A timer of its own for each time would cost as much as the work that it watches: one that is set for earlier
    does, and `ring` sets the next.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._at = 0.0
        self._handle: asyncio.Handle | None = None

    def set(self, at: float, now: float) -> None:
        """:param at: seconds of the loop's clock, as `now` is."""
        if self._handle is not None:
            if self._at <= at:
                return
            self._handle.cancel()
        self._at = max(at, now + LEAST_S)
        self._handle = self._loop.call_at(self._at, self._ring_now)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ring_now(self) -> None:
        self._handle = None
        self._ring()
