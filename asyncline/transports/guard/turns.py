"""Turns: how much of one wire's work is done in one turn of the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

ALONE_BURST = 256
"""Most messages in one turn while the other wires have nothing to do. Each phase of the work then finds its code in the
core's cache more often: with 8 in a turn a small REST request costs 10 % more, and with fewer than there are
connections most of them wait for a turn."""
SHARED_S = 1.0
"""How long after its last message a wire counts as one that has something to do."""


class Turns:
    """Spreads the work of one wire over turns of the loop, so that another wire waits for a few messages of it, not for
    all that have come.

    Who has messages does as many of them as are `left`, and says so by `spend`; with none left it has to `wait`, and
    to see to it that nothing more comes meanwhile. Those who wait are called in their order. While there is less to do
    than `burst` nobody waits, and all that this costs is the counting.

    :param burst: most messages in one turn, while there are others than this wire's.
    :param wires: the Turns of all wires; these are added.
    """

    __slots__ = ("_burst", "_given", "_is_due", "_seen", "_shared_until", "_waiting", "_wires", "left")

    def __init__(self, burst: int, wires: list[Turns]) -> None:
        self._burst = burst
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_due = False
        #: How many more messages there may be. Made up for only when there are none: a call in each turn would cost
        #: those something who have one message now and then.
        self.left = burst
        self._given = burst
        self._wires = wires
        #: Messages of the other wires, when these were last looked at; and until when they count as busy.
        self._seen = 0
        self._shared_until = 0.0
        wires.append(self)

    @property
    def spent(self) -> int:
        """Messages since the start."""
        return self._given - self.left

    def _is_shared(self, now: float) -> bool:
        others = sum([each.spent for each in self._wires if each is not self])
        if others != self._seen:
            self._seen = others
            self._shared_until = now + SHARED_S
        return now < self._shared_until

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
            loop = asyncio.get_running_loop()
            loop.call_soon(self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_due = False
        left = self._burst if self._is_shared(loop.time()) else max(self._burst, ALONE_BURST)
        self._given += left - self.left
        self.left = left
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
