"""The operator's pages over HTTP, from an Engine that really runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import pytest

from asyncline import Engine, Graph, Request, op
from asyncline.observe.observing import Observing
from asyncline.settings import Source, merge
from asyncline.transports.rest.local import is_loopback
from asyncline.transports.rest.observe import ObserveRoutes
from asyncline.transports.rest.transport import RestTransport


@op(cpu="inline")
def echo(x: Any) -> Any:
    return x


@asynccontextmanager
async def observed(dag: dict[str, Any] | None = None, **service: Any) -> AsyncIterator[aiohttp.ClientSession]:
    graph = Graph("g", echo(Request()))
    settings = merge(
        "g",
        {o.name: o.code_settings for o in graph.ops},
        Source("test", {"service": {"http_port": 0, **service}, "dag": dag or {}}),
    )
    engine = Engine(graph, settings)
    observing = Observing(engine, settings)
    routes = [partial(ObserveRoutes, observing)]
    transport = RestTransport(engine, settings.service, observing.metrics.render, routes=routes)
    await transport.start()
    async with engine, aiohttp.ClientSession(transport.address) as session:
        observing.start()
        yield session
        observing.close()
    transport.close()
    await transport.wait_closed()


async def test_the_verdict_is_one_sentence() -> None:
    async with observed() as session, session.get("/verdict") as answer:
        assert answer.status == 200
        assert await answer.text() == "bottleneck: none: no requests in the last 0 s\n"


async def test_the_figures_have_the_verdict_too() -> None:
    async with observed() as session, session.get("/figures?seconds=5") as answer:
        found = await answer.json()
    assert [op["name"] for op in found["ops"]] == ["echo"]
    assert found["verdict"].startswith("bottleneck: none")
    assert found["in_flight_max"] == 512


async def test_the_timeline_has_the_last_requests_and_one_of_them_alone() -> None:
    async with observed() as session:
        for n in range(3):
            async with session.post("/g", json=n) as answer:
                data_id = answer.headers["X-Data-Id"]
        async with session.get("/admin/timeline") as answer:
            events = (await answer.json())["traceEvents"]
        async with session.get(f"/admin/timeline?data_id={data_id}") as answer:
            own = (await answer.json())["traceEvents"]
    assert [event["name"] for event in events if event.get("cat") == "request"] == [
        "request 1",
        "request 2",
        "request 3",
    ]
    assert [event["name"] for event in own if event.get("cat") == "request"] == ["request 3"]


async def test_a_request_that_asks_for_its_trace_is_told_where_it_is() -> None:
    async with observed() as session:
        async with session.post("/g", json=1, headers={"X-Trace": "1"}) as answer:
            where = answer.headers["X-Trace"]
        async with session.get(where) as answer:
            events = (await answer.json())["traceEvents"]
        async with session.post("/g", json=1) as answer:
            assert "X-Trace" not in answer.headers
    assert [event["args"]["data_id"] for event in events if event.get("cat") == "request"] == [1]


async def test_open_metrics_is_given_to_who_asks_for_it() -> None:
    async with observed() as session:
        async with session.get("/metrics") as answer:
            assert answer.content_type == "text/plain" and "asyncline_op_utilisation_ratio" in await answer.text()
        async with session.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}) as answer:
            assert answer.content_type == "application/openmetrics-text"
            assert (await answer.text()).endswith("# EOF\n")


async def test_one_timeline_is_written_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = asyncio.Event(), threading.Event()

    async with observed() as session:
        loop = asyncio.get_running_loop()

        def held(observing: Observing, seconds: float) -> Callable[[], bytes]:
            def make() -> bytes:
                loop.call_soon_threadsafe(begun.set)
                assert go_on.wait(20)
                return b"{}"

            return make

        monkeypatch.setattr(Observing, "timeline", held)
        first = asyncio.create_task(session.get("/admin/timeline"))
        await begun.wait()
        async with session.get("/admin/timeline") as answer:
            assert answer.status == 503 and "Retry-After" in answer.headers
        go_on.set()
        async with await first as answer:
            assert answer.status == 200


async def test_a_request_that_is_forgotten_is_not_found() -> None:
    async with observed() as session, session.get("/admin/timeline?data_id=77") as answer:
        assert answer.status == 404
        assert "too long ago" in (await answer.json())["message"]


async def test_a_timeline_that_is_off_says_so() -> None:
    async with observed({"timeline_mb": 0}) as session, session.get("/admin/timeline") as answer:
        assert (answer.status, (await answer.json())["message"]) == (404, "no timeline is kept: dag.timeline_mb is 0")


@pytest.mark.parametrize(
    "query", ["/verdict?seconds=x", "/figures?seconds=0", "/figures?seconds=61", "/verdict?seconds=nan",
              "/admin/timeline?seconds=-1", "/admin/timeline?data_id=x", f"/admin/timeline?data_id={'9' * 19}"],
)  # fmt: skip
async def test_a_bad_query_is_named(query: str) -> None:
    async with observed() as session, session.get(query) as answer:
        assert answer.status == 400
        assert (await answer.json())["message"].startswith("query ")


@pytest.mark.parametrize("path", ["/verdict", "/figures", "/admin/timeline"])
async def test_all_of_it_asks_for_the_token(path: str) -> None:
    async with observed(auth_token="secret") as session:
        async with session.get(path) as answer:
            assert answer.status == 401
        async with session.get(path, headers={"Authorization": "Bearer secret"}) as answer:
            assert answer.status == 200
        async with session.post(path, headers={"Authorization": "Bearer secret"}) as answer:
            assert answer.status == 405


async def test_what_is_not_there_is_not_found() -> None:
    async with observed() as session, session.get("/admin/shell") as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
        (None, False),
    ],
)
def test_only_loopback_is_this_machine(address: str | None, expected: bool) -> None:
    assert is_loopback(address) is expected
