"""Observing: all that watches one Engine, put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from asyncline.engine.engine import Engine
from asyncline.errors import SettingsError
from asyncline.observe.admin import Admin
from asyncline.observe.figures import Figures
from asyncline.observe.leaks.watch import LeakWatch
from asyncline.observe.live import Live
from asyncline.observe.log import Log
from asyncline.observe.logs.access import AccessLog
from asyncline.observe.logs.logs import Logs
from asyncline.observe.otel.export import Export
from asyncline.observe.prometheus import Metrics
from asyncline.observe.resident import resident_nbytes
from asyncline.observe.statistics import Statistics
from asyncline.observe.timeline.captures import Captures
from asyncline.observe.timeline.chrome import encoded
from asyncline.observe.timeline.recorder import Recorder
from asyncline.observe.tracer import Tracer
from asyncline.observe.usage import Usages
from asyncline.observe.verdict import verdict
from asyncline.observe.windows import LONGEST_S, Windows
from asyncline.settings import Settings

MEMORY_EVERY = 10
"""Looks from one at the memory to the next: it takes longer than all else of a look."""


class Observing:
    """Counts from the moment it is made; `start` when the Engine is ready."""

    def __init__(self, engine: Engine, settings: Settings, logs: Logs | None = None) -> None:
        """:raises SettingsError: traces are to be kept of nothing, or cannot be written or exported."""
        dag, service = settings.dag, settings.service
        self._engine = engine
        self.statistics = Statistics(engine)
        self.usages = Usages(engine, self.statistics)
        self._recorder = Recorder(engine, self.statistics, dag.timeline_mb * 10**6) if dag.timeline_mb else None
        self._looks = 0
        self._captures = None
        if service.trace_slow_ms is not None or service.trace_errors:
            if self._recorder is None:
                raise SettingsError("trace_slow_ms and trace_errors take what the timeline has: dag.timeline_mb is 0")
            self._captures = Captures(engine, self._recorder, service)
        self._windows = Windows(engine, self.statistics)
        self.metrics = Metrics(engine, self.statistics, self._windows, logs)
        self._live = Live(engine, self.statistics, self._windows)
        self._tracer = None
        if dag.tracer.interval_s > 0:
            self._tracer = Tracer(engine, self.statistics, self._windows, dag.tracer.interval_s)
        self._access = None
        if logs is not None and service.access_log:
            self._access = AccessLog(logs, engine.graph.name, service.log_format)
            self._windows.looks.append(self._access.hand_over)
        for observer in (self.statistics, Log(), self._recorder, self._captures, self._access):
            if observer is not None:
                engine.hooks.add(observer)

        self._leaks = None
        if dag.leak_watch:
            recorder = self._recorder
            own = (lambda: recorder.nbytes) if recorder is not None else (lambda: 0)
            self._leaks = LeakWatch(engine, self.statistics, service.log_dir, own)
        self.metrics.leaks = self._leaks
        self._export = None
        if service.otel_endpoint is not None:
            self._export = self.metrics.export = Export(engine, self._recorder, self.statistics, service)
        self.admin = Admin(engine, settings, logs, self._leaks)

    def start(self) -> None:
        """Look at what happens by itself too, such as the loop's lag."""
        self._windows.looks.append(self.statistics.note_lag)
        if self._recorder is not None:
            self._windows.looks.append(self._gauge)
        if self._leaks is not None:
            self._windows.listeners.append(self._leaks.tick)
        if self._export is not None:
            self._windows.listeners.append(self._export.tick)
            self._export.start()
        self._windows.start()
        if self._tracer is not None:
            self._tracer.start()

    def _gauge(self, lag_s: float) -> None:
        assert self._recorder is not None
        self._recorder.gauge(lag_s, 0 if self._looks % MEMORY_EVERY else resident_nbytes())
        self._looks += 1

    def close(self) -> None:
        if self._tracer is not None:
            self._tracer.close()
        if self._captures is not None:
            self._captures.close()
        self._windows.close()
        if self._export is not None:
            self._export.close()
        if self._leaks is not None:
            self._leaks.close()
        self.admin.close()
        if self._access is not None:
            self._access.hand_over()

    async def wait_closed(self) -> None:
        """Wait until what is exported has been taken, within a bound."""
        if self._export is not None:
            await self._export.wait_closed()

    # -- what pages show ------------------------------------------------------------------------------

    def figures(self, seconds: float) -> dict[str, Any]:
        """Of the last so many seconds, with the verdict on them; to be written as JSON."""
        found = self._figures(seconds)
        return {**dataclasses.asdict(found), "qps": found.qps, "success": found.success, "verdict": self._judge(found)}

    def watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` each second, when there are new figures; returns what ends that."""
        self._windows.listeners.append(listener)
        return lambda: self._windows.listeners.remove(listener)

    def graph(self) -> dict[str, Any]:
        """What of the dashboard does not change; to be written as JSON."""
        return self._live.graph()

    def now(self) -> dict[str, Any]:
        """What of the dashboard is new each second; to be written as JSON."""
        return self._live.now()

    def verdict(self, seconds: float) -> str:
        """What limits the server, in one sentence."""
        return self._judge(self._figures(seconds))

    def _figures(self, seconds: float) -> Figures:
        return self._windows.figures(min(seconds, LONGEST_S))

    def _judge(self, figures: Figures) -> str:
        return str(verdict(figures, self._engine.plan))

    def timeline(self, seconds: float) -> Callable[[], bytes] | None:
        """What ended in the last so many seconds; None where nothing is kept.

        Call what it returns in a thread: it makes the JSON of Chrome's trace.
        """
        if self._recorder is None:
            return None
        now, kept = self._engine.clock(), self._recorder.records()
        return lambda: encoded(kept.between(now - seconds, now))

    def timeline_of(self, data_id: int) -> Callable[[], bytes | None] | None:
        """The same of one request; what it returns makes None where nothing is kept of that."""
        if self._recorder is None:
            return None
        kept = self._recorder.records()

        def make() -> bytes | None:
            found = kept.of(data_id)
            return encoded(found) if found else None

        return make
