"""`/figures/live` and `/dashboard`, from an Engine that really runs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import pytest

from asyncline import Engine, Graph, Op, ProductError, Request, op
from asyncline.errors import Unavailable
from asyncline.observe.observing import Observing
from asyncline.settings import Source, merge
from asyncline.transports.rest import live
from asyncline.transports.rest.live import Viewers
from asyncline.transports.rest.observe import ObserveRoutes
from asyncline.transports.rest.transport import RestTransport
from asyncline.wire.events import Event, EventDecoder


class Double(Op):
    """Twice as much.

    And more of it."""

    cpu = "inline"

    def process(self, batch: list[int]) -> list[int]:
        return [2 * n for n in batch]


@op(cpu="inline")
def join(a: int, b: int) -> int:
    if a < 0:
        raise ProductError("no_debts", f"{a} is less than nothing")
    return a + b


def graph() -> Graph:
    n = Request()
    return Graph("g", join(Double(n, batch_size=4), n))


@asynccontextmanager
async def serving(**service: Any) -> AsyncIterator[tuple[aiohttp.ClientSession, RestTransport, Observing]]:
    made = graph()
    code = {each.name: each.code_settings for each in made.ops}
    settings = merge("g", code, Source("test", {"service": {"http_port": 0, **service}}))
    engine = Engine(made, settings)
    observing = Observing(engine, settings)
    transport = RestTransport(
        engine, settings.service, observing.metrics.render, routes=[partial(ObserveRoutes, observing)]
    )
    await transport.start()
    async with engine, aiohttp.ClientSession(transport.address) as session:
        observing.start()
        yield session, transport, observing
        observing.close()
        transport.close()
        await transport.wait_closed()


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    decoder = EventDecoder(10**6)
    async for data in answer.content.iter_any():
        for event in decoder.feed(data):
            yield event


async def test_the_stream_begins_with_the_graph() -> None:
    async with serving() as (session, *_), session.get("/figures/live") as answer:
        assert answer.content_type == "text/event-stream"
        kind, data = await anext(events(answer))
    found = json.loads(data)
    assert (kind, found["graph"], found["has_timeline"]) == ("graph", "g", True)
    assert [(edge["from"], edge["to"], edge["value"]) for edge in found["edges"]] == [
        (None, "double", "request"),
        ("double", "join", "double"),
        (None, "join", "request"),
        ("join", None, "answer"),
    ]
    double = found["ops"][0]
    assert (double["name"], double["class"], double["about"]) == ("double", "Double", "Twice as much.")
    assert double["lanes"] == {"process": "device"}
    assert (double["settings"]["batch_size"], double["settings"]["channel_size"]) == (4, 1024)


async def test_no_secret_is_in_the_stream() -> None:
    async with serving(auth_token="hush-hush") as (session, *_):
        async with session.get("/figures/live", headers={"Authorization": "Bearer hush-hush"}) as answer:
            found = events(answer)
            assert b"hush" not in (await anext(found))[1] + (await anext(found))[1]


async def test_the_figures_come_at_once_and_then_each_second() -> None:
    async with serving() as (session, *_), session.get("/figures/live") as answer:
        found = events(answer)
        kinds = [(await anext(found))[0] for _ in range(3)]
    assert kinds == ["graph", "figures", "figures"]


async def test_the_figures_have_all_that_the_page_shows() -> None:
    async with serving() as (session, *_):
        for n in (1, 2, -3):
            async with session.post("/g", json=n, headers={"X-Log-Id": f"log-{n}"}) as answer:
                await answer.read()
        async with session.get("/figures/live") as answer:
            found = events(answer)
            for _ in range(3):  # the third has the window in which they were
                kind, data = await anext(found)
    told = json.loads(data)
    assert kind == "figures" and told["state"] == "ready" and told["problem"] is None
    assert told["last"]["outcomes"] == {"ok": 2, "product": 1}
    assert set(told["last"]["latency"]["percentiles_ms"]) == {"50", "60", "70", "80", "90", "95", "99"}
    assert [each["name"] for each in told["now"]["ops"]] == ["double", "join"]
    assert told["verdict"]["text"].startswith("bottleneck: ")
    assert told["verdict"]["text"].endswith(told["verdict"]["knob"])
    failure = told["failures"][0]
    assert (failure["code"], failure["log_id"]) == ("product", "log--3")
    assert failure["message"].endswith("-6 is less than nothing")
    assert told["nbytes"] > 10**6
    assert told["devices"] == {"cpu": {"replicas": {"double": 1}}}


async def test_the_figures_tell_of_times_in_which_the_loop_stood_still() -> None:
    async with serving() as (session, _, observing):
        for number in range(20):
            observing.statistics.loop_blocked("join", "preprocess", number / 10, "its stack")
        async with session.get("/figures/live") as answer:
            found = events(answer)
            await anext(found)
            told = json.loads((await anext(found))[1])
    assert told["blocked"] == 20
    assert len(told["blockages"]) == 8
    newest = told["blockages"][0]
    assert (newest["op"], newest["hook"], newest["seconds"]) == ("join", "preprocess", 1.9)
    assert abs(newest["at"] - told["now"]["at"]) < 60


async def test_nothing_is_done_while_nobody_looks() -> None:
    async with serving() as (session, _, observing):
        listeners = observing._windows.listeners
        before = list(listeners)
        async with session.get("/figures/live") as one, session.get("/figures/live") as other:
            await anext(events(one)), await anext(events(other))
            assert len(listeners) == len(before) + 1  # made once for both
        async with session.get("/healthz"):  # the server has seen that they have left by when it answers
            pass
        assert listeners == before


async def test_who_looks_in_is_let_in_though_clients_of_that_address_have_all_connections() -> None:
    async with serving(max_connections_per_peer=1) as (session, *_):
        async with session.post("/g", json=1) as answer:
            await answer.read()  # kept alive
        async with aiohttp.ClientSession(str(session._base_url)) as operator:
            for page in ("/verdict", "/figures", "/dashboard", "/admin/settings"):
                async with operator.get(page) as answer:
                    assert answer.status == 200, page
            async with operator.get("/figures/live") as answer:
                found = events(answer)
                assert [(await anext(found))[0] for _ in range(3)] == ["graph", "figures", "figures"]
            async with operator.post("/g", json=1) as answer:
                assert answer.status == 503 and "too many connections" in await answer.text()


async def test_no_more_than_so_many_may_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_VIEWERS", 1)
    async with serving() as (session, *_), session.get("/figures/live") as one:
        await anext(events(one))
        async with session.get("/figures/live") as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")


async def test_the_stream_ends_when_the_server_stops() -> None:
    async with serving() as (session, transport, _), session.get("/figures/live") as answer:
        found = events(answer)
        await anext(found)
        transport.close()
        assert [kind async for kind, _ in found][-1] == "figures"  # and then its end, without an error
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get("/figures/live")


async def test_who_does_not_read_misses_events_and_none_is_kept() -> None:
    class Watched:
        tick: Any = None

        def watch(self, listener: Any) -> Any:
            self.tick = listener
            return lambda: None

        def graph(self) -> dict[str, Any]:
            return {}

        def now(self) -> dict[str, Any]:
            return {"figures": "x" * 100_000}

    written: list[bytes] = []

    class Connection:
        writing_paused = False

        def is_closing(self) -> bool:
            return False

        def write(self, data: bytes) -> None:
            written.append(data)

    class Received:
        version = (1, 1)
        writer = type("Writer", (), {"output_size": 0})()
        transport = protocol = Connection()

        def get_extra_info(self, name: str) -> None:
            return None

    watched, received = Watched(), Received()
    viewers = Viewers(watched)
    watching = asyncio.create_task(viewers.watch(received))  # type: ignore[arg-type]
    await asyncio.sleep(0)  # it begins
    received.protocol.writing_paused = True
    count = len(written)
    for _ in range(100):
        watched.tick()
    assert len(written) == count
    received.protocol.writing_paused = False
    watched.tick()
    assert len(written) == count + 1
    viewers.close()
    await watching
    assert written[-1] == b"0\r\n\r\n" and len(viewers) == 0
    with pytest.raises(Unavailable, match="stopping"):
        await viewers.watch(received)  # type: ignore[arg-type]


async def test_before_it_has_begun_there_is_nothing_to_see() -> None:
    made = graph()
    settings = merge("g", {each.name: each.code_settings for each in made.ops})
    observing = Observing(Engine(made, settings), settings)
    with pytest.raises(Unavailable, match="the server is new"):
        observing.now()
    observing.close()


async def test_the_page_needs_no_token_and_its_figures_do() -> None:
    async with serving(auth_token="secret") as (session, *_):
        async with session.get("/dashboard") as answer:
            assert (answer.status, answer.content_type) == (200, "text/html")
        async with session.get("/figures/live") as answer:
            assert answer.status == 401


async def test_the_page_loads_nothing_and_runs_only_what_is_written_in_it() -> None:
    async with serving() as (session, *_), session.get("/dashboard") as answer:
        policy, page = answer.headers["Content-Security-Policy"], await answer.text()
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", page)
    assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    for tag in ("style", "script"):
        [text] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        made = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{made}'" in policy
    assert "innerHTML" not in page and not re.search(r"\bon\w+=", page)


async def test_the_index_names_the_page() -> None:
    async with serving() as (session, *_), session.get("/") as answer:
        assert "/dashboard" in await answer.text()
