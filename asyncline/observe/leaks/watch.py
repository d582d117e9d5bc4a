"""LeakWatch: a sample every 10 s, and an alarm at most once an hour."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from collections import deque
from pathlib import Path
from typing import Any

from asyncline.engine.engine import Engine
from asyncline.observe import stacks
from asyncline.observe.leaks.bundle import Busy, traced, write
from asyncline.observe.leaks.judge import Finding, judge
from asyncline.observe.leaks.sample import Sample, count_tasks, take
from asyncline.observe.statistics import Statistics

log = logging.getLogger("asyncline.leaks")

INTERVAL_S = 10
WARM_UP_S = 60.0
KEPT = 90
"""Samples: those of a quarter of an hour."""
MOST_NBYTES = 2_000_000.0
"""Bytes a minute that memory may grow by."""
MOST_COUNT = 1.0
"""Tasks, descriptors or threads a minute that may be added."""
ALARM_S = 3600.0
TRACED_S = 10.0


class LeakWatch:
    """Looks on while the Engine runs.

    :param folder: of bundles; None: alarms are in the log only.
    """

    def __init__(self, engine: Engine, statistics: Statistics, folder: Path | None) -> None:
        self._engine = engine
        self._statistics = statistics
        self._folder = folder
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._began_at = engine.clock()
        self._alarmed_at: float | None = None
        self._left_s = 0
        self._reading: asyncio.Task[None] | None = None
        self._closed = threading.Event()
        self.finding: Finding | None = None

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
            pids = [pid for lane in statistics.lanes.values() for pid in lane.pids]
            self._statistics.fold()
            requests = sum(self._statistics.outcomes.values())
            sample = await asyncio.to_thread(take, now, requests, count_tasks(statistics.in_flight), pids)
            if now - self._began_at < WARM_UP_S:
                return
            self._samples.append(sample)
            kept = tuple(self._samples)
            minutes = [sample.at / 60 for sample in kept]
            self.finding = await asyncio.to_thread(judge, minutes, kept, "minute", MOST_NBYTES, MOST_COUNT)
            if self.finding.is_leak and (self._alarmed_at is None or now - self._alarmed_at >= ALARM_S):
                self._alarmed_at = now
                await self._alarm(self.finding, kept)
        except Exception:
            log.exception("the leak watch failed")

    async def _alarm(self, finding: Finding, samples: tuple[Sample, ...]) -> None:
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
            "last": dataclasses.asdict(self._samples[-1]) if self._samples else None,
        }

    @property
    def last(self) -> Sample | None:
        return self._samples[-1] if self._samples else None

    def close(self) -> None:
        self._closed.set()
        if self._reading is not None:
            self._reading.cancel()
