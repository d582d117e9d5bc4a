"""Spans of what has run, on a virtual clock, as OpenTelemetry's SDK hands them on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from asyncline import Graph, Op, ProductError, Request, context, op
from asyncline.observe.otel import sender
from asyncline.observe.otel.export import take
from asyncline.observe.otel.fresh import Taken
from asyncline.observe.otel.ids import Ids
from asyncline.observe.otel.sender import Sender
from asyncline.observe.statistics import Statistics
from asyncline.observe.timeline.recorder import Recorder
from asyncline.settings import ServiceSettings, Source, merge
from asyncline.testing import SimulatedLanes, run_virtual, virtual_engine

TRACES = ["0af7651916cd43dd8448eb211c80319c", "1bf7651916cd43dd8448eb211c80319d"]
PARENTS = ["b7ad6b7169203331", "c7ad6b7169203332"]
CALLERS = [f"00-{trace}-{parent}-01" for trace, parent in zip(TRACES, PARENTS, strict=True)]


class Get(Op):
    async def preprocess(self, x: Any) -> Any:
        await asyncio.sleep(0.05)
        return x


class Net(Op):
    cpu = "thread"
    batch_size = 4

    def preprocess(self, x: Any) -> Any:
        if x == "bad":
            raise ProductError("bad", "no")
        return x

    def process(self, batch: list[Any]) -> list[Any]:
        if "broken" in batch:
            raise RuntimeError("broken")
        return batch

    def postprocess(self, result: Any, x: Any) -> Any:
        return result


class After(Op):
    async def preprocess(self, x: Any) -> Any:
        await asyncio.sleep(0.01)
        return x


SECONDS = {("net", "preprocess"): 0.1, ("net", "process"): 0.4, ("net", "postprocess"): 0.05}
Requests = list[tuple[Any, str | None]]


def exported(
    requests: Requests, *, ratio: float = 1.0, timeline_nbytes: int = 10**6, graph: Callable[[], Graph] | None = None
) -> tuple[list[ReadableSpan], Sender]:
    """Run them at once, and export: the spans, and who exported them."""

    async def main() -> tuple[Taken, Sender, InMemorySpanExporter]:
        made = graph() if graph is not None else Graph("g", After(Net(Get(Request()))))
        code = {op.name: op.code_settings for op in made.ops}
        settings = merge("g", code, Source("test", {"dag": {"fuse": False}}))
        lanes = SimulatedLanes(lambda op, hook, size: SECONDS[op, hook])
        memory = InMemorySpanExporter()
        async with virtual_engine(made, lanes, settings) as engine:
            statistics = Statistics(engine)
            recorder = Recorder(engine, statistics, timeline_nbytes)
            engine.hooks.add(statistics)
            engine.hooks.add(recorder)
            service = ServiceSettings(otel_endpoint="http://127.0.0.1:1")
            engine.spans = ids = Ids(ratio)
            found = Sender(engine.plan, ids, service, memory)
            items = [engine.begin(payload, log_id=f"log {payload}", traceparent=of) for payload, of in requests]
            await asyncio.gather(*(item.wait() for item in items))
            taken = take(engine, recorder, statistics)
        return taken, found, memory

    taken, found, memory = run_virtual(main())
    found.send(taken)
    found.close()
    return list(memory.get_finished_spans()), found


def named(spans: list[ReadableSpan], name: str) -> list[ReadableSpan]:
    return [span for span in spans if span.name == name]


def one(spans: list[ReadableSpan], name: str) -> ReadableSpan:
    (found,) = named(spans, name)
    return found


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def parent(span: ReadableSpan) -> str | None:
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None and span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def test_a_request_is_below_its_caller_and_its_ops_and_batch_below_it() -> None:
    spans, _ = exported([(1, CALLERS[0])])
    request, net = one(spans, "g"), one(spans, "net")
    assert (ids(request)[0], parent(request)) == (TRACES[0], PARENTS[0])
    assert request.parent is not None and request.parent.is_remote and request.kind is SpanKind.SERVER
    for name in ("get", "net", "after"):
        assert parent(one(spans, name)) == ids(request)[1]
        assert one(spans, name).kind is SpanKind.INTERNAL
    assert parent(one(spans, "net.process")) == ids(net)[1]
    assert {ids(span)[0] for span in spans} == {TRACES[0]}
    assert len({ids(span)[1] for span in spans}) == len(spans) == 5
    assert not any(span.links for span in spans if span.name != "net.process")


def test_a_request_without_a_context_is_the_root_of_a_trace() -> None:
    spans, _ = exported([(1, None), (2, None)])
    requests = named(spans, "g")
    assert [parent(request) for request in requests] == [None, None]
    assert len({ids(request)[0] for request in requests}) == 2


def test_a_batch_of_two_traces_links_both_and_both_link_it() -> None:
    spans, _ = exported([(1, CALLERS[0]), (2, CALLERS[1])])
    batch = one(spans, "net.process")
    ops = named(spans, "net")
    assert sorted(ids(op)[0] for op in ops) == TRACES
    assert [(link.context.trace_id, link.context.span_id) for link in batch.links] == [
        (op.context.trace_id, op.context.span_id) for op in ops if op.context
    ]
    assert parent(batch) is None and ids(batch)[0] not in TRACES
    for each in ops:
        (link,) = each.links
        assert (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") == ids(batch)
    assert batch.attributes == {"asyncline.op": "net", "asyncline.replica": 0, "asyncline.batch.rows": 2}


def test_spans_have_the_times_of_what_they_are_of_and_lie_in_their_parents() -> None:
    spans, _ = exported([(1, None)])
    assert seconds(one(spans, "get")) == pytest.approx(0.05)
    assert seconds(one(spans, "net")) == pytest.approx(0.55)
    assert seconds(one(spans, "net.process")) == pytest.approx(0.4)
    assert seconds(one(spans, "g")) == pytest.approx(0.61)
    by_id = {ids(span)[1]: span for span in spans}
    for span in spans:
        above = by_id.get(parent(span) or "")
        if above is not None:
            assert above.start_time is not None and span.start_time is not None and span.end_time is not None
            assert above.start_time <= span.start_time <= span.end_time <= (above.end_time or 0) + 1000


def test_an_op_tells_its_stages() -> None:
    spans, _ = exported([(1, None)])
    net = one(spans, "net")
    assert [event.name for event in net.events] == ["preprocess", "process", "postprocess"]
    times = [(event.timestamp - (net.start_time or 0)) / 1e9 for event in net.events]
    assert times == pytest.approx([0.0, 0.1, 0.5])
    assert net.attributes is not None
    told = {key: value for key, value in net.attributes.items() if key.endswith("_s")}
    assert told == pytest.approx(
        {
            "asyncline.wait_s": 0.0,
            "asyncline.preprocess_s": 0.1,
            "asyncline.process_s": 0.4,
            "asyncline.postprocess_s": 0.05,
        }
    )
    assert [event.name for event in one(spans, "get").events] == ["preprocess"]


def test_a_request_tells_its_ids() -> None:
    spans, _ = exported([(1, None)])
    request = one(spans, "g")
    assert request.attributes == {"asyncline.data_id": 1, "asyncline.log_id": "log 1"}
    assert request.resource.attributes["service.name"] == "g"
    assert request.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("payload", "code", "status"),
    [("bad", "product", StatusCode.UNSET), ("broken", "op_error", StatusCode.ERROR)],
)
def test_an_error_is_named_and_marked_where_it_is_the_servers(payload: str, code: str, status: StatusCode) -> None:
    spans, _ = exported([(payload, None)])
    request = one(spans, "g")
    assert request.attributes is not None and request.attributes["error.type"] == code
    assert request.status.status_code is status
    assert one(spans, "net").status.status_code is StatusCode.ERROR
    assert not named(spans, "after"), "it did not come there"


def test_only_what_is_sampled_is_exported_and_linked() -> None:
    spans, found = exported([(1, CALLERS[0]), (2, CALLERS[1][:-1] + "0")])
    assert {ids(span)[0] for span in spans if span.name != "net.process"} == {TRACES[0]}
    assert [f"{link.context.trace_id:032x}" for link in one(spans, "net.process").links] == [TRACES[0]]
    assert one(spans, "net.process").attributes == {
        "asyncline.op": "net",
        "asyncline.replica": 0,
        "asyncline.batch.rows": 2,
    }
    assert found.exported == len(spans) and not any(found.lost.values())


def test_a_ratio_of_none_exports_what_callers_sample() -> None:
    spans, _ = exported([(1, None), (2, CALLERS[0])], ratio=0.0)
    assert {ids(span)[0] for span in spans if span.name == "g"} == {TRACES[0]}


def test_over_the_limit_some_of_all_are_exported_and_the_others_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "MOST_SPANS", 40)  # ten requests with their three Ops
    spans, found = exported([(n, None) for n in range(25)])
    requests = [span.attributes["asyncline.data_id"] for span in named(spans, "g") if span.attributes]
    assert len(requests) == 9 and max(requests) > 20
    assert found.lost["limit"] == 25 - len(requests)


def test_what_the_timeline_had_no_room_for_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "MOST_SPANS", 10_000)
    spans, found = exported([(n, None) for n in range(500)], timeline_nbytes=150_000)
    kept = len(named(spans, "g"))
    assert 0 < kept < 500 and found.lost["timeline"] == 500 - kept


def test_hooks_hand_on_the_span_of_their_op() -> None:
    seen: list[str | None] = []

    class Calling(Op):
        async def preprocess(self, x: Any) -> Any:
            seen.append(context().traceparent)
            await asyncio.sleep(0.01)
            return x

    @op(cpu="inline")
    def inline(x: Any) -> Any:
        seen.append(context().traceparent)
        return x

    spans, _ = exported([(1, CALLERS[0])], graph=lambda: Graph("g", inline(Calling(Request()))))
    assert seen == [
        f"00-{TRACES[0]}-{ids(one(spans, 'calling'))[1]}-01",
        f"00-{TRACES[0]}-{ids(one(spans, 'g'))[1]}-01",
    ]


def test_an_async_process_hands_on_the_span_of_its_batch() -> None:
    seen: list[str | None] = []

    class Asking(Op):
        batch_size = 2
        max_delay_ms = 10

        async def process(self, batch: list[Any]) -> list[Any]:
            seen.append(context().traceparent)
            return batch

    spans, _ = exported(
        [(1, CALLERS[0]), (2, CALLERS[1]), (3, CALLERS[0])], graph=lambda: Graph("g", Asking(Request()))
    )
    batches = sorted(named(spans, "asking.process"), key=lambda span: span.start_time or 0)
    assert [len(batch.links) for batch in batches] == [2, 1]
    assert seen == [f"00-{trace}-{span}-01" for trace, span in map(ids, batches)]
    assert ids(batches[0])[0] not in TRACES and ids(batches[1])[0] == TRACES[0]
