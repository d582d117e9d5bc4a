"""Maker: what the timeline has kept, as spans of OpenTelemetry's SDK. The only module that imports it.

<graph>        SERVER    a request: asyncline.data_id, asyncline.log_id, error.type
<op>           INTERNAL  a request at an Op: asyncline.op, seconds of its stages; an event where a hook began
<op>.process   INTERNAL  a batch: asyncline.op, asyncline.replica, asyncline.batch.rows; links to its requests' Ops
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from asyncline.graph.plan import STAGES, Node, Plan
from asyncline.observe.otel.fresh import Taken
from asyncline.observe.otel.ids import Ids, Span
from asyncline.observe.timeline.arrivals import arrivals
from asyncline.observe.timeline.records import BatchRecord, ItemRecord, JobRecord

CLIENTS_FAULT = frozenset({"bad_request", "bad_image", "cancelled", "product", "url_forbidden", "fetch_failed"})
"""Errors that say nothing against this server: by the conventions its span is no error then."""
__all__ = ["Maker", "OTLPSpanExporter", "resource"]
_HOOKS = {"preprocess": 1, "process": 2, "postprocess": 3}
"""Places among the STAGES."""
_ERROR = Status(StatusCode.ERROR)
_OK = Status()
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def resource(graph_name: str, instance: str, version: str) -> Resource:
    """What the spans are of: the graph, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES name another service."""
    named = Resource.create(
        {
            SERVICE_INSTANCE_ID: instance,
            "telemetry.distro.name": "asyncline",
            "telemetry.distro.version": version,
        }
    )
    if str(named.attributes[SERVICE_NAME]).startswith("unknown_service"):
        named = named.merge(Resource({SERVICE_NAME: graph_name}))
    return named


class Maker:
    """Makes spans with the ids that the Engine has handed on."""

    def __init__(self, plan: Plan, ids: Ids, of: Resource, version: str) -> None:
        self._name = plan.graph.name
        self._nodes = plan.nodes
        self._ids = ids
        self._resource = of
        self._scope = InstrumentationScope("asyncline", version)

    def make(
        self, taken: Taken, items: list[ItemRecord], batches: list[BatchRecord]
    ) -> Iterator[tuple[int, list[ReadableSpan]]]:
        """For each request, then for each batch of one: how many requests that is, and their spans.

        :param items: of the requests to make spans of, which are sampled.
        :param batches: likewise; those of other requests are left out.
        """
        self._zero_ns = taken.unix_ns - int(taken.at * 1e9)
        jobs, joined = _work_of(taken, items)
        for item in items:
            yield 1, self._request(item, jobs[item.data_id], joined[item.data_id])
        contexts = {**taken.contexts, **{item.data_id: item.traceparent for item in items}}
        for batch in batches:
            if (span := self._batch(batch, contexts)) is not None:
                yield 0, [span]

    def _request(self, item: ItemRecord, jobs: list[JobRecord], batches: list[BatchRecord]) -> list[ReadableSpan]:
        span = self._ids.request(item.data_id, item.traceparent)
        attributes: dict[str, Any] = {"asyncline.data_id": item.data_id}
        if item.log_id:
            attributes["asyncline.log_id"] = item.log_id
        status = _OK
        if item.code != "ok":
            attributes["error.type"] = item.code
            status = _OK if item.code in CLIENTS_FAULT else _ERROR
        times = item.started_at, item.ended_at
        spans = [self._span(self._name, span, times, attributes, kind=SpanKind.SERVER, status=status)]
        for node, came in zip(self._nodes, arrivals(self._nodes, item), strict=True):
            if came is not None and any(_times(item, node)):  # where it ended early, it may not have come there
                at = self._ids.op(item.data_id, span, node.index)
                spans.append(
                    self._op(
                        node, came, item, at,
                        [job for job in jobs if job.op == node.index],
                        [batch for batch in batches if batch.op == node.index],
                    )
                )  # fmt: skip
        return spans

    def _op(
        self, node: Node, came: float, item: ItemRecord, at: Span, jobs: list[JobRecord], batches: list[BatchRecord]
    ) -> ReadableSpan:
        times = _times(item, node)
        attributes: dict[str, Any] = {"asyncline.op": node.name, "asyncline.wait_s": float(times[0])}
        events = []
        began = came + times[0]
        for hook, place in _HOOKS.items():
            if times[place] > 0:
                attributes[f"asyncline.{hook}_s"] = float(times[place])
                if node.lane(hook) == "inline":
                    events.append(self._event(hook, began))
            began += times[place]
        events += [self._event(job.hook, job.started_at, {"asyncline.worker": job.worker}) for job in jobs]
        links = []
        for batch in batches:
            about = {"asyncline.replica": batch.replica, "asyncline.batch.rows": batch.rows}
            events.append(self._event("process", batch.started_at, about))
            if not _is_lone(batch):
                span = self._ids.batch(batch.op, batch.replica, batch.started_at, None, is_sampled=True)
                links.append(Link(_context(span)))
        events.sort(key=lambda event: event.timestamp)
        failed = any(job.failed for job in jobs) or any(batch.failed for batch in batches)
        return self._span(
            node.name, at, (came, min(item.ended_at, came + sum(times))), attributes,
            events=events, links=links, status=_ERROR if failed else _OK,
        )  # fmt: skip

    def _batch(self, batch: BatchRecord, contexts: dict[int, str | None]) -> ReadableSpan | None:
        ids = self._ids
        known = [(data_id, contexts[data_id]) for data_id in dict.fromkeys(batch.data_ids) if data_id in contexts]
        ops = [
            ids.op(data_id, ids.request(data_id, traceparent), batch.op)
            for data_id, traceparent in known
            if ids.is_sampled(data_id, traceparent)
        ]
        if not ops:
            return None
        lone = ops[0] if _is_lone(batch) else None
        span = ids.batch(batch.op, batch.replica, batch.started_at, lone, is_sampled=True)
        name = self._nodes[batch.op].name
        attributes = {"asyncline.op": name, "asyncline.replica": batch.replica, "asyncline.batch.rows": batch.rows}
        return self._span(
            f"{name}.process", span, (batch.started_at, batch.ended_at), attributes,
            links=[Link(_context(op)) for op in ops], status=_ERROR if batch.failed else _OK,
        )  # fmt: skip

    def _span(
        self,
        name: str,
        span: Span,
        times: tuple[float, float],
        attributes: dict[str, Any],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        status: Status,
        events: Iterable[Event] = (),
        links: Iterable[Link] = (),
    ) -> ReadableSpan:
        parent = None
        if span.parent_id is not None:
            parent = SpanContext(span.trace_id, span.parent_id, span.is_remote, _SAMPLED)
        return ReadableSpan(
            name, _context(span), parent, attributes=attributes, events=tuple(events), links=tuple(links), kind=kind,
            status=status, start_time=self._ns(times[0]), end_time=self._ns(times[1]), resource=self._resource,
            instrumentation_scope=self._scope,
        )  # fmt: skip

    def _event(self, name: str, at: float, attributes: dict[str, Any] | None = None) -> Event:
        return Event(name, attributes, self._ns(at))

    def _ns(self, at: float) -> int:
        return self._zero_ns + int(at * 1e9)


def _context(span: Span) -> SpanContext:
    return SpanContext(span.trace_id, span.span_id, False, _SAMPLED)


def _times(item: ItemRecord, node: Node) -> list[float]:
    """Its seconds at an Op, by stage."""
    return item.times[len(STAGES) * node.index : len(STAGES) * (node.index + 1)]


def _is_lone(batch: BatchRecord) -> bool:
    return len(set(batch.data_ids)) == 1


def _work_of(taken: Taken, items: list[ItemRecord]) -> tuple[dict[int, list[JobRecord]], dict[int, list[BatchRecord]]]:
    """The hooks and the batches of each of `items`, by data_id."""
    jobs: dict[int, list[JobRecord]] = defaultdict(list)
    batches: dict[int, list[BatchRecord]] = defaultdict(list)
    if items:
        wanted = {item.data_id for item in items}
        for job in taken.records.jobs_of(wanted):
            jobs[job.data_id].append(job)
        for batch in taken.records.batches:
            for data_id in wanted.intersection(batch.data_ids):
                batches[data_id].append(batch)
    return jobs, batches
