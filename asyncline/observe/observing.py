"""Observing: all that watches one Engine, put together."""

from __future__ import annotations

import dataclasses
from typing import Any

from asyncline.engine.engine import Engine
from asyncline.observe.figures import Figures
from asyncline.observe.log import Log
from asyncline.observe.prometheus import Metrics
from asyncline.observe.resident import Resident
from asyncline.observe.statistics import Statistics
from asyncline.observe.timeline.chrome import chrome
from asyncline.observe.timeline.recorder import Recorder
from asyncline.observe.tracer import Tracer
from asyncline.observe.usage import Usages
from asyncline.observe.verdict import verdict
from asyncline.observe.windows import LONGEST_S, Windows
from asyncline.settings import DagSettings


class Observing:
    """Counts from the moment it is made; `start` when the Engine is ready."""

    def __init__(self, engine: Engine, settings: DagSettings) -> None:
        self._engine = engine
        self.statistics = Statistics(engine.plan)
        self.usages = Usages(engine, self.statistics)
        self.metrics = Metrics(engine, self.statistics)
        self._resident = Resident()
        self._recorder = Recorder(engine, settings.timeline_mb * 10**6) if settings.timeline_mb else None
        self._windows = Windows(engine, self.statistics)
        self._tracer = None
        if settings.tracer.interval_s > 0:
            self._tracer = Tracer(engine, self.statistics, self._windows, settings.tracer.interval_s)
        for observer in (self.statistics, Log(), self._recorder):
            if observer is not None:
                engine.hooks.add(observer)

    def start(self) -> None:
        """Look at what happens by itself too, such as the loop's lag."""
        if self._recorder is not None:
            self._windows.looks.append(self._gauge)
        self._windows.start()
        if self._tracer is not None:
            self._tracer.start()

    def _gauge(self, lag_s: float) -> None:
        assert self._recorder is not None
        self._recorder.gauge(lag_s, self._resident.nbytes())

    def close(self) -> None:
        if self._tracer is not None:
            self._tracer.close()
        self._windows.close()
        self._resident.close()

    # -- what pages show ------------------------------------------------------------------------------

    def figures(self, seconds: float) -> dict[str, Any]:
        """Of the last so many seconds, with the verdict on them; to be written as JSON."""
        found = self._figures(seconds)
        return {**dataclasses.asdict(found), "qps": found.qps, "success": found.success, "verdict": self._judge(found)}

    def verdict(self, seconds: float) -> str:
        """What limits the server, in one sentence."""
        return self._judge(self._figures(seconds))

    def _figures(self, seconds: float) -> Figures:
        return self._windows.figures(min(seconds, LONGEST_S))

    def _judge(self, figures: Figures) -> str:
        return str(verdict(figures, self._engine.plan))

    def timeline(self, seconds: float) -> dict[str, Any] | None:
        """Chrome's trace of what ended in the last so many seconds; None where nothing is kept."""
        if self._recorder is None:
            return None
        now = self._engine.clock()
        return chrome(self._recorder.records(now - seconds, now))

    def timeline_of(self, data_id: int) -> dict[str, Any] | None:
        """Chrome's trace of one request; None where nothing is kept of it."""
        records = None if self._recorder is None else self._recorder.of(data_id)
        return None if records is None else chrome(records)
