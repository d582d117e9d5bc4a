"""Windows: a Snapshot of each of the last seconds, so that there are Figures of any window that ends now."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from asyncline.engine.engine import Engine
from asyncline.errors import Unavailable
from asyncline.observe.cpu import CpuTimes
from asyncline.observe.figures import Figures
from asyncline.observe.pulse import Pulse
from asyncline.observe.snapshot import Snapshot, TakeCpu, figures
from asyncline.observe.statistics import Statistics

INTERVAL_S = 1.0
LONGEST_S = 60
"""The longest window."""


class Windows:
    """Takes Snapshots while the Engine runs, of some 20 kB each.

    :param cpu: says what CPU time processes took.
    """

    def __init__(self, engine: Engine, statistics: Statistics, cpu: TakeCpu = CpuTimes.take) -> None:
        self._engine = engine
        self._statistics = statistics
        self._cpu = cpu
        self._pulse = Pulse(engine)
        self._kept: deque[Snapshot] = deque(maxlen=LONGEST_S + 1)
        self._timer: asyncio.TimerHandle | None = None
        #: Called after each Snapshot.
        self.listeners: list[Callable[[], None]] = []
        #: Called ten times a second with the loop's lag in seconds.
        self.looks = self._pulse.looks

    def start(self) -> None:
        """Begin; the Engine is ready."""
        self._loop = asyncio.get_running_loop()
        self._pulse.start()
        self._due_at = self._loop.time()
        self._take()

    def _take(self) -> None:
        self._kept.append(self._snapshot())
        # By the clock, so that ten of them are ten seconds; what the loop stood still for is not caught up with.
        now = self._loop.time()
        self._due_at += INTERVAL_S
        if self._due_at <= now:
            self._due_at = now + INTERVAL_S
        self._timer = self._loop.call_at(self._due_at, self._take)
        for listener in tuple(self.listeners):
            listener()

    def _snapshot(self) -> Snapshot:
        return Snapshot.take(self._engine, self._statistics, self._pulse.take(), self._cpu)

    @property
    def has_begun(self) -> bool:
        return bool(self._kept)

    @property
    def at(self) -> float:
        """When all windows end: at the last Snapshot, in seconds of the engine's clock."""
        return self._kept[-1].at

    def figures(self, seconds: float) -> Figures:
        """Of the last so many seconds, or as many as there are.

        :raises Unavailable: it has not begun.
        """
        if not self._kept:
            raise Unavailable(f"the server is {self._engine.state}")
        *earlier, last = self._kept
        since = last.at - seconds
        # The nearest: a loop that stood still has taken none for a while, and what it did then is not to be left out.
        first = min(earlier or [last], key=lambda one: abs(one.at - since))
        return figures([one for one in self._kept if one.at >= first.at], self._engine)

    def close(self) -> None:
        self._pulse.close()
        if self._timer is not None:
            self._timer.cancel()
