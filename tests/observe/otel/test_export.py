"""Spans on their way to a collector: one that takes them, and those that are down, slow or refuse."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from asyncline import Engine, Graph, Op, Request, SettingsError
from asyncline.observe.observing import Observing
from asyncline.observe.otel import export, sender
from asyncline.observe.otel.export import Export
from asyncline.observe.statistics import Statistics
from asyncline.observe.timeline.recorder import Recorder
from asyncline.settings import ServiceSettings, Settings, Source, headers_of, merge
from asyncline.transports.rest.transport import RestTransport
from tests.observe.otel.collector import attributes, collecting

TRACES = ["0af7651916cd43dd8448eb211c80319c", "1bf7651916cd43dd8448eb211c80319d"]
PARENT = "b7ad6b7169203331"


class Net(Op):
    """A batch of it is as many as came together."""

    cpu = "thread"
    batch_size = 4
    max_delay_ms = 1000

    def process(self, batch: list[Any]) -> list[Any]:
        return batch


def graph() -> Graph:
    return Graph("g", Net(Request(), batch_size=2))


def settings_of(made: Graph, **service: Any) -> Settings:
    code = {op.name: op.code_settings for op in made.ops}
    return merge(made.name, code, Source("test", {"service": {"http_port": 0, **service}}))


@asynccontextmanager
async def exporting(url: str) -> AsyncIterator[tuple[Engine, Export]]:
    """An Engine whose spans go there when `tick` is called, and at the end."""
    async with Engine(graph()) as engine:
        statistics = Statistics(engine)
        recorder = Recorder(engine, statistics, 10**6)
        engine.hooks.add(statistics)
        engine.hooks.add(recorder)
        made = Export(engine, recorder, statistics, ServiceSettings(otel_endpoint=url))
        made.start()
        try:
            yield engine, made
        finally:
            made.close()
            await made.wait_closed()


async def two(engine: Engine) -> None:
    await asyncio.gather(engine.submit(1), engine.submit(2))


@asynccontextmanager
async def observed(**service: Any) -> AsyncIterator[tuple[aiohttp.ClientSession, Observing]]:
    made = graph()
    settings = settings_of(made, **service)
    engine = Engine(made, settings)
    observing = Observing(engine, settings)
    transport = RestTransport(engine, settings.service, observing.metrics.render)
    await transport.start()
    async with engine, aiohttp.ClientSession(transport.address) as session:
        observing.start()
        yield session, observing
        observing.close()
        await observing.wait_closed()
    transport.close()
    await transport.wait_closed()


async def test_two_requests_of_two_traces_arrive_as_their_trees_and_the_batch_links_both() -> None:
    async with collecting() as collector:
        async with observed(otel_endpoint=collector.url, otel_headers="api-key=secret,x=1") as (session, _):

            async def ask(trace: str) -> str:
                headers = {"traceparent": f"00-{trace}-{PARENT}-01", "X-Trace": "1", "X-Log-Id": trace[:4]}
                async with session.post("/g", json=1, headers=headers) as answer:
                    assert answer.status == 200
                    return answer.headers["traceresponse"]

            told = await asyncio.gather(*map(ask, TRACES))
        requests = {span.trace_id.hex(): span for span in collector.named("g")}
        ops = {span.trace_id.hex(): span for span in collector.named("net")}
        batch = collector.one("net.process")
    assert sorted(requests) == sorted(ops) == TRACES
    for trace, response in zip(TRACES, told, strict=True):
        assert response == f"00-{trace}-{requests[trace].span_id.hex()}-01"
        assert requests[trace].parent_span_id.hex() == PARENT
        assert requests[trace].kind == requests[trace].SPAN_KIND_SERVER
        assert ops[trace].parent_span_id == requests[trace].span_id
        assert attributes(requests[trace].attributes)["asyncline.log_id"] == trace[:4]
        (link,) = ops[trace].links
        assert (link.trace_id, link.span_id) == (batch.trace_id, batch.span_id)
    linked = {(link.trace_id.hex(), link.span_id) for link in batch.links}
    assert linked == {(trace, ops[trace].span_id) for trace in TRACES}
    assert batch.parent_span_id == b"" and batch.trace_id.hex() not in TRACES
    now = time.time_ns()
    for span in collector.spans:
        assert now - 60e9 < span.start_time_unix_nano <= span.end_time_unix_nano <= now
        assert len(span.trace_id) == 16 and len(span.span_id) == 8
    (resource, *_) = collector.resources
    assert resource["service.name"] == "g" and resource["telemetry.distro.name"] == "asyncline"
    assert len(resource["service.instance.id"]) == 36
    for request in collector.requests:
        assert request.headers["Content-Type"] == "application/x-protobuf"
        assert (request.headers["api-key"], request.headers["x"]) == ("secret", "1")


async def test_spans_come_by_themselves_while_the_server_runs() -> None:
    async with collecting() as collector:
        async with observed(otel_endpoint=collector.url + "/v1/traces") as (session, observing):
            for answer in await asyncio.gather(session.post("/g", json=1), session.post("/g", json=1)):
                answer.close()
            await collector.until(lambda: len(collector.named("g")) == 2)
        page = (await observing.metrics.render())[0].decode()
    (line,) = [line for line in page.splitlines() if line.startswith("asyncline_otel_spans_total")]
    assert float(line.split()[1]) == len(collector.spans)
    assert 'asyncline_otel_requests_lost_total{reason="collector"} 0.0' in page


async def test_nothing_is_exported_twice() -> None:
    async with collecting() as collector:
        async with exporting(collector.url) as (engine, made):
            for count in (2, 4, 6):
                await two(engine)
                async with asyncio.timeout(10):
                    while len(collector.named("g")) < count:
                        made.tick()  # nothing, while its thread is not quite done with the last
                        await asyncio.sleep(0.001)
        assert len({span.span_id for span in collector.spans}) == len(collector.spans)
        assert len(collector.named("net.process")) == 3


async def test_a_collector_that_is_down_costs_no_request_and_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asyncline.otel")
    monkeypatch.setattr(sender, "TIMEOUT_S", 0.1)  # too short to try again
    monkeypatch.setattr(sender, "CHUNK", 2)
    async with collecting() as collector:
        down = collector.url
    async with exporting(down) as (engine, made):
        await two(engine)
        await two(engine)
    assert (made.sender.lost["collector"], made.sender.exported) == (4, 0)
    (line,) = [record.message for record in caplog.records if record.name == "asyncline.otel"]
    assert line.startswith("the collector at 127.0.0.1 does not take spans, which are lost: ")


async def refuse(request: web.Request) -> web.Response:
    return web.Response(status=503, headers={"Retry-After": "0"})


async def test_a_collector_without_room_is_asked_again() -> None:
    async with collecting() as collector:
        collector.answer = refuse
        async with exporting(collector.url) as (engine, made):
            await two(engine)
            made.tick()
            await collector.until(lambda: len(collector.requests) >= 2)
            assert not collector.spans
            collector.answer = None
            await collector.until(lambda: len(collector.named("g")) == 2)
        assert made.sender.lost["collector"] == 0


async def test_what_is_refused_is_lost_and_the_next_is_taken_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asyncline.otel")

    async def bad(request: web.Request) -> web.Response:
        return web.Response(status=400)

    async with collecting() as collector:
        collector.answer = bad
        async with exporting(collector.url) as (engine, made):
            await two(engine)
            made.tick()
            await collector.until(lambda: len(collector.requests) == 1)
            await two(engine)
            collector.answer = None
        assert made.sender.lost["collector"] == 2 and len(collector.named("g")) == 2
    assert [r.message.split(":")[0] for r in caplog.records if r.name == "asyncline.otel"] == [
        "the collector at 127.0.0.1 does not take spans, which are lost",
        "the collector at 127.0.0.1 takes spans again",
    ]


async def hang(request: web.Request) -> web.Response:
    await asyncio.sleep(60)
    raise AssertionError("it is hung up on")


async def test_a_collector_that_hangs_keeps_no_more_than_the_timeline_and_no_stop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(export, "CLOSE_S", 0.1)
    async with collecting() as collector:
        collector.answer = hang
        async with exporting(collector.url) as (engine, made):
            await two(engine)
            made.tick()
            await collector.until(lambda: len(collector.requests) == 1)
            for _ in range(5):
                made.tick()
            assert made._queue.qsize() == 0, "the thread is still at it"
            await two(engine)
            began = time.monotonic()
        assert time.monotonic() - began < 2
    told = [record.message for record in caplog.records if record.name == "asyncline.otel"]
    assert told[:1] == ["the last spans were not taken by 127.0.0.1 within 0.1 s, and are lost"]


# -- settings


@pytest.mark.parametrize(
    ("service", "dag", "said"),
    [
        ({"otel_endpoint": "localhost:4318"}, {}, "expected a URL"),
        ({"otel_endpoint": "http://me:secret@collector"}, {}, "otel_headers"),
        ({"otel_endpoint": "http://c", "otel_headers": "secret"}, {}, "expected name=value"),
        ({"otel_endpoint": "http://c", "otel_sample_ratio": 1.5}, {}, "less than or equal to 1"),
    ],
)
def test_what_cannot_work_is_refused(service: dict[str, Any], dag: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        settings_of(graph(), **service)
    assert "otel_headers" not in service or "secret" not in str(refused.value)


def test_headers_are_spelled_out() -> None:
    assert headers_of("a=1, b = x=y ") == {"a": "1", "b": "x=y"}


async def test_without_the_timeline_there_is_nothing_to_export() -> None:
    made = graph()
    code = {op.name: op.code_settings for op in made.ops}
    source = Source("test", {"service": {"otel_endpoint": "http://c"}, "dag": {"timeline_mb": 0}})
    settings = merge("g", code, source)
    with pytest.raises(SettingsError, match=r"dag\.timeline_mb is 0"):
        Observing(Engine(made, settings), settings)
