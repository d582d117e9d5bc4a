"""The Op that downloads, and how an Engine ends its Ops."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncline import BadRequest, DeadlineExceeded, Engine, Graph, Image, Op, Request, UrlForbidden, op
from asyncline.images import Fetch, UrlPolicy
from tests.images.downloads import FORBIDDEN, LOCAL
from tests.images.origins import PNG, Origin, answer, answers, origin, redirects, waits

# -- the Op


@op(cpu="inline")
def size(data: bytes) -> int:
    return len(data)


def graph(**settings: Any) -> Graph:
    request = Request(image=Image(url=True))
    return Graph("sizes", size(Fetch(request.image, **{"policy": LOCAL, **settings})))


async def test_bytes_and_urls_are_both_an_image() -> None:
    async with origin(answers(answer())) as made, Engine(graph()) as engine:
        assert await engine.submit({"image": b"12345"}) == 5
        assert await engine.submit({"image": "MTIz"}) == 3
        assert await engine.submit({"image": made.url()}) == len(PNG)
        assert made.open == 1


TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def traced(made: Origin, path: str = "/image.png", **settings: Any) -> list[str | None]:
    """The trace contexts that reach the origin when a request comes with one."""
    async with Engine(graph(**settings)) as engine:
        item = engine.begin({"image": made.url(path)}, traceparent=TRACEPARENT)
        await item.wait()
        assert item.error is None
    return [headers.get("traceparent") for headers in made.headers]


async def test_the_trace_context_goes_to_a_host_that_is_allowed_by_name() -> None:
    async with origin(answers(answer())) as made:
        assert await traced(made, policy=UrlPolicy(allow_hosts=["127.0.0.1"])) == [TRACEPARENT]


async def test_a_stranger_does_not_get_the_trace_context_unless_asked() -> None:
    async with origin(answers(answer())) as made:
        assert await traced(made) == [None]
    async with origin(answers(answer())) as made:
        assert await traced(made, trace=True) == [TRACEPARENT]


async def test_a_redirect_to_a_stranger_takes_no_trace_context_along() -> None:
    policy = UrlPolicy(allow_hosts=["127.0.0.1"], allow_cidrs=["127.0.0.0/8"])
    async with origin(answers(answer()), "127.0.0.2") as stranger, origin(redirects(stranger.url())) as made:
        assert await traced(made, "/0", policy=policy) == [TRACEPARENT]
        assert [headers.get("traceparent") for headers in stranger.headers] == [None]


def test_the_schema_says_that_a_url_will_do() -> None:
    assert Image(url=True).schema()["anyOf"][1] == {"type": "string", "format": "uri"}
    assert "anyOf" not in Image().schema()


async def test_a_url_is_refused_where_none_is_declared() -> None:
    async with Engine(Graph("sizes", size(Request(image=Image()).image))) as engine:
        with pytest.raises(BadRequest, match="this graph downloads nothing"):
            await engine.submit({"image": "http://8.8.8.8/"})


async def test_the_engines_end_closes_connections_and_it_may_start_again() -> None:
    sizes = graph()
    async with origin(answers(answer())) as made:
        for connections in (1, 2):
            async with Engine(sizes) as engine:
                await engine.submit({"image": made.url()})
                await engine.submit({"image": made.url()})
                assert (made.connections, made.open) == (connections, 1)
            await made.until(lambda made: made.open == 0)


async def test_errors_name_the_op() -> None:
    async with Engine(graph(policy=UrlPolicy())) as engine:
        with pytest.raises(UrlForbidden, match=f"^op 'fetch' preprocess: {FORBIDDEN}$"):
            await engine.submit({"image": "http://127.0.0.1/"})


async def test_a_download_ends_at_the_deadline_of_its_item() -> None:
    async with origin(waits(answer())) as made, Engine(graph()) as engine:
        with pytest.raises(DeadlineExceeded):
            await engine.submit({"image": made.url()}, timeout=0.2)
        await made.until(lambda made: made.open == 0 and len(made.requests) == 1)


async def test_the_deadline_of_one_item_is_not_that_of_another_who_waits_for_the_same() -> None:
    async with origin(waits(answer())) as made, Engine(graph()) as engine:
        hasty = asyncio.create_task(engine.submit({"image": made.url()}, timeout=0.2))
        await made.until(lambda made: bool(made.requests))
        patient = asyncio.create_task(engine.submit({"image": made.url()}, timeout=5))
        with pytest.raises(DeadlineExceeded):
            await hasty
        made.gate.set()
        assert await patient == len(PNG)
        assert len(made.requests) == 1


async def test_a_cancelled_request_ends_its_download() -> None:
    async with origin(waits(answer())) as made, Engine(graph()) as engine:
        asking = asyncio.create_task(engine.submit({"image": made.url()}))
        await made.until(lambda made: bool(made.requests))
        asking.cancel()
        await made.until(lambda made: made.open == 0)


async def test_downloads_of_a_graph_run_side_by_side_up_to_its_concurrency() -> None:
    async with origin(waits(answer())) as made, Engine(graph(concurrency=5)) as engine:
        asking = [asyncio.create_task(engine.submit({"image": made.url(f"/{i}")})) for i in range(8)]
        await made.until(lambda made: made.at_once == 5)
        made.gate.set()
        await asyncio.gather(*asking)
        assert made.most_at_once == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"max_mb": 0}, "nbytes=0"), ({"timeout_s": -1}, "total_s=-1"), ({"redirects": -1}, "redirects=-1")],
)
def test_limits_that_cannot_be_meant_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graph(**settings)


# -- close_op


class Closing(Op):
    def __init__(self, *inputs: Any, log: list[str], fails: bool = False, **settings: Any) -> None:
        super().__init__(*inputs, **settings)
        self.log = log
        self.fails = fails

    async def preprocess(self, value: Any) -> Any:
        return value

    def close_op(self) -> None:
        self.log.append(self.name)
        if self.fails:
            raise RuntimeError("cannot close")


async def test_ops_are_closed_in_the_reverse_order_of_their_start() -> None:
    log: list[str] = []
    async with Engine(Graph("a", Closing(Closing(Request(), log=log, name="one"), log=log, name="two"))):
        assert not log
    assert log == ["two", "one"]


async def test_an_op_that_cannot_be_closed_is_logged_and_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []
    first = Closing(Request(), log=log, name="one")
    async with Engine(Graph("a", Closing(first, log=log, name="two", fails=True))) as engine:
        pass
    assert log == ["two", "one"]
    assert engine.state == "closed"
    assert "op 'two' close_op" in caplog.text
