"""Pipelines in Paddle's classes, run in process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from asyncline import Engine, RequestError
from asyncline.paddle import Op, PipelineServer, RequestOp, ResponseOp
from asyncline.wire.paddle import PipelineRequest, PipelineResponse, number_of


def prepared(last: Op, *, response: Callable[[list[Op]], ResponseOp] = ResponseOp, **config: Any) -> PipelineServer:
    """A pipeline up to its last Op, whose config.yml says `config`."""
    server = PipelineServer("test")
    server.set_response_op(response([last]))
    server.prepare_server(yml_dict={"http_port": 9999, **config})
    return server


@asynccontextmanager
async def running(last: Op, **options: Any) -> AsyncIterator[Engine]:
    server = prepared(last, **options)
    async with Engine(server.graph, server.settings) as engine:
        yield engine


def request(logid: int = 0, **values: str) -> PipelineRequest:
    return PipelineRequest(key=list(values), value=list(values.values()), logid=logid)


async def ask(engine: Engine, logid: int = 0, **values: str) -> dict[str, str]:
    """The values of an answer."""
    answer = await engine.submit(request(logid, **values))
    assert isinstance(answer, PipelineResponse)
    assert answer.err_no == 0
    return dict(zip(answer.key, answer.value, strict=True))


async def refused(engine: Engine, logid: int = 0, **values: str) -> tuple[int, str]:
    """The number and the message of an error."""
    try:
        answer = await engine.submit(request(logid, **values))
    except RequestError as error:
        return number_of(error), str(error)
    raise AssertionError(f"expected an error, got {answer}")


async def ask_all(engine: Engine, *values: str) -> list[dict[str, str]]:
    """The answers to requests that are there at once, each with an `x`."""
    return await asyncio.gather(*(ask(engine, x=value) for value in values))


def entry() -> RequestOp:
    return RequestOp()
