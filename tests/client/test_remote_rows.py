"""Remote: requests that are batches by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from asyncline import BadRequest, Engine, Graph, LoadError, Request, Unavailable
from asyncline.client import Remote
from asyncline.graph.outcomes import Rows
from asyncline.wire.oip import InferRequest, InferResponse, ModelMetadata, TensorMetadata
from tests.client.servers import Failure, ModelServer, doubled, http, response

X = np.arange(15, dtype=np.float32).reshape(5, 3)


@asynccontextmanager
async def running(server: ModelServer | None = None, remote: Any = Remote, **more: Any) -> AsyncIterator[Any]:
    settings: dict[str, Any] = {"outputs": "y", "rows": True, **more}
    async with http(server) as served:
        op = remote(served.url, served.metadata.name, Request(), **settings)
        async with Engine(Graph("g", op)) as engine:
            yield engine, served


@pytest.mark.parametrize("rows", [1, 5])
async def test_a_batch_is_one_request(rows: int) -> None:
    async with running() as (engine, served):
        found = await engine.submit(X[:rows])
    np.testing.assert_array_equal(found, 2 * X[:rows])
    assert served.rows == [rows]


async def test_several_outputs_are_a_dict_of_batches() -> None:
    async with running(outputs=()) as (engine, _):
        found = await engine.submit(X.tolist())
    assert (found["y"].shape, found["sum"].tolist()) == ((5, 3), X.sum(1).tolist())


@pytest.mark.parametrize(("batch_size", "most"), [(2, None), (8, 2), (2, 8)])
async def test_one_that_is_too_large_is_cut_and_comes_back_whole(batch_size: int, most: int | None) -> None:
    async with running(ModelServer(max_batch_size=most), batch_size=batch_size) as (engine, served):
        np.testing.assert_array_equal(await engine.submit(X), 2 * X)
    assert sorted(served.rows) == [1, 2, 2]


async def test_small_ones_share_a_request() -> None:
    async with running(concurrency=1) as (engine, served):
        found = await asyncio.gather(*(engine.submit(X[:rows]) for rows in (1, 2, 3)))
    for rows, each in zip((1, 2, 3), found, strict=True):
        np.testing.assert_array_equal(each, 2 * X[:rows])
    assert served.rows == [6]


async def test_one_without_rows_asks_nobody() -> None:
    async with running() as (engine, served):
        assert len(await engine.submit(X[:0])) == 0
    assert not served.requests


async def test_rows_that_the_model_does_not_take_are_not_sent() -> None:
    async with running() as (engine, served):
        with pytest.raises(BadRequest, match=r"input 'x': expected shape \[-1, 3\], got \[5, 2\]"):
            await engine.submit(X[:, :2])
    assert not served.requests


async def test_inputs_of_different_rows_are_refused() -> None:
    tensors = TensorMetadata("a", "FP32", (-1,)), TensorMetadata("b", "FP32", (-1,))
    metadata = ModelMetadata("two", tensors, (TensorMetadata("y", "FP32", (-1,)),))
    server = ModelServer(metadata, lambda request: response(request, y=request.inputs[0].array))

    class Pair(Remote):
        def preprocess(self, lengths: tuple[int, int]) -> Any:
            return super().preprocess(*(np.zeros(length, np.float32) for length in lengths))

    async with running(server, Pair) as (engine, served):
        assert len(await engine.submit((3, 3))) == 3
        with pytest.raises(BadRequest, match="the inputs have different numbers of rows: a 3, b 2"):
            await engine.submit((3, 2))
    assert served.rows == [3]


async def test_rows_of_a_preprocess_of_ones_own_are_checked() -> None:
    class Own(Remote):
        def preprocess(self, value: Any) -> Any:
            return Rows(np.asarray(value))

    async with running(remote=Own) as (engine, served):
        np.testing.assert_array_equal(await engine.submit(X.astype(np.float64)), 2 * X)
        with pytest.raises(BadRequest, match="input 'x': expected shape"):
            await engine.submit(X[:, :2])
    assert served.rows == [5]


async def test_a_model_that_takes_no_batches_takes_no_rows() -> None:
    metadata = ModelMetadata("plain", (TensorMetadata("x", "FP32", (1, 3)),), (TensorMetadata("y", "FP32", (1, 3)),))
    with pytest.raises(LoadError, match="remote model 'plain' takes no batches"):
        async with running(ModelServer(metadata)):
            pass


@pytest.mark.parametrize(("most", "requests"), [(None, 1), (2, 3)])
async def test_where_the_endpoint_is_at_fault_the_batch_is_not_tried_in_parts(most: int | None, requests: int) -> None:
    def refuse(request: InferRequest) -> InferResponse:
        raise Failure(503)

    async with running(ModelServer(answer=refuse, max_batch_size=most)) as (engine, served):
        with pytest.raises(Unavailable):
            await engine.submit(X)
    assert len(served.requests) == requests


async def test_a_request_that_the_model_refuses_fails_alone() -> None:
    gate = asyncio.Event()

    async def answer(request: InferRequest) -> InferResponse:
        await gate.wait()
        if (request.inputs[0].array < 0).any():
            raise Failure(400, "negative")
        return doubled(request)

    async with running(ModelServer(answer=answer), concurrency=1) as (engine, served):
        asked = [asyncio.ensure_future(engine.submit(value)) for value in (X[:1], X[:2], -X[1:3])]
        await served.until(1)
        gate.set()
        first, good, bad = await asyncio.gather(*asked, return_exceptions=True)
    assert (len(first), len(good)) == (1, 2)
    assert isinstance(bad, BadRequest)
