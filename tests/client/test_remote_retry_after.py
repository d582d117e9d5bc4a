"""Remote: an endpoint that says when to come back."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from asyncline import Engine, Graph, Overloaded, Request, RequestError, Unavailable
from asyncline.client import Remote
from asyncline.wire.oip import InferRequest
from tests.client.servers import ModelServer, doubled, http

X = np.array([1, 2, 3], np.float32)


def refusing(status: int, retry_after: str, times: int = 1000) -> ModelServer:
    """Refuses so many requests, and answers the next."""

    def answer(request: InferRequest) -> Any:
        if len(server.requests) > times:
            return doubled(request)
        return web.json_response({"error": "full"}, status=status, headers={"Retry-After": retry_after})

    server = ModelServer(answer=answer)
    return server


def engine_of(*urls: str) -> Engine:
    return Engine(Graph("g", Remote(urls, "scores", Request(), outputs="y")))


@pytest.mark.parametrize("status", [429, 503])
async def test_it_is_asked_again_then(status: int) -> None:
    async with http(refusing(status, "0", times=1)) as served, engine_of(served.url) as engine:
        assert (await engine.submit(X)).tolist() == [2, 4, 6]
    assert len(served.requests) == 2


@pytest.mark.parametrize(("status", "error"), [(429, Overloaded), (503, Unavailable)])
async def test_it_is_not_waited_for_beyond_the_deadline(status: int, error: type[RequestError]) -> None:
    async with http(refusing(status, "60")) as served, engine_of(served.url) as engine:
        async with asyncio.timeout(5):
            with pytest.raises(error) as caught:
                await engine.submit(X)
    assert caught.value.retry_after_s == 60  # type: ignore[attr-defined]
    assert len(served.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_another_endpoint_is_asked_at_once_and_it_is_left_alone(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    full = refusing(status, "7")
    with caplog.at_level(logging.WARNING, "asyncline.client"):
        async with http(full), http() as served, engine_of(full.url, served.url) as engine:
            for _ in range(4):
                assert (await engine.submit(X)).tolist() == [2, 4, 6]
    assert len(full.requests) == 1
    assert [f"{full.url} is left alone for 7.0 s" in text for text in caplog.messages] == [True]


@pytest.mark.parametrize("retry_after", ["-1", "soon", "Fri, 31 Dec 1999 23:59:59 GMT", "9" * 30, "\u0661"])
async def test_what_is_no_number_of_seconds_says_nothing(retry_after: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "asyncline.client"):
        async with http(refusing(503, retry_after)) as served, engine_of(served.url) as engine:
            with pytest.raises(Unavailable):
                await engine.submit(X)
    assert len(served.requests) == 1
    assert "is left alone for 0.1 s" in caplog.messages[0]


async def test_only_a_tenth_of_the_requests_waits_to_be_sent_again() -> None:
    async with http(refusing(503, "0")) as served, engine_of(served.url) as engine:
        for _ in range(20):
            with pytest.raises(Unavailable):
                await engine.submit(X)
    assert len(served.requests) <= 20 + 1 + 20 / 10
