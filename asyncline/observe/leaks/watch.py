"""LeakWatch: a sample every 10 s, and an alarm at most once an hour."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asyncline.engine.engine import Engine
from asyncline.observe import stacks
from asyncline.observe.leaks.bundle import Busy, traced, write
from asyncline.observe.leaks.judge import Axis, Finding, judge
from asyncline.observe.leaks.sample import Sample, Samples, count_tasks, take
from asyncline.observe.statistics import Statistics

log = logging.getLogger("asyncline.leaks")

INTERVAL_S = 10
WARM_UP_S = 60.0
KEPT = 90
"""Samples: those of a quarter of an hour."""
MINUTES = Axis("minute", lambda sample: sample.at / 60, most_nbytes=2e6, most_count=1.0)
REQUESTS = Axis("request", lambda sample: sample.requests, most_nbytes=64, most_count=1e-3, least_nbytes=8e6)
"""Finds what leaks little by little, as there are few requests."""
ALARM_S = 3600.0
TRACED_S = 10.0


class LeakWatch:
    """Looks on while the Engine runs; its time is the engine's clock.

    :param folder: of bundles; None: alarms are in the log only.
    :param own_nbytes: what the server fills on purpose, up to a bound: that is no leak.
    :param sample: what the process holds; called in a thread.
    """

    def __init__(
        self,
        engine: Engine,
        statistics: Statistics,
        folder: Path | None,
        own_nbytes: Callable[[], int] = lambda: 0,
        sample: Callable[[float, int, int, Sequence[int], int, int], Sample] = take,
    ) -> None:
        self._engine = engine
        self._statistics = statistics
        self._folder = folder
        self._own_nbytes = own_nbytes
        self._sample = sample
        self._samples = Samples(KEPT)
        self._began_at = engine.clock()
        self._alarmed_at: float | None = None
        self._left_s = 0
        self._reading: asyncio.Task[None] | None = None
        self._closed = threading.Event()
        self.finding: Finding | None = None
        self.last: Sample | None = None

    def tick(self) -> None:
        """To be called every second, on the loop."""
        self._left_s -= 1
        if self._left_s > 0 or (self._reading is not None and not self._reading.done()):
            return
        self._left_s = INTERVAL_S
        self._reading = asyncio.get_running_loop().create_task(self._look(), name="asyncline leak watch")

    async def _look(self) -> None:
        try:
            now = self._engine.clock()
            statistics = self._engine.statistics()
            lanes = statistics.lanes.values()
            pids = [pid for lane in lanes for pid in lane.pids]
            arena = sum(lane.results_nbytes for lane in lanes)
            self._statistics.fold()
            requests = sum(self._statistics.outcomes.values())
            tasks = count_tasks(statistics.in_flight)
            sample = await asyncio.to_thread(self._sample, now, requests, tasks, pids, arena, self._own_nbytes())
            if now - self._began_at < WARM_UP_S:
                return
            self._samples.append(sample)
            self.last = sample
            kept = self._samples.list()
            self.finding = await asyncio.to_thread(judge, kept, MINUTES, REQUESTS)
            if self.finding.is_leak and (self._alarmed_at is None or now - self._alarmed_at >= ALARM_S):
                self._alarmed_at = now
                await self._alarm(self.finding, kept)
        except Exception:
            log.exception("the leak watch failed")

    async def _alarm(self, finding: Finding, samples: Sequence[Sample]) -> None:
        requests = samples[-1].requests - samples[0].requests
        rose = samples[-1].rss - samples[0].rss
        log.warning("leak: %s; %d B in %d requests", finding.text, rose, requests)
        if self._folder is None:
            return
        tasks = stacks.tasks()
        try:
            allocated = await asyncio.to_thread(traced, TRACED_S, self._closed)
        except Busy:
            allocated = "allocations were being traced by somebody else"
        try:
            made = await asyncio.to_thread(write, self._folder, finding, samples, tasks, allocated)
        except OSError as error:
            log.error("leak: what was found cannot be written: %s", error)
        else:
            log.warning("leak: what was found is in %s", made)

    def figures(self) -> dict[str, Any]:
        """To be written as JSON: the finding, the last sample, and how many there are."""
        found = self.finding
        return {
            "kind": "too early" if found is None else found.kind,
            "text": f"too early to say: {len(self._samples)} samples" if found is None else found.text,
            "samples": len(self._samples),
            "last": None if self.last is None else dataclasses.asdict(self.last),
        }

    def close(self) -> None:
        self._closed.set()
        if self._reading is not None:
            self._reading.cancel()
