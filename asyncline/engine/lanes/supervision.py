"""What a pool does about workers that die: pure policy, without clock or timers of its own."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

from asyncline.errors import Unavailable

BACKOFF_S = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0)
"""Waits before a worker is started again, by how many reasons there are to wait."""
DEATHS = 5
WINDOW_S = 30.0
"""A worker that has died that often within the window waits before it is started again."""


class Restarts:
    """When a worker may be started again: at once, but later and later after starts that failed, and where it
    dies again and again."""

    def __init__(self) -> None:
        self._failed = 0
        self._deaths: deque[float] = deque(maxlen=DEATHS + len(BACKOFF_S))

    def died(self, now: float) -> None:
        self._deaths.append(now)

    def start_failed(self) -> None:
        self._failed += 1

    def started(self) -> None:
        self._failed = 0

    def delay_s(self, now: float) -> float:
        recent = sum(at > now - WINDOW_S for at in self._deaths)
        return BACKOFF_S[min(max(self._failed, recent - DEATHS + 1, 0), len(BACKOFF_S) - 1)]


class Breaker:
    """Stands in front of one Op: refuses its Jobs for a while when they kill workers again and again.

    It opens at `DEATHS` crashes within the window, if these are half of the Op's Jobs or more: then it is the Op
    that is broken, not some of its requests, whose senders must not shut out all others. It stays open for 1 s,
    and twice as long each time up to 30 s. Then one Job may try: it closes the Breaker, or opens it again.
    """

    MOST_S = 30.0

    def __init__(self) -> None:
        self.open_until = 0.0
        self.is_open = False
        self._crashes = 0
        self._jobs = 0
        self._since = 0.0
        self._open_s = 0.5
        self._trying = False

    def admits(self, now: float) -> bool:
        """Whether a Job may begin. One that may has to be followed by `crashed` or `succeeded`, or `gave_up`."""
        if self.refuses(now):
            return False
        self._trying = self.is_open
        return True

    def refuses(self, now: float) -> bool:
        """Whether it refuses whatever comes now."""
        return self.is_open and (self._trying or now < self.open_until)

    def succeeded(self) -> None:
        self._jobs += 1
        if self._trying:
            self.__init__()  # type: ignore[misc]  # as new

    def gave_up(self) -> None:
        """The Job that tried was not run."""
        self._trying = False

    def crashed(self, now: float) -> None:
        if now - self._since > WINDOW_S:
            self._since, self._crashes, self._jobs = now, 0, 0
        self._crashes += 1
        self._jobs += 1
        if self._trying or (self._crashes >= DEATHS and self._crashes * 2 >= self._jobs):
            self._open_s = min(2 * self._open_s, self.MOST_S)
            self.open_until = now + self._open_s
            self.is_open = True
            self._trying = False

    def __repr__(self) -> str:
        return f"<Breaker {'open' if self.is_open else 'closed'}, {self._crashes} crashes in {self._jobs} jobs>"


class Breakers(defaultdict[str, Breaker]):
    """A Breaker for each Op that has killed a worker, by its name."""

    def __init__(self) -> None:
        super().__init__(Breaker)

    def refusal(self, ops: Sequence[str], now: float) -> Unavailable | None:
        """Why a Job whose hooks are of these Ops, in order, may not begin; None where it may."""
        for place, op in enumerate(ops):
            breaker = self.get(op)
            if breaker is not None and not breaker.admits(now):
                self.gave_up(ops[:place])
                error = Unavailable(f"op {op!r}: kills its worker processes again and again; refused for now")
                error.retry_after_s = max(1, round(breaker.open_until - now))
                return error
        return None

    def succeeded(self, ops: Iterable[str]) -> None:
        for op in ops:
            if op in self:
                self[op].succeeded()

    def gave_up(self, ops: Iterable[str]) -> None:
        """A Job was not run that might have."""
        for op in ops:
            if op in self:
                self[op].gave_up()

    def refused(self, now: float) -> str | None:
        """An Op whose Jobs are refused, where there is one."""
        return next((op for op, breaker in self.items() if breaker.refuses(now)), None)
