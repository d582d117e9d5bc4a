"""`/metrics`: the Statistics in Prometheus's text format, rendered when asked, free until then."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from asyncline.engine.engine import Engine
from asyncline.observe.histogram import Histogram
from asyncline.observe.logs.logs import Logs
from asyncline.observe.statistics import Statistics


class Metrics(Collector):
    """Renders what `statistics` counted of `engine`, and its state now."""

    def __init__(self, engine: Engine, statistics: Statistics, logs: Logs | None = None) -> None:
        self._engine = engine
        self._logs = logs
        self._statistics = statistics
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def render(self) -> bytes:
        return bytes(generate_latest(self._registry))

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        self._statistics.fold()
        yield from self._requests()
        yield from self._ops()
        yield from self._connections()
        yield from self._state()

    def _requests(self) -> Iterator[Metric]:
        counted = self._statistics
        outcomes = CounterMetricFamily("asyncline_requests", "Requests that had an outcome, by code.", labels=["code"])
        for code, count in counted.outcomes.items():
            outcomes.add_metric([code], count)
        yield outcomes
        rejected = CounterMetricFamily("asyncline_rejected", "Requests refused at the door.", labels=["reason"])
        for reason, count in counted.rejections.items():
            rejected.add_metric([reason], count)
        yield rejected
        seconds = HistogramMetricFamily("asyncline_request_seconds", "Time from admission to outcome.")
        _add(seconds, [], counted.request_seconds)
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
                counted.connections_refused,
            ),
        ]
        yield is_open
        for what, about, counts in ends:
            family = CounterMetricFamily(f"asyncline_connections_{what}", about, labels=["wire", "reason"])
            for labels, count in counts.items():
                family.add_metric(list(labels), count)
            yield family

    def _state(self) -> Iterator[Metric]:
        now = self._engine.statistics()
        yield GaugeMetricFamily("asyncline_in_flight", "Requests in flight.", value=now.in_flight)
        yield GaugeMetricFamily("asyncline_in_flight_bytes", "Request bytes in flight.", value=now.nbytes)
        ready = float(self._engine.problem() is None)
        yield GaugeMetricFamily("asyncline_ready", "1 while requests are served.", value=ready)
        depth = GaugeMetricFamily("asyncline_channel_depth", "Items waiting in front of an Op.", labels=["op"])
        for name, channel in now.channels.items():
            depth.add_metric([name], channel.depth)
        yield depth
        alive = GaugeMetricFamily("asyncline_lane_workers", "Workers of a CPU lane that are alive.", labels=["lane"])
        running = GaugeMetricFamily("asyncline_lane_running", "Hooks running in a lane.", labels=["lane"])
        waiting = GaugeMetricFamily("asyncline_lane_waiting", "Hooks waiting for a worker of a lane.", labels=["lane"])
        for name, lane in now.lanes.items():
            alive.add_metric([name], lane.alive)
            running.add_metric([name], lane.running)
            waiting.add_metric([name], lane.waiting)
        yield from (alive, running, waiting)
        lost = self._statistics.workers_lost
        yield CounterMetricFamily("asyncline_workers_lost", "Pool processes that died or were killed.", value=lost)
        if self._logs is not None:
            left_out = CounterMetricFamily(
                "asyncline_log_lines_left_out", "Log lines that were not written, by why.", labels=["reason"]
            )
            for reason, count in self._logs.left_out.items():
                left_out.add_metric([reason], count)
            yield left_out
        blocked = self._statistics.blockages
        hung = self._statistics.hangs
        yield CounterMetricFamily("asyncline_replicas_hung", "Replicas that did not come out of process().", value=hung)
        yield CounterMetricFamily("asyncline_loop_blocked", "Times that a hook blocked the event loop.", value=blocked)


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    bounds = [*map(str, histogram.bounds.tolist()), "+Inf"]
    counts = histogram.counts.cumsum().tolist()
    family.add_metric(labels, list(zip(bounds, counts, strict=True)), histogram.sum)
