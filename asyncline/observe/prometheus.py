"""`/metrics`: the Statistics for Prometheus, rendered when asked, free until then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from asyncline.engine.engine import Engine, EngineStatistics
from asyncline.observe.devices import Devices
from asyncline.observe.figures import Figures
from asyncline.observe.histogram import Histogram
from asyncline.observe.leaks.watch import LeakWatch
from asyncline.observe.logs.logs import Logs
from asyncline.observe.otel.export import Export
from asyncline.observe.statistics import Statistics, Traced
from asyncline.observe.windows import Windows

WINDOW_S = 10
"""Of the shares of time."""
OUTCOMES = dict.fromkeys(("ok", "op_error", "worker_crashed", "unavailable", "deadline"), 0)
REASONS = dict.fromkeys(("overloaded", "unavailable"), 0)
CONNECTIONS = {(wire, reason): 0 for wire in ("rest", "grpc", "tcp") for reason in ("connections", "peer")}
"""There from the first page on: of a series that begins above 0, Prometheus never sees the first increase."""


class Metrics:
    """Renders what `statistics` counted of `engine`, and its state now.

    :param windows: for what is a share of time.
    :param logs: say which lines they left out.
    """

    def __init__(
        self, engine: Engine, statistics: Statistics, windows: Windows | None = None, logs: Logs | None = None
    ) -> None:
        self._engine = engine
        self._logs = logs
        #: Where there is one: what it saw last is told too.
        self.leaks: LeakWatch | None = None
        #: Likewise: what became of its spans.
        self.export: Export | None = None
        self._statistics = statistics
        self._windows = windows
        self._devices = Devices(engine.plan)
        self._process = ProcessCollector(registry=None)

    async def render(self, accept: str | None = None) -> tuple[bytes, str]:
        """The page and its type: OpenMetrics where the header `accept` has it, else Prometheus's text format."""
        counted = list(self.collect())
        write: Callable[[Any], bytes] = generate_latest
        kind = CONTENT_TYPE_LATEST
        if accept is not None and "application/openmetrics-text" in accept:
            write, kind = openmetrics.generate_latest, openmetrics.CONTENT_TYPE_LATEST
        # In a thread: the process's numbers are read from files, and those of devices from their driver.
        return await asyncio.to_thread(self._write, counted, write), kind

    def _write(self, counted: list[Metric], write: Callable[[Any], bytes]) -> bytes:
        registry = CollectorRegistry()
        registry.register(_Collected([*counted, *self._process.collect(), *self._devices.collect()]))
        return bytes(write(registry))

    def collect(self) -> Iterator[Metric]:
        self._statistics.fold()
        yield from self._requests()
        yield from self._ops()
        yield from self._connections()
        yield from self._state()
        yield from self._watched()

    def _requests(self) -> Iterator[Metric]:
        counted = self._statistics
        outcomes = CounterMetricFamily("asyncline_requests", "Requests that had an outcome, by code.", labels=["code"])
        for code, count in {**OUTCOMES, **counted.outcomes}.items():
            outcomes.add_metric([code], count)
        yield outcomes
        rejected = CounterMetricFamily("asyncline_rejected", "Requests refused at the door.", labels=["reason"])
        for reason, count in {**REASONS, **counted.rejections}.items():
            rejected.add_metric([reason], count)
        yield rejected
        seconds = HistogramMetricFamily("asyncline_request_seconds", "Time from admission to outcome.")
        _add(seconds, [], counted.request_seconds, counted.exemplars)
        yield seconds
        if counted.first_part_seconds is not None:
            first = HistogramMetricFamily(
                "asyncline_first_part_seconds", "Time from admission to the first part of a streamed answer."
            )
            _add(first, [], counted.first_part_seconds)
            yield first

    def _ops(self) -> Iterator[Metric]:
        seconds = HistogramMetricFamily(
            "asyncline_op_seconds", "Time of a request at an Op, by stage.", labels=["op", "stage"]
        )
        errors = CounterMetricFamily("asyncline_op_errors", "Requests that an Op failed.", labels=["op", "code"])
        size = HistogramMetricFamily("asyncline_batch_size", "Rows in a batch.", labels=["op"])
        run = HistogramMetricFamily("asyncline_batch_seconds", "Time of a batch in process().", labels=["op"])
        counted = self._statistics
        for (name, stage), histogram in counted.op_seconds.items():
            _add(seconds, [name, stage], histogram)
        for (name, code), count in counted.op_errors.items():
            errors.add_metric([name, code], count)
        for name, histogram in counted.batch_sizes.items():
            _add(size, [name], histogram)
        for name, histogram in counted.batch_seconds.items():
            _add(run, [name], histogram)
        yield from (seconds, errors, size, run)

    def _connections(self) -> Iterator[Metric]:
        counted = self._statistics
        is_open = GaugeMetricFamily("asyncline_connections", "Connections that are open.", labels=["wire"])
        for wire, count in counted.connections.items():
            is_open.add_metric([wire], count)
        ends = [
            ("closed", "Connections that have ended, by why.", counted.connections_closed),
            (
                "refused",
                "Connections that were not let in, by the limit that they were over.",
                {**CONNECTIONS, **counted.connections_refused},
            ),
        ]
        yield is_open
        for what, about, counts in ends:
            family = CounterMetricFamily(f"asyncline_connections_{what}", about, labels=["wire", "reason"])
            for labels, count in counts.items():
                family.add_metric(list(labels), count)
            yield family

    def _watched(self) -> Iterator[Metric]:
        sample = None if self.leaks is None else self.leaks.last
        if self.leaks is None or sample is None:
            return
        for name, about, value in (
            (
                "proportional_bytes",
                "Memory of the server's process, with its part only of what processes share.",
                sample.pss,
            ),
            ("malloc_used_bytes", "Native memory in use.", sample.malloc_used),
            ("malloc_free_bytes", "Native memory kept for later, or in fragments.", sample.malloc_free),
            ("uncollected_objects", "Objects that the garbage collector could not free.", sample.uncollected),
            ("workers_own_bytes", "Memory that processes of the CPU pool share with nobody.", sample.workers_rss),
            ("tasks", "Tasks of asyncio beside those of requests.", sample.tasks),
            ("threads", "Threads of the server's process.", sample.threads),
            ("memory_blocks", "Memory blocks of Python's allocators.", sample.blocks),
        ):
            yield GaugeMetricFamily(f"asyncline_{name}", about, value=value)
        leaking = self.leaks.finding is not None and self.leaks.finding.is_leak
        yield GaugeMetricFamily("asyncline_leak", "1 while the leak watch finds a leak.", value=float(leaking))

    def _state(self) -> Iterator[Metric]:
        now = self._engine.statistics()
        yield GaugeMetricFamily("asyncline_in_flight", "Requests in flight.", value=now.in_flight)
        yield GaugeMetricFamily("asyncline_in_flight_limit", "Requests that may be.", value=now.max_in_flight)
        yield GaugeMetricFamily("asyncline_in_flight_bytes", "Request bytes in flight.", value=now.nbytes)
        ready = float(self._engine.problem() is None)
        yield GaugeMetricFamily("asyncline_ready", "1 while requests are served.", value=ready)
        depth = GaugeMetricFamily("asyncline_channel_depth", "Items waiting in front of an Op.", labels=["op"])
        size = GaugeMetricFamily("asyncline_channel_size", "Items that may wait in front of an Op.", labels=["op"])
        for name, channel in now.channels.items():
            depth.add_metric([name], channel.depth)
            size.add_metric([name], channel.size)
        yield from (depth, size)
        yield from self._lanes(now)
        yield from self._troubles()
        if self._windows is not None and self._windows.has_begun:
            yield self._utilisation(self._windows.figures(WINDOW_S))

    def _lanes(self, now: EngineStatistics) -> Iterator[Metric]:
        alive = GaugeMetricFamily("asyncline_lane_workers", "Workers of a CPU lane that are alive.", labels=["lane"])
        running = GaugeMetricFamily("asyncline_lane_running", "Hooks running in a lane.", labels=["lane"])
        waiting = GaugeMetricFamily("asyncline_lane_waiting", "Hooks waiting for a worker of a lane.", labels=["lane"])
        replaced = CounterMetricFamily(
            "asyncline_lane_workers_replaced", "Workers of a CPU lane that were started again.", labels=["lane"]
        )
        shared = GaugeMetricFamily(
            "asyncline_shared_memory_bytes", "Memory that the pool's processes share, by what is in it.", labels=["use"]
        )
        limit = GaugeMetricFamily("asyncline_shared_memory_limit_bytes", "Most of it.", labels=["use"])
        for name, lane in now.lanes.items():
            alive.add_metric([name], lane.alive)
            running.add_metric([name], lane.running)
            waiting.add_metric([name], lane.waiting)
            replaced.add_metric([name], lane.replaced)
            if lane.shared_max_nbytes:
                shared.add_metric(["arguments"], lane.arguments_nbytes)
                shared.add_metric(["results"], lane.results_nbytes)
                limit.add_metric(["arguments"], lane.shared_max_nbytes)
                limit.add_metric(["results"], lane.shared_max_nbytes)
        yield from (alive, running, waiting, replaced, shared, limit)
        hooks = CounterMetricFamily("asyncline_hook_seconds", "Time of hooks in lanes.", labels=["op", "hook"])
        for (op, hook), seconds in self._statistics.job_seconds.items():
            hooks.add_metric([op, hook], seconds)
        yield hooks

    def _utilisation(self, figures: Figures) -> Metric:
        busy = GaugeMetricFamily(
            "asyncline_op_utilisation_ratio",
            f"Share of the last {WINDOW_S} s in which an Op's replicas, or workers, were busy with it.",
            labels=["op"],
        )
        for op in figures.ops:
            busy.add_metric([op.name], 1.0 - op.idle)
        return busy

    def _troubles(self) -> Iterator[Metric]:
        lag = HistogramMetricFamily("asyncline_loop_lag_seconds", "Delay of the event loop, ten times a second.")
        _add(lag, [], self._statistics.loop_lag)
        yield lag
        killed = self._statistics.workers_lost
        yield CounterMetricFamily("asyncline_workers_lost", "Pool processes that died or were killed.", value=killed)
        if self._logs is not None:
            left_out = CounterMetricFamily(
                "asyncline_log_lines_left_out", "Log lines that were not written, by why.", labels=["reason"]
            )
            for reason, count in self._logs.left_out.items():
                left_out.add_metric([reason], count)
            yield left_out
        if self.export is not None:
            yield CounterMetricFamily(
                "asyncline_otel_spans", "Spans that the collector has taken.", value=self.export.sender.exported
            )
            lost = CounterMetricFamily(
                "asyncline_otel_requests_lost",
                "Requests without spans: overwritten in the timeline, over the limit, or not taken by the collector.",
                labels=["reason"],
            )
            for reason, count in self.export.sender.lost.items():
                lost.add_metric([reason], count)
            yield lost
        blocked = self._statistics.blockages
        hung = self._statistics.hangs
        yield CounterMetricFamily("asyncline_replicas_hung", "Replicas that did not come out of process().", value=hung)
        yield CounterMetricFamily("asyncline_loop_blocked", "Times that a hook blocked the event loop.", value=blocked)


class _Collected(Collector):
    """Families that are there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _add(
    family: HistogramMetricFamily,
    labels: list[str],
    histogram: Histogram,
    exemplars: Mapping[int, Traced] = MappingProxyType({}),
) -> None:
    """:param exemplars: by the place of their bucket."""
    bounds = [*map(str, histogram.bounds.tolist()), "+Inf"]
    counts = histogram.counts.cumsum().tolist()
    buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    for place, (bound, count) in enumerate(zip(bounds, counts, strict=True)):
        found = exemplars.get(place)
        if found is None:
            buckets.append((bound, count))
        else:
            # In full milliseconds: longer fractions than that are another number to some readers.
            buckets.append((bound, count, Exemplar({"trace_id": found.trace_id}, found.seconds, round(found.at, 3))))
    family.add_metric(labels, buckets, histogram.sum)
