"""Turns: how much of one wire's work is done in one turn of the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """Spreads the work of one wire over turns of the loop, so that another wire waits for a few messages of it, not for
    all that have come.

    Who has messages does as many of them as are `left`, and says so by `spend`; with none left it has to `wait`, and
    to see to it that nothing more comes meanwhile. Those who wait are called in their order. While there is less to do
    than `burst` nobody waits, and all that this costs is the counting.

    :param burst: most messages in one turn.
    """

    __slots__ = ("_burst", "_is_due", "_waiting", "left")

    def __init__(self, burst: int) -> None:
        self._burst = burst
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_due = False
        #: How many more messages there may be. Made up for only when there are none: a call in each turn would cost
        #: those something who have one message now and then.
        self.left = burst

    def spend(self, count: int = 1) -> None:
        """So many have been worked on."""
        self.left -= count
        if self.left <= 0:
            self._call_next()

    def wait(self, work: Callable[[], None]) -> None:
        """Call `work` when it is its turn: it may then do what is `left`, and wait again. It must not wait twice."""
        self._waiting.append(work)
        self._call_next()

    def _call_next(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._is_due = False
        self.left = self._burst
        waiting = self._waiting
        try:
            for _ in range(len(waiting)):  # who waits again does so for another turn
                if self.left <= 0:
                    break
                waiting.popleft()()
        finally:
            if waiting:
                self._call_next()

    def __repr__(self) -> str:
        return f"<Turns {self.left} of {self._burst} left, {len(self._waiting)} waiting>"
