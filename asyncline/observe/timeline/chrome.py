"""Records as Chrome's trace JSON, which chrome://tracing and ui.perfetto.dev open.

    process "requests"   a slice for each request, in as many rows as there were at once; its waits below, by their Op
    process "ops"        a row for each replica: a slice for each batch
                         a row for each worker of a CPU lane, and for the hooks on the event loop: a slice for each hook
    flows                request → preprocess → batch → postprocess, of each request through each Op
    counters             requests in flight, depth of each Channel, lag of the loop, memory

The format: "Trace Event Format" (Google, 2016). Times are in µs of the engine's clock, from the first record.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from asyncline.graph.plan import STAGES
from asyncline.observe.timeline.arrivals import arrivals
from asyncline.observe.timeline.records import BatchRecord, ItemRecord, JobRecord, Records
from asyncline.wire import json

REQUESTS, OPS = 1, 2
_LANES, _LOOP = 1 << 20, 1 << 21
"""Places of their rows: after those of all Ops."""
_INLINE = {"preprocess": 1, "postprocess": 3}
"""Places of inline hooks among the STAGES."""

Event = dict[str, Any]


def chrome(records: Records) -> dict[str, Any]:
    """The trace, to be written as JSON."""
    return {"traceEvents": list(_Trace(records).events()), "displayTimeUnit": "ms"}


def encoded(records: Records) -> bytes:
    """The trace as JSON, an event a line. For a thread: made event by event, so that the loop has its turns."""
    events = b",\n".join([json.encode(event) for event in _Trace(records).events()])
    return b'{"displayTimeUnit":"ms","traceEvents":[\n%b\n]}\n' % events


class _Desks:
    """Rows for what overlaps: each takes the first row that is free."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._busy: list[tuple[float, int]] = []
        self._count = 0

    def take(self, start: float, end: float) -> int:
        """A row from `start` to `end`; to be asked in order of the starts."""
        while self._busy and self._busy[0][0] <= start:
            heapq.heappush(self._free, heapq.heappop(self._busy)[1])
        if self._free:
            row = heapq.heappop(self._free)
        else:
            row = self._count = self._count + 1
        heapq.heappush(self._busy, (end, row))
        return row


class _Trace:
    def __init__(self, records: Records) -> None:
        self._records = records
        self._nodes = records.plan.nodes
        starts = [
            *(item.started_at for item in records.items),
            *(job.ready_at for job in records.jobs),
            *(batch.started_at for batch in records.batches),
            *(gauge.at for gauge in records.gauges),
        ]
        self._zero = min(starts, default=0.0)
        #: Rows of the process "ops", by their order and what they stand for.
        self._rows: dict[tuple[int, str], int] = {}
        #: Those that stand for the same: what overlaps needs several.
        self._desks: dict[str, _Desks] = defaultdict(_Desks)
        #: Hooks on the loop: Op and hook, start, end, data_id.
        self._inline: list[tuple[str, float, float, int]] = []
        #: Slices of each request in their order: row, start, end.
        self._stations: dict[int, list[tuple[int, int, float, float]]] = {}

    def _us(self, at: float) -> float:
        return round((at - self._zero) * 1e6, 3)

    def _row(self, place: int, name: str, start: float, end: float) -> int:
        """A row of that name which is free from `start` to `end`; to be asked in order of the starts.

        :param place: of the name among the rows.
        """
        desk = self._desks[name].take(start, end)
        if desk > 1:
            name = f"{name} ({desk})"  # such as a batch that is staged while another runs
        return self._rows.setdefault((place, name), len(self._rows) + 1)

    def events(self) -> Iterator[Event]:
        yield from self._requests()
        for batch in sorted(self._records.batches, key=lambda batch: batch.started_at):
            yield self._batch(batch)
        for job in sorted(self._records.jobs, key=lambda job: job.started_at):
            yield self._job(job)
        for item in self._records.items:
            yield from self._stages(item)
        for inline in sorted(self._inline, key=lambda inline: inline[1]):
            yield self._on_loop(*inline)
        yield from self._flows()
        yield from self._counters()
        yield from self._names()

    # -- slices -------------------------------------------------------------------------------------

    def _requests(self) -> Iterator[Event]:
        desks = _Desks()
        for item in sorted(self._records.items, key=lambda item: item.started_at):
            row = desks.take(item.started_at, item.ended_at)
            args = {"data_id": item.data_id, "log_id": item.log_id, "outcome": item.code}
            if item.traceparent is not None:
                args["traceparent"] = item.traceparent
            self._stations[item.data_id] = [(REQUESTS, row, item.started_at, item.ended_at)]
            yield self._slice(REQUESTS, row, f"request {item.data_id}", item.started_at, item.ended_at, args)

    def _slice(self, process: int, row: int, name: str, start: float, end: float, args: Event) -> Event:
        return {
            "ph": "X", "pid": process, "tid": row, "name": name, "cat": "op" if process == OPS else "request",
            "ts": self._us(start), "dur": round(max(0.0, end - start) * 1e6, 3), "args": args,
        }  # fmt: skip

    def _batch(self, batch: BatchRecord) -> Event:
        node = self._nodes[batch.op]
        row = self._row(batch.op, f"{node.name} replica {batch.replica}", batch.started_at, batch.ended_at)
        for data_id in dict.fromkeys(batch.data_ids):
            if data_id in self._stations:
                self._stations[data_id].append((OPS, row, batch.started_at, batch.ended_at))
        args = {"rows": batch.rows, "data_ids": list(batch.data_ids), "failed": batch.failed}
        return self._slice(OPS, row, f"{node.name}.process", batch.started_at, batch.ended_at, args)

    def _job(self, job: JobRecord) -> Event:
        node = self._nodes[job.op]
        lane = node.lane(job.hook)
        if lane == "loop":  # async hooks run side by side
            row = self._row(job.op, f"{node.name} async", job.started_at, job.ended_at)
        else:
            row = self._row(_LANES, f"{lane} lane worker {job.worker}", job.started_at, job.ended_at)
        if job.data_id in self._stations:
            self._stations[job.data_id].append((OPS, row, job.started_at, job.ended_at))
        args = {
            "data_id": job.data_id,
            "failed": job.failed,
            "waited_ms": round(1e3 * (job.started_at - job.ready_at), 3),
        }
        return self._slice(OPS, row, f"{node.name}.{job.hook}", job.started_at, job.ended_at, args)

    def _stages(self, item: ItemRecord) -> Iterator[Event]:
        """The waits of a request, and its hooks on the loop: what there is no other record of."""
        arrived = arrivals(self._nodes, item)
        for node in self._nodes:
            at = arrived[node.index]
            if at is None:
                continue
            times = item.times[len(STAGES) * node.index : len(STAGES) * (node.index + 1)]
            if times[0] > 0:
                yield from self._wait(item, f"{node.name} wait", at, at + times[0])
            at += times[0]
            for hook, place in _INLINE.items():
                if node.lane(hook) == "inline" and times[place] > 0:
                    self._inline.append((f"{node.name}.{hook}", at, at + times[place], item.data_id))
                at += times[place]

    def _on_loop(self, name: str, start: float, end: float, data_id: int) -> Event:
        row = self._row(_LOOP, "event loop", start, end)
        if data_id in self._stations:
            self._stations[data_id].append((OPS, row, start, end))
        return self._slice(OPS, row, name, start, end, {"data_id": data_id})

    def _wait(self, item: ItemRecord, name: str, start: float, end: float) -> Iterator[Event]:
        same = {"pid": REQUESTS, "tid": 0, "cat": "wait", "id": item.data_id, "name": name}
        yield {"ph": "b", "ts": self._us(start), **same, "args": {"data_id": item.data_id}}
        yield {"ph": "e", "ts": self._us(end), **same}

    # -- arrows, curves, names ------------------------------------------------------------------------

    def _flows(self) -> Iterator[Event]:
        for data_id, stations in self._stations.items():
            stations.sort(key=lambda station: station[2])
            for number, (process, row, start, end) in enumerate(stations):
                if len(stations) == 1:
                    break
                phase = "s" if number == 0 else "f" if number == len(stations) - 1 else "t"
                middle = start if number == 0 else (start + end) / 2
                event = {
                    "ph": phase, "pid": process, "tid": row, "cat": "flow", "name": "request", "id": data_id,
                    "ts": self._us(middle),
                }  # fmt: skip
                if phase == "f":
                    event["bp"] = "e"
                yield event

    def _counters(self) -> Iterator[Event]:
        for gauge in self._records.gauges:
            depths = {node.name: depth for node, depth in zip(self._nodes, gauge.depths, strict=True)}
            values: list[tuple[str, Event]] = [
                ("in flight", {"requests": gauge.in_flight}),
                ("channel depth", depths),
                ("loop lag", {"ms": round(gauge.lag_s * 1e3, 3)}),
            ]
            if gauge.memory_nbytes:
                values.append(("memory", {"MB": round(gauge.memory_nbytes / 1e6, 1)}))
            for name, args in values:
                yield {"ph": "C", "pid": OPS, "tid": 0, "name": name, "ts": self._us(gauge.at), "args": args}

    def _names(self) -> Iterator[Event]:
        for process, name in ((REQUESTS, "requests"), (OPS, f"ops of {self._records.plan.graph.name}")):
            yield {"ph": "M", "pid": process, "tid": 0, "name": "process_name", "args": {"name": name}}
            yield {"ph": "M", "pid": process, "tid": 0, "name": "process_sort_index", "args": {"sort_index": process}}
        for order, ((_, name), row) in enumerate(sorted(self._rows.items())):
            yield {"ph": "M", "pid": OPS, "tid": row, "name": "thread_name", "args": {"name": name}}
            yield {"ph": "M", "pid": OPS, "tid": row, "name": "thread_sort_index", "args": {"sort_index": order}}
        for row in sorted({stations[0][1] for stations in self._stations.values()}):
            yield {"ph": "M", "pid": REQUESTS, "tid": row, "name": "thread_name", "args": {"name": f"requests {row}"}}
