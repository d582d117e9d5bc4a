"""Replicas: what each replica of an Op has been given, and when it will be done with it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from asyncline.engine.batching.splitter import Isolation, Mortal

S = TypeVar("S", bound=Mortal)

NEVER = float("inf")

OVERDUE = 3.0
"""How many times the expected seconds a batch may take before nothing more is staged behind it: it may hang."""


class Run(Generic[S]):
    """A batch for a replica, and what is expected of it."""

    __slots__ = ("attempt", "bucket", "deviation_s", "isolation", "mean_s", "samples", "size")

    def __init__(
        self,
        samples: list[S],
        bucket: Hashable,
        size: float,
        attempt: int = 0,
        isolation: Isolation[S] | None = None,
    ) -> None:
        self.samples = samples
        self.bucket = bucket
        #: What its seconds depend on: the rows, or the cost.
        self.size = size
        #: How often the whole batch has raised before.
        self.attempt = attempt
        #: The search for bad samples that it is a step of.
        self.isolation = isolation
        #: The seconds that it will take, and how far that may be off; None where too little is known.
        self.mean_s: float | None = None
        self.deviation_s = 0.0

    def __repr__(self) -> str:
        return f"<Run of {len(self.samples)}, bucket {self.bucket!r}>"


class Load(Generic[S]):
    """The running batch of one replica, and the one staged behind it."""

    __slots__ = ("ends_at", "index", "lost", "overdue_at", "running", "staged")

    def __init__(self, index: int) -> None:
        self.index = index
        self.running: Run[S] | None = None
        self.staged: Run[S] | None = None
        #: When the running batch is expected to end.
        self.ends_at = NEVER
        self.overdue_at = NEVER
        #: Whether it takes no more.
        self.lost = False

    def start(self, run: Run[S], now: float) -> None:
        self.running = run
        if run.mean_s is None:
            self.ends_at = self.overdue_at = NEVER
        else:
            self.ends_at = now + run.mean_s
            self.overdue_at = now + OVERDUE * (run.mean_s + run.deviation_s)

    def __repr__(self) -> str:
        return f"<Load of replica {self.index}: {self.running!r}, staged {self.staged!r}>"


class Replicas(Generic[S]):
    """The replicas of one Op, numbered from 0.

    :param depth: 1, or 2 where a batch may be staged behind the running one.
    """

    def __init__(self, count: int, depth: int) -> None:
        self._depth = depth
        self._loads: list[Load[S]] = [Load(index) for index in range(count)]
        #: Those with nothing to do. Take the last, which was busy last: its memory is warm.
        self.idle = list(self._loads)
        self._soonest: Load[S] | None = None
        #: Whether one is idle, or may have a batch staged.
        self.take_more = True

    def soonest(self, now: float) -> Load[S] | None:
        """The busy replica that will be done first, of those for which a batch may be staged."""
        if self._soonest is not None and now > self._soonest.overdue_at:
            self._look(now)
        return self._soonest

    def give(self, load: Load[S], run: Run[S], now: float) -> None:
        """It gets a batch, which starts now where nothing runs."""
        if load.running is None:
            self.idle.remove(load)
            load.start(run, now)
        else:
            load.staged = run
        self._look(now)

    def over(self, replica: int, ended_at: float) -> Run[S]:
        """Its running batch is over; the staged one starts.

        :raises ValueError: none was running.
        """
        load = self._loads[replica]
        run, staged = load.running, load.staged
        if run is None:
            raise ValueError(f"replica {replica} runs no batch that could be over")
        load.running = load.staged = None
        if staged is not None:
            load.start(staged, ended_at)
        else:
            self.idle.append(load)
        self._look(ended_at)
        return run

    def lose(self, replica: int) -> tuple[Run[S] | None, Run[S] | None]:
        """It takes no more. What it was running, and what was staged."""
        load = self._loads[replica]
        if load in self.idle:
            self.idle.remove(load)
        had = load.running, load.staged
        load.running = load.staged = None
        load.lost = True
        self._look(0.0)
        return had

    def restore(self, replica: int) -> None:
        """It takes batches again."""
        load = self._loads[replica]
        if load.lost:
            load.lost = False
            self.idle.append(load)
            self.take_more = True

    def _look(self, now: float) -> None:
        """See who takes more."""
        soonest, ends_at = None, NEVER
        if self._depth > 1:
            for load in self._loads:
                is_next = load.running is not None and load.staged is None and load.ends_at < ends_at
                if is_next and now <= load.overdue_at:
                    soonest, ends_at = load, load.ends_at
        self._soonest = soonest
        self.take_more = soonest is not None or bool(self.idle)

    @property
    def running(self) -> int:
        """Batches that run."""
        return sum(load.running is not None for load in self._loads)

    @property
    def staged(self) -> int:
        """Batches that are staged."""
        return sum(load.staged is not None for load in self._loads)

    def __repr__(self) -> str:
        return f"<Replicas: {len(self.idle)} of {len(self._loads)} idle, {self.staged} staged>"
