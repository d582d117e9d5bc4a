"""The Open Inference Protocol over a real socket, in this process: its routes, and what is refused on them."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ClassVar

import aiohttp
import numpy as np
import pytest

from asyncline import Engine, Graph, Op, ProductError, Reply, Request, Tensor, Text, op
from asyncline.observe.prometheus import Metrics
from asyncline.observe.statistics import Statistics
from asyncline.observe.usage import Usages
from asyncline.settings import Source, merge
from asyncline.transports.oip import Models
from asyncline.transports.rest.oip import OipRoutes
from asyncline.transports.rest.transport import RestTransport
from asyncline.wire.oip.rest import HEADER_LENGTH
from tests.transports.test_rest import Answer, Client

INFER = "/v2/models/test/infer"


@op(cpu="inline")
def same(value: Any) -> Any:
    return value


class Double(Op):
    """Doubles batches."""

    cpu = "inline"

    def process(self, batch: list[Any]) -> list[Any]:
        return [2 * each for each in batch]


@asynccontextmanager
async def serving(graph: Graph, **service: Any) -> AsyncIterator[Client]:
    written = {"service": {"http_port": 0, **service}, "dag": {"cpu_threads": 2}}
    settings = merge(graph.name, {o.name: o.code_settings for o in graph.ops}, Source("test", written))
    engine = Engine(graph, settings)
    statistics = Statistics(engine)
    engine.hooks.add(statistics)
    routes = [partial(OipRoutes, engine, Models(engine, Usages(engine, statistics)))]
    transport = RestTransport(engine, settings.service, Metrics(engine, statistics).render, routes=routes)
    await transport.start()
    try:
        async with engine, aiohttp.ClientSession(auto_decompress=False) as session:
            yield Client(session, engine, transport)
            assert engine.admission.in_flight == 0 and engine.admission.nbytes == 0
    finally:
        transport.close()
        await transport.wait_closed()


def numbers() -> Graph:
    return Graph("test", y=Double(Request(x=Tensor("FP32", [-1, 2])).x))


def tensor(data: Any = (1.0, 2.0), shape: Any = (1, 2), **more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": list(shape), "data": list(data), **more}


def binary(array: np.ndarray[Any, Any], **head: Any) -> tuple[bytes, dict[str, str]]:
    described = {
        "name": "x",
        "datatype": "FP32",
        "shape": array.shape,
        "parameters": {"binary_data_size": array.nbytes},
    }
    text = json.dumps({"inputs": [described], **head}).encode()
    return text + array.tobytes(), {HEADER_LENGTH: str(len(text))}


def values(answer: Answer) -> Any:
    """The one output, whatever its form."""
    assert answer.status == 200, answer.body
    if "Content-Encoding" in answer.headers:
        answer.body = zlib.decompress(answer.body, 47)  # the header's length is that of the JSON as it was
    length = answer.headers.get(HEADER_LENGTH)
    if length is None:
        (output,) = answer.json["outputs"]
        return output["data"]
    assert answer.headers["Content-Type"] == "application/octet-stream"
    (output,) = json.loads(answer.body[: int(length)])["outputs"]
    raw = answer.body[int(length) :]
    assert len(raw) == output["parameters"]["binary_data_size"]
    return np.frombuffer(raw, "<f4").reshape(output["shape"]).tolist()


def refused(answer: Answer) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/json" and set(answer.json) == {"error"}
    return answer.status, answer.json["error"]


# -- inference


async def test_json_in_json_out_with_the_id_and_the_version() -> None:
    async with serving(numbers()) as client:
        answer = await client.post(INFER, json={"id": "42", "inputs": [tensor()]})
        assert answer.json == {
            "id": "42",
            "model_name": "test",
            "model_version": "1",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 4.0]}],
        }
        assert answer.headers["X-Log-Id"] == "42" and "double.mid" in answer.headers["Server-Timing"]
        assert values(await client.post("/v2/models/test/versions/1/infer", json={"inputs": [tensor()]})) == [2, 4]


@pytest.mark.parametrize("size", [1, 100_000])  # with its head, and in many pieces after it
async def test_binary_tensors_in_and_out(size: int) -> None:
    array = np.arange(2 * size, dtype=np.float32).reshape(size, 2)
    async with serving(numbers()) as client:
        body, headers = binary(array, parameters={"binary_data_output": True})
        assert values(await client.post(INFER, data=body, headers=headers)) == (2 * array).tolist()
        body, headers = binary(array, outputs=[{"name": "y", "parameters": {"binary_data": False}}])
        assert values(await client.post(INFER, data=body, headers=headers)) == (2 * array).reshape(-1).tolist()


async def test_raw_bytes_are_the_only_input() -> None:
    graph = Graph("test", Double(Request(x=Tensor("FP32", [2])).x))
    async with serving(graph) as client:
        body = np.array([1, 2], "<f4").tobytes()
        assert values(await client.post(INFER, data=body, headers={HEADER_LENGTH: "0"})) == [2.0, 4.0]


@pytest.mark.parametrize(("name", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_bodies_are_compressed_both_ways(name: str, compress: Any) -> None:
    array = np.ones((50_000, 2), np.float32)
    async with serving(numbers()) as client:
        body, headers = binary(array, parameters={"binary_data_output": True})
        coded = {"Content-Encoding": name, "Accept-Encoding": name}
        answer = await client.post(INFER, data=compress(body), headers={**headers, **coded})
        assert answer.headers["Content-Encoding"] == name and len(answer.body) < 10_000
        assert values(answer) == (2 * array).tolist()


async def test_hooks_may_write_into_what_came() -> None:
    class Clear(Op):
        cpu = "inline"

        def preprocess(self, x: Any) -> Any:
            x[:] = 0
            return x

    async with serving(Graph("test", Clear(Request(x=Tensor("FP32", [-1, 2])).x))) as client:
        for size in (1, 2, 3, 50_000):
            body, headers = binary(np.ones((size, 2), np.float32))
            assert set(values(await client.post(INFER, data=body, headers=headers))) == {0.0}
            headers["Content-Encoding"] = "gzip"
            assert set(values(await client.post(INFER, data=gzip.compress(body), headers=headers))) == {0.0}


async def test_large_json_is_decoded_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    decode = OipRoutes._decode

    def noting(self: OipRoutes, *args: Any) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            threads.append(True)
        return decode(self, *args)

    monkeypatch.setattr(OipRoutes, "_decode", noting)
    async with serving(numbers()) as client:
        assert values(await client.post(INFER, json={"inputs": [tensor()]})) == [2, 4]
        assert not threads
        large = [1.0] * 200_000
        assert len(values(await client.post(INFER, json={"inputs": [tensor(large, (100_000, 2))]}))) == 200_000
        assert threads


async def test_the_parameters_timeout_and_priority() -> None:
    class Forever(Op):
        async def preprocess(self, text: str) -> None:
            await asyncio.Event().wait()

    async with serving(Graph("test", Forever(Request(t=Text()).t))) as client:
        late = {"name": "t", "datatype": "BYTES", "shape": [1], "data": ["a"]}
        body = {"inputs": [late], "parameters": {"timeout": 20_000, "priority": 1}}
        status, error = refused(await client.post(INFER, json=body))
        assert status == 504 and "the deadline of 20 ms passed in op 'forever'" in error
        body["parameters"] = {"timeout": -1}
        assert refused(await client.post(INFER, json=body))[0] == 400
        headers = {"X-Timeout-Ms": "30"}
        assert "deadline of 30 ms" in refused(await client.post(INFER, json={"inputs": [late]}, headers=headers))[1]


async def test_a_stream_is_the_list_of_its_parts() -> None:
    class Count(Op):
        async def preprocess(self, n: int) -> AsyncIterator[int]:
            for each in range(n):
                yield each

    async with serving(Graph("test", Count(Request()))) as client:
        sent = {"name": "input", "datatype": "BYTES", "shape": [1], "data": ["3"]}
        assert values(await client.post(INFER, json={"inputs": [sent]})) == ["[0,1,2]"]
        assert (await client.get("/v2/models/test/config")).json["model_transaction_policy"] == {"decoupled": True}


async def test_each_output_of_a_stream_is_a_list() -> None:
    class Words(Op):
        returns: ClassVar = {"word": Text(), "place": Tensor("INT64", [1])}

        async def preprocess(self, text: str) -> AsyncIterator[Any]:
            for place, word in enumerate(text.split()):
                yield {"word": word, "place": np.array([place])}

    async with serving(Graph("test", Words(Request(text=Text()).text))) as client:
        sent = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["to be"]}
        answer = await client.post(INFER, json={"inputs": [sent]})
        outputs = {each["name"]: (each["datatype"], each["shape"], each["data"]) for each in answer.json["outputs"]}
        assert outputs == {"word": ("BYTES", [1], ['["to","be"]']), "place": ("BYTES", [1], ["[[0],[1]]"])}


@op(cpu="inline")
def fail(x: Any) -> Any:
    if x.size == 2:
        raise ProductError(7, "too few")
    if x.size == 4:
        return Reply("early")
    if x.size == 6:
        return x.astype(complex)
    raise ValueError(f"at /etc/passwd: {x.size}")


async def test_what_an_op_raises_is_an_error_of_the_protocol() -> None:
    async with serving(Graph("test", y=fail(Request(x=Tensor("FP32", [-1, 2])).x))) as client:

        async def asked(rows: int) -> tuple[int, str]:
            return refused(await client.post(INFER, json={"inputs": [tensor([1.0] * 2 * rows, (rows, 2))]}))

        assert await asked(1) == (422, "too few")
        assert await asked(2) == (500, "the answer has no output 'y'")
        assert await asked(3) == (500, "output 'y': dtype complex128 has no datatype in the Open Inference Protocol")
        assert await asked(4) == (500, "op 'fail' preprocess: ValueError: at <path>: 8")


# -- what is refused


HUGE = 2**62
MALFORMED: list[tuple[Any, int, str]] = [
    (b"", 400, "empty"),
    (b"{", 400, "no JSON"),
    (b"[]", 400, "expected an object"),
    (b"[" * 100_000, 400, "no JSON"),
    (b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "no JSON"),
    ({"inputs": [tensor([1.0], (1, 2))]}, 400, "input 'x': shape [1, 2] is 2 elements, got 1"),
    ({"inputs": [tensor([1.0] * 3)]}, 400, "input 'x': shape [1, 2] is 2 elements, got 3"),
    ({"inputs": [tensor(shape=[HUGE, HUGE])]}, 400, "input 'x': shape [4611686018427387904, 4611686018427387904]"),
    ({"inputs": [tensor(shape=[0, HUGE])]}, 400, "is too large"),
    ({"inputs": [tensor(shape=[-1, 2])]}, 400, "input 'x': shape is no list of lengths"),
    ({"inputs": [tensor(shape=[1.0, 2])]}, 400, "input 'x': shape is no list of lengths"),
    ({"inputs": [tensor(datatype="OBJECT")]}, 400, "input 'x': no datatype 'OBJECT'"),
    ({"inputs": [tensor(datatype="BYTES")]}, 400, "input 'x': expected strings, got a number"),
    ({"inputs": [tensor(datatype="FP64")]}, 400, "input 'x': expected FP32, got FP64"),
    ({"inputs": [tensor([1.0, "a"])]}, 400, "input 'x': expected numbers, got a string"),
    ({"inputs": [tensor(), tensor()]}, 400, "input 'x' is there twice"),
    ({"inputs": [tensor(name="z")]}, 400, "no input 'z' (there are: x)"),
    ({"inputs": []}, 400, "input 'x' is missing"),
    ({"inputs": [tensor()], "outputs": [{"name": "z"}]}, 400, "no output 'z' (there are: y)"),
    ({"inputs": [tensor(parameters={"binary_data_size": 8})]}, 400, "both data and binary_data_size"),
    ({"inputs": [tensor(parameters={"shared_memory_region": "r"})]}, 400, "shared memory, which is not served"),
    (
        {"inputs": [tensor()], "outputs": [{"name": "y", "parameters": {"classification": 1}}]},
        400, "output 'y': classification is not served",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "says"), MALFORMED)
async def test_what_does_not_fit_is_named(body: Any, status: int, says: str) -> None:
    async with serving(numbers()) as client:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        got = refused(await client.post(INFER, data=data))
        assert got[0] == status and says in got[1]


@pytest.mark.parametrize(
    ("length", "says"),
    [
        ("999999999", "is more than the body's"),
        ("1", "no JSON"),
        ("-1", "no number of bytes"),
        ("1e2", "no number of bytes"),
        ("9" * 40, "no number of bytes"),
        ("0", "FP32 of shape"),  # all of it is the tensor, and 8 does not divide that
    ],
)
@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_wrong_length_of_the_json_is_refused(length: str, says: str, in_pieces: bool) -> None:
    rows = 40_000 if in_pieces else 1
    async with serving(numbers()) as client:
        body, _ = binary(np.ones((rows, 2), np.float32))
        body += b" " * (-len(body) % 8 + 4)
        status, error = refused(await client.post(INFER, data=body, headers={HEADER_LENGTH: length}))
        assert status == 400 and says in error


@pytest.mark.parametrize(
    ("size", "sent", "says"),
    [
        (8, 4, "binary_data_size is 8, but 4 bytes are left"),
        (8, 12, "4 bytes come after the last input"),
        (4, 4, "FP32 of shape [1, 2] is 8 bytes, got 4"),
        (-1, 8, "binary_data_size is no number of bytes"),
        (2**70, 8, "binary_data_size"),
    ],
)
async def test_a_binary_tensor_longer_or_shorter_than_it_says_is_refused(size: int, sent: int, says: str) -> None:
    described = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": size}}
    text = json.dumps({"inputs": [described]}).encode()
    async with serving(numbers()) as client:
        answer = await client.post(INFER, data=text + bytes(sent), headers={HEADER_LENGTH: str(len(text))})
        status, error = refused(answer)
        assert status == 400 and says in error


async def test_a_bomb_is_refused() -> None:
    async with serving(numbers(), max_body_mb=0.5) as client:
        bomb = gzip.compress(b" " * 10_000_000)
        status, error = refused(await client.post(INFER, data=bomb, headers={"Content-Encoding": "gzip"}))
        assert status == 413 and "once it is inflated" in error
        status, _ = refused(await client.post(INFER, data=b"{}", headers={"Content-Encoding": "br"}))
        assert status == 415


async def test_refusals_at_the_door_are_errors_of_the_protocol() -> None:
    async with serving(numbers(), auth_token="secret", max_body_mb=0.001) as client:
        answer = await client.post(INFER, json={"inputs": [tensor()]})
        assert refused(answer)[0] == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
        for path in ("/v2/models/stats", "/v2/models/test/stats"):
            assert refused(await client.get(path))[0] == 401
        assert (await client.get("/v2/models/test")).status == 200
        token = {"Authorization": "Bearer secret"}
        assert refused(await client.post(INFER, data=bytes(1001), headers=token))[0] == 413
        assert values(await client.post(INFER, json={"inputs": [tensor()]}, headers=token)) == [2, 4]


# -- what is said


async def test_the_server_says_what_it_is_and_how_it_is() -> None:
    async with serving(numbers()) as client:
        said = (await client.get("/v2")).json
        assert said["name"] == "asyncline" and {"statistics", "binary_tensor_data"} <= set(said["extensions"])
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/test/ready", "/v2/models/double/ready"):
            assert (await client.get(path)).status == 200
        assert (await client.post("/v2/repository/index")).json == [
            {"name": "test", "version": "1", "state": "READY"},
            {"name": "double", "version": "1", "state": "READY"},
        ]
        assert len((await client.post("/v2/repository/index", json={"ready": True})).json) == 2
        assert (await client.get("/v2/models/test/versions/1")).json == {
            "name": "test",
            "versions": ["1"],
            "platform": "ensemble",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
            "outputs": [{"name": "y", "datatype": "", "shape": []}],
        }
        config = (await client.get("/v2/models/test/config")).json
        assert config["ensemble_scheduling"]["step"][0] | {"input_map": 0, "output_map": 0} == {
            "model_name": "double", "model_version": -1, "input_map": 0, "output_map": 0,
        }  # fmt: skip


async def test_an_engine_that_is_not_ready_is_alive_only() -> None:
    async with serving(numbers()) as client:
        client.engine.state = "draining"
        assert (await client.get("/v2/health/live")).status == 200
        for path in ("/v2/health/ready", "/v2/models/test/ready"):
            assert (await client.get(path)).status == 503
        assert refused(await client.post(INFER, json={"inputs": [tensor()]})) == (503, "the server is draining")
        assert (await client.post("/v2/repository/index", json={"ready": True})).json == []
        client.engine.state = "ready"


async def test_statistics_add_up() -> None:
    async with serving(numbers()) as client:
        for _ in range(3):
            await client.post(INFER, json={"inputs": [tensor()]})
        graph, double = (await client.get("/v2/models/stats")).json["model_stats"]
        assert (graph["name"], graph["version"], graph["inference_count"]) == ("test", "1", 3)
        stats = double["inference_stats"]
        assert {each["count"] for name, each in stats.items() if name not in ("fail", "cache_hit", "cache_miss")} == {3}
        assert double["execution_count"] == sum(each["compute_infer"]["count"] for each in double["batch_stats"]) == 3
        (alone,) = (await client.get("/v2/models/double/stats")).json["model_stats"]
        assert alone["inference_stats"]["success"] == stats["success"]


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/v2/models/nope", 404, "there is no model 'nope' (there are: test, double)"),
        ("GET", "/v2/models/test/versions/2/ready", 404, "has no version '2'"),
        ("POST", "/v2/models/nope/infer", 404, "no model 'nope'"),
        ("POST", "/v2/models/double/infer", 400, "model 'double' is an op of graph 'test'"),
        ("GET", "/v2/models/test/infer", 405, "POST is"),
        ("POST", "/v2", 405, "GET, HEAD is"),
        ("POST", "/v2/models/test/generate", 404, "no such route of a model"),
        ("GET", "/v2/trace/setting", 404, "no such route"),
        ("GET", "/v2/logging", 404, "no such route"),
        ("POST", "/v2/repository/models/test/load", 400, "there is nothing to load"),
        ("POST", "/v2/repository/models/test/unload", 400, "there is nothing to unload"),
        ("POST", "/v2/systemsharedmemory/region/r/register", 400, "memory is not shared"),
    ],
)
async def test_what_there_is_not_is_refused_clearly(method: str, path: str, status: int, says: str) -> None:
    async with serving(numbers()) as client:
        url = client.transport.address + path
        async with client.session.request(method, url, json={"inputs": [tensor()]}) as response:
            answer = Answer(response.status, await response.read(), response.headers.copy())
        assert refused(answer)[0] == status and says in answer.json["error"]


async def test_nothing_is_registered_and_may_be_unregistered() -> None:
    async with serving(numbers()) as client:
        for kind in ("system", "cuda"):
            assert (await client.get(f"/v2/{kind}sharedmemory/status")).json == []
            assert (await client.post(f"/v2/{kind}sharedmemory/unregister")).status == 200
            assert (await client.post(f"/v2/{kind}sharedmemory/region/r/unregister")).status == 200


async def test_a_long_body_of_no_inference_is_refused() -> None:
    async with serving(numbers()) as client:
        answer = await client.post("/v2/repository/index", data=b" " * 100_000)
        assert refused(answer) == (413, "the body is over the limit of 65536 bytes")
