"""Replicas under load, simulated: arrivals, ends of batches and timers are events of a virtual clock.

    arrival        ──► batcher.put ────────────────────────────┐
    end of a batch ──► finished, failed, out_of_memory, lost ──┼──► batcher.feed, until there is nothing to do
    timer          ────────────────────────────────────────────┘

It does with a Batcher what a Runner does, and keeps books: no sample is in two batches at once, each has one outcome.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from asyncline.engine.batching import Batcher


@dataclass(slots=True, eq=False)
class Sample:
    number: int
    ready_at: float = 0.0
    bucket: Hashable = None
    expires_at: float = float("inf")
    priority: int = 1
    rows: int = 1
    cost: float = 1.0
    dead: bool = False
    value: Any = None
    result: Any = None
    outcome: str = ""


def numbers(samples: Iterable[Sample]) -> list[int]:
    return [sample.number for sample in samples]


def poisson(rate: float, samples: int, seed: int = 1) -> Iterator[Sample]:
    """Arrivals at random, `rate` a second on average."""
    chance = random.Random(seed)
    now = 0.0
    for number in range(samples):
        now += chance.expovariate(rate)
        yield Sample(number, now)


class Hang(Exception):
    """Given as what a batch raises: it never ends, and after `after_s` its replica is lost, for as long again."""

    def __init__(self, after_s: float) -> None:
        self.after_s = after_s


@dataclass
class Device:
    """What all replicas are: how long they take, and what comes of a batch."""

    seconds: Callable[[Sequence[Sample]], float]
    gap_s: float = 0.0
    """From closing a batch for an idle replica until it begins."""
    stage_s: float = 0.0
    """From closing a batch behind a running one until it could begin."""
    error: Callable[[Sequence[Sample]], BaseException | None] = lambda samples: None
    """What a batch raises. A MemoryError means that it is too large."""
    answer: Callable[[Sequence[Sample]], None] = lambda samples: None
    """Gives the samples of a batch that is well their results."""


@dataclass
class Simulation:
    """Runs all arrivals to their outcomes: done, failed, late, or what `settle` was told."""

    batcher: Batcher[Sample]
    device: Device
    arrivals: Iterable[Sample]
    timer: Callable[[float, float], float] = lambda at, now: at
    """When a timer that is set for `at` rings, if it is set `now`."""
    on_outcome: Callable[[Sample], Sample | None] = lambda sample: None
    """Called once for each sample; may return another, which arrives when it is ready."""

    now: float = 0.0
    batches: list[int] = field(default_factory=list)
    """Sizes of the batches that ran."""
    latencies: list[float] = field(default_factory=list)
    """Of samples that are done, in seconds."""
    outcomes: Counter[str] = field(default_factory=Counter)

    def run(self) -> Simulation:
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self._queues: dict[int, deque[tuple[list[Sample], float]]] = defaultdict(deque)
        self._out: set[Sample] = set()
        self._rings_at = float("inf")
        self._left = iter(self.arrivals)
        self._await_next()
        while self._events:
            self.now, _, call, args = heapq.heappop(self._events)
            call(*args)
            self._feed()
        assert not len(self.batcher) and not self._out
        return self

    def at(self, time: float, call: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._events, (max(time, self.now), next(self._order), call, args))

    def settle(self, sample: Sample, outcome: str) -> None:
        """The first outcome counts, as an Item's does."""
        if sample.dead:
            return
        sample.dead = True
        sample.outcome = outcome
        self.outcomes[outcome] += 1
        if outcome == "done":
            self.latencies.append(self.now - sample.ready_at)
        if (successor := self.on_outcome(sample)) is not None:
            self.at(successor.ready_at, self.batcher.put, successor)

    def _await_next(self) -> None:
        if (sample := next(self._left, None)) is not None:
            self.at(sample.ready_at, self._arrive, sample)

    def _arrive(self, sample: Sample) -> None:
        self.batcher.put(sample)
        self._await_next()

    def _feed(self) -> None:
        while (feed := self.batcher.feed(self.now)) is not None:
            for sample in feed.late:
                self.settle(sample, "late")
            self._fail(feed.failed)
            if feed.replica is None:
                continue
            assert feed.samples and not any(sample.dead or sample in self._out for sample in feed.samples)
            self._out.update(feed.samples)
            queue = self._queues[feed.replica]
            queue.append((feed.samples, self.now))
            if len(queue) == 1:
                self._begin(feed.replica, self.now + self.device.gap_s)
        at = self.batcher.next_feed_at()
        if at is not None and at < self._rings_at:
            assert at > self.now, f"there was nothing to do at {self.now}, but there is at {at}"
            self._rings_at = self.timer(at, self.now)
            self.at(self._rings_at, self._ring)

    def _ring(self) -> None:
        self._rings_at = float("inf")

    def _begin(self, replica: int, starts_at: float) -> None:
        samples, _ = self._queues[replica][0]
        self.batches.append(len(samples))
        error = self.device.error(samples)
        if isinstance(error, Hang):
            self.at(self.now + error.after_s, self._lose, replica, error)
        else:
            self.at(starts_at + self.device.seconds(samples), self._end, replica, starts_at, error)

    def _end(self, replica: int, started_at: float, error: BaseException | None) -> None:
        queue = self._queues[replica]
        samples, _ = queue.popleft()
        self._out.difference_update(samples)
        if queue:
            self._begin(replica, max(self.now, queue[0][1] + self.device.stage_s))
        if error is None:
            self.device.answer(samples)
            for sample in samples:
                self.settle(sample, "done")
            self._fail(self.batcher.finished(replica, started_at, self.now))
        elif isinstance(error, MemoryError):
            self._fail(self.batcher.out_of_memory(replica, started_at, self.now, error))
        else:
            self._fail(self.batcher.failed(replica, started_at, self.now, error))

    def _lose(self, replica: int, error: Hang) -> None:
        for samples, _ in self._queues.pop(replica):
            self._out.difference_update(samples)
        self._fail(self.batcher.lost(replica, error))
        self.at(self.now + error.after_s, self.batcher.restored, replica)

    def _fail(self, failed: Iterable[tuple[Sequence[Sample], BaseException]]) -> None:
        for samples, _ in failed:
            for sample in samples:
                self.settle(sample, "failed")

    @property
    def mean_s(self) -> float:
        """Mean latency."""
        return sum(self.latencies) / len(self.latencies)

    @property
    def throughput(self) -> float:
        """Samples done in a second."""
        return self.outcomes["done"] / self.now
