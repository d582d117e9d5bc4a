"""Remote: a model that another server holds, as an Op of a graph."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from asyncline import BadRequest, Each, Engine, Graph, GraphError, LoadError, Request, Tensor
from asyncline.client import Remote
from asyncline.client.address import Address
from asyncline.wire.oip import InferRequest, InferResponse, ModelMetadata, TensorMetadata
from tests.client.servers import SCORES, ModelServer, doubled, grpc_server, http, response
from tests.wire.tensors import bytes_array

WIRES = {"http": http, "grpc": grpc_server}
both_wires = pytest.mark.parametrize("wire", WIRES)

PLAIN = ModelMetadata("plain", (TensorMetadata("x", "FP32", (1, 2)),), (TensorMetadata("y", "FP32", (1, 2)),))


def graph(url: str | list[str], model: str = "scores", **more: Any) -> Graph:
    return Graph("g", Remote(url, model, Request(), **more))


@asynccontextmanager
async def running(
    wire: str, server: ModelServer | None = None, **more: Any
) -> AsyncIterator[tuple[Engine, ModelServer]]:
    async with WIRES[wire](server) as served, Engine(graph(served.url, served.metadata.name, **more)) as engine:
        yield engine, served


def array(*numbers: float) -> np.ndarray[Any, Any]:
    return np.array(numbers, np.float32)


@both_wires
async def test_a_remote_model_is_an_op(wire: str) -> None:
    async with running(wire) as (engine, _):
        found = await engine.submit(array(1, 2, 3))
    assert found["y"].tolist() == [2, 4, 6]
    assert found["sum"] == 6


@both_wires
async def test_the_trace_context_goes_along(wire: str) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    seen: list[str | None] = []

    class Looking(ModelServer):
        async def infer(self, request: InferRequest, headers: dict[str, str], connection: Any) -> Any:
            seen.append({key.lower(): value for key, value in headers.items()}.get("traceparent"))
            return await super().infer(request, headers, connection)

    async with running(wire, Looking()) as (engine, _):
        item = engine.begin(array(1, 2, 3), traceparent=traceparent)
        await item.wait()
        assert item.error is None
        await engine.submit(array(1, 2, 3))
    assert seen == [traceparent, None]


@both_wires
async def test_one_output_is_the_result_itself(wire: str) -> None:
    async with running(wire, outputs="y") as (engine, served):
        assert (await engine.submit(array(1, 2, 3))).tolist() == [2, 4, 6]
    assert [output.name for output in served.requests[0].outputs] == ["y"]


@both_wires
async def test_requests_are_batched_here(wire: str) -> None:
    gate = asyncio.Event()

    async def answer(request: InferRequest) -> InferResponse:
        await gate.wait()
        return doubled(request)

    async with running(wire, ModelServer(answer=answer), outputs="y", batch_size=4, concurrency=1) as (engine, served):
        answers = [asyncio.ensure_future(engine.submit(array(n, n, n))) for n in range(9)]
        await served.until(1)
        gate.set()
        assert [found.tolist() for found in await asyncio.gather(*answers)] == [[2 * n] * 3 for n in range(9)]
    assert served.rows == [4, 4, 1]


@both_wires
async def test_no_request_has_more_rows_than_the_remote_takes(wire: str) -> None:
    class Fan(Remote):
        def preprocess(self, count: int) -> Any:
            return Each(array(n, n, n) for n in range(count))

    async def answer(request: InferRequest) -> InferResponse:
        await server.until(3)  # they go at the same time
        return doubled(request)

    server = ModelServer(answer=answer, max_batch_size=2)
    async with WIRES[wire](server) as served:
        fan = Fan(served.url, "scores", Request(), outputs="y", batch_size=8, concurrency=1)
        async with Engine(Graph("g", fan)) as engine:
            assert [found[0] for found in await engine.submit(5)] == [0, 2, 4, 6, 8]
    assert sorted(served.rows) == [1, 2, 2]


@both_wires
async def test_a_model_without_batches_gets_sample_by_sample(wire: str) -> None:
    server = ModelServer(PLAIN, lambda request: response(request, y=request.inputs[0].array + 1))
    async with running(wire, server, batch_size=4) as (engine, served):
        found = await asyncio.gather(*(engine.submit(array(n, n)[None]) for n in range(3)))
    assert [each.tolist() for each in found] == [[[n + 1, n + 1]] for n in range(3)]
    assert served.rows == [1, 1, 1]


@both_wires
async def test_samples_of_different_shapes_go_apart(wire: str) -> None:
    metadata = ModelMetadata("sums", (TensorMetadata("x", "FP32", (-1, -1)),), (TensorMetadata("y", "FP32", (-1,)),))
    server = ModelServer(metadata, lambda request: response(request, y=request.inputs[0].array.sum(-1)))
    async with running(wire, server, batch_size=8) as (engine, served):
        assert await asyncio.gather(*(engine.submit(array(*range(n))) for n in (1, 2, 3, 2))) == [0, 1, 3, 1]
    assert all(len({request.inputs[0].shape[1]}) == 1 for request in served.requests)


@both_wires
async def test_several_inputs_of_several_types(wire: str) -> None:
    metadata = ModelMetadata(
        "two",
        (TensorMetadata("text", "BYTES", (-1, 1)), TensorMetadata("n", "INT64", (-1,))),
        (TensorMetadata("y", "BYTES", (-1, 1)),),
    )

    def answer(request: InferRequest) -> InferResponse:
        texts, counts = (each.array for each in request.inputs)
        rows = [text[0] * count for text, count in zip(texts, counts, strict=True)]
        return response(request, y=bytes_array(*rows).reshape(-1, 1))

    async with WIRES[wire](ModelServer(metadata, answer)) as served:
        request = Request(text=Tensor("BYTES", [1]), n=Tensor("INT64", []))
        two = Graph("g", Remote(served.url, "two", request.text, request.n))
        async with Engine(two) as engine:
            assert (await engine.submit({"text": ["ab"], "n": 2})).tolist() == [b"abab"]


@both_wires
async def test_a_value_that_does_not_fit_fails_alone_and_is_not_sent(wire: str) -> None:
    async with running(wire, outputs="y", batch_size=4) as (engine, served):
        values = [array(1, 1, 1), array(1, 1), array(2, 2, 2)]
        good, bad, other = await asyncio.gather(*map(engine.submit, values), return_exceptions=True)
    assert (good[0], other[0]) == (2, 4)
    assert isinstance(bad, BadRequest)
    assert bad.message == "op 'scores' preprocess: input 'x': expected shape [3], got [2]"
    assert sum(served.rows) == 2


@both_wires
async def test_a_preprocess_of_ones_own_is_checked_sample_by_sample(wire: str) -> None:
    class Own(Remote):
        def preprocess(self, count: int) -> Any:
            return Each([array(0, 0, 0), array(*range(count))])

        def postprocess(self, results: list[Any], count: int) -> int:
            return len(results)

    async with WIRES[wire]() as served:
        async with Engine(Graph("g", Own(served.url, "scores", Request(), batch_size=2))) as engine:
            assert await engine.submit(3) == 2
            with pytest.raises(BadRequest, match="op 'scores' process: input 'x': expected shape"):
                await engine.submit(2)


@both_wires
async def test_connections_are_used_again(wire: str) -> None:
    async with running(wire, concurrency=1) as (engine, served):
        for _ in range(5):
            await engine.submit(array(1, 2, 3))
    assert len(served.requests) == 5
    assert len(served.connections) == 1


@both_wires
async def test_a_version_is_asked_for(wire: str) -> None:
    async with running(wire, version="7") as (engine, served):
        await engine.submit(array(1, 2, 3))
    assert served.requests[0].model_version == "7"


@both_wires
async def test_headers_are_sent_and_the_remaining_time_too(wire: str) -> None:
    more = {"headers": {"Authorization": "Bearer secret"}, "timeout_ms": 5000}
    async with running(wire, **more) as (engine, served):
        await engine.submit(array(1, 2, 3))
    headers = served.headers[0]
    assert headers["authorization"] == "Bearer secret"
    assert 4 < remaining_s(wire, headers) <= 5


@both_wires
async def test_a_request_ends_with_the_last_deadline_of_its_samples(wire: str) -> None:
    gate = asyncio.Event()

    async def answer(request: InferRequest) -> InferResponse:
        await gate.wait()
        return doubled(request)

    async with running(wire, ModelServer(answer=answer), batch_size=2, concurrency=1) as (engine, served):
        first = asyncio.ensure_future(engine.submit(array(0, 0, 0)))
        await served.until(1)
        waiting = [asyncio.ensure_future(engine.submit(array(1, 1, 1), timeout=timeout)) for timeout in (2, 4)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *waiting)
    assert served.rows == [1, 2]
    assert remaining_s(wire, served.headers[0]) > 8
    assert 2 < remaining_s(wire, served.headers[1]) <= 4


def remaining_s(wire: str, headers: dict[str, str]) -> float:
    return float(headers["x-timeout-ms"]) / 1e3 if wire == "http" else float(headers["remaining_s"])


async def test_tensors_go_as_raw_bytes_where_the_server_takes_them() -> None:
    async with running("http") as (engine, served):
        found = await engine.submit(array(math.nan, 1, 2))
    assert served.headers[0]["inference-header-content-length"].isdigit()
    assert math.isnan(found["y"][0])


async def test_tensors_go_as_lists_where_the_server_takes_no_others() -> None:
    server = ModelServer(extensions=("statistics",))
    async with running("http", server) as (engine, served):
        found = await engine.submit(array(1, 2, 3))
    assert "inference-header-content-length" not in served.headers[0]
    assert served.headers[0]["content-type"] == "application/json"
    assert found["y"].tolist() == [2, 4, 6]


@both_wires
async def test_halves_come_and_go(wire: str) -> None:
    metadata = ModelMetadata(
        "halves",
        (TensorMetadata("a", "FP16", (-1, 2)), TensorMetadata("b", "BF16", (-1, 2))),
        (TensorMetadata("a", "FP16", (-1, 2)), TensorMetadata("b", "BF16", (-1, 2))),
    )
    server = ModelServer(metadata, lambda request: InferResponse(request.inputs))

    class Both(Remote):
        def preprocess(self, values: Any) -> Any:
            return np.array(values, np.float16), np.array(values, np.float32)

    async with WIRES[wire](server) as served:
        async with Engine(Graph("g", Both(served.url, "halves", Request()))) as engine:
            found = await engine.submit([1, 0.5])
    assert (found["a"].dtype, found["a"].tolist()) == (np.float16, [1, 0.5])
    assert (found["b"].dtype, found["b"].tolist()) == (np.float32, [1, 0.5])


@both_wires
async def test_a_tensor_of_some_megabytes_comes_back(wire: str) -> None:
    metadata = ModelMetadata("big", (TensorMetadata("x", "FP32", (-1, -1)),), (TensorMetadata("x", "FP32", (-1, -1)),))
    server = ModelServer(metadata, lambda request: InferResponse(request.inputs))
    value = np.arange(1_500_000, dtype=np.float32)
    async with running(wire, server) as (engine, _):
        assert np.array_equal(await engine.submit(value), value)


@both_wires
async def test_an_engine_runs_again_after_it_was_closed(wire: str) -> None:
    async with WIRES[wire]() as served:
        again = graph(served.url, outputs="sum")
        for _ in range(2):
            async with Engine(again) as engine:
                assert await engine.submit(array(1, 2, 3)) == 6


def test_an_engine_runs_again_on_another_loop() -> None:
    remote = Remote("http://127.0.0.1:1", "scores", Request(), outputs="sum")
    again = Graph("g", remote)

    async def once() -> float:
        async with http() as served:
            remote._remote._addresses = (Address.parse(served.url),)
            async with Engine(again) as engine:
                return float(await engine.submit(array(1, 2, 3)))

    assert asyncio.run(once()) == asyncio.run(once()) == 6


# -- several endpoints


async def test_several_endpoints_share_the_requests() -> None:
    async with http() as one, grpc_server() as two:
        async with Engine(graph([one.url, two.url])) as engine:
            for _ in range(10):
                await engine.submit(array(1, 2, 3))
    assert len(one.requests) == len(two.requests) == 5


async def test_the_endpoint_with_fewer_outstanding_gets_the_next_request() -> None:
    gate = asyncio.Event()

    async def slow(request: InferRequest) -> InferResponse:
        await gate.wait()
        return doubled(request)

    async with http(ModelServer(answer=slow)) as one, http() as two:
        async with Engine(graph([one.url, two.url], concurrency=4)) as engine:
            waiting = [asyncio.ensure_future(engine.submit(array(1, 2, 3))) for _ in range(2)]
            await one.until(1)
            await two.until(1)
            for _ in range(5):
                await engine.submit(array(1, 2, 3))
            assert len(one.requests) == 1
            gate.set()
            await asyncio.gather(*waiting)


async def test_endpoints_have_to_have_the_same_model() -> None:
    other = replace(SCORES, inputs=(TensorMetadata("x", "FP32", (-1, 4)),))
    async with http() as one, http(ModelServer(other)) as two:
        with pytest.raises(LoadError, match=r"remote model 'scores' is not the same at http://.* and http://"):
            await Engine(graph([one.url, two.url])).start()


# -- mistakes


@pytest.mark.parametrize(
    ("endpoints", "words"),
    [
        ("gpu:8000", "op 'scores': 'gpu:8000' is no endpoint: write http://host:8000 or grpc://host:8001"),
        ([], "op 'scores' has no endpoint"),
        (["http://a:1", "http://a:1"], "op 'scores': an endpoint is there twice"),
    ],
)
def test_a_wrong_endpoint_fails_at_import(endpoints: Any, words: str) -> None:
    with pytest.raises(GraphError) as error:
        Remote(endpoints, "scores", Request())
    assert str(error.value) == words


@pytest.mark.parametrize("headers", [{"a b": "x"}, {"": "x"}, {"a": "secret\r\nb: c"}, {"a": "secret\u00fc"}])
def test_a_header_that_cannot_be_sent_fails_at_import(headers: dict[str, str]) -> None:
    with pytest.raises(GraphError, match=r"op 'scores': header '.*' cannot be sent") as error:
        Remote("http://a:1", "scores", Request(), headers=headers)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(("model", "name"), [("resnet-50", "resnet_50"), ("BERT.v2", "bert_v2"), ("3d", "model_3d")])
def test_the_op_is_named_for_its_model(model: str, name: str) -> None:
    assert Remote("http://a:1", model, Request()).name == name


@both_wires
async def test_inputs_have_to_be_as_many_as_the_model_has(wire: str) -> None:
    request = Request(a=Tensor(), b=Tensor())
    async with WIRES[wire]() as served:
        two = Graph("g", Remote(served.url, "scores", request.a, request.b))
        with pytest.raises(LoadError, match=r"remote model 'scores' has 1 inputs \(x\), got 2"):
            await Engine(two).start()


@both_wires
async def test_a_model_that_is_not_there_is_told_at_the_start(wire: str) -> None:
    async with WIRES[wire]() as served:
        with pytest.raises(LoadError, match=r"op 'other' load_model: .* has no model 'other' of version '2'"):
            await Engine(graph(served.url, "other", version="2")).start()


@both_wires
async def test_an_output_that_is_not_there_is_told_at_the_start(wire: str) -> None:
    async with WIRES[wire]() as served:
        with pytest.raises(LoadError, match="has no output 'z'; it has y, sum"):
            await Engine(graph(served.url, outputs="z")).start()
