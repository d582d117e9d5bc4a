"""The Open Inference Protocol's own clients, unmodified, against a served model file: tritonclient, perf_analyzer, and
our Remote."""

from __future__ import annotations

import asyncio
import csv
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncline import Engine, Graph, Request, Tensor
from asyncline.client import Remote
from tests.backends.onnx_models import WEIGHTS, linear
from tests.serving import Server, serving

triton = pytest.importorskip("tritonclient.http")
triton_aio = pytest.importorskip("tritonclient.http.aio")

PERF_ANALYZER = os.environ.get("PERF_ANALYZER") or shutil.which("perf_analyzer") or ""

APP = """
from asyncline import Graph, Op, Request, Tensor
from asyncline.backends import Model

class Half(Op):
    cpu = "inline"
    takes_rows = True
    returns = {"half": Tensor("FP32", [-1, 4])}

    def preprocess(self, x):
        return x / 2

request = Request(x=Tensor("FP32", [-1, 4]))
graph = Graph("pipeline", Model("net.onnx", Half(request.x), rows=True, name="net", batch_size=8))
"""

X = np.arange(8, dtype=np.float32).reshape(2, 4)
Y = X / 2 @ WEIGHTS
LARGE = np.tile(X, (20_000, 1))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("oip")
    linear(folder / "net.onnx")
    (folder / "app.py").write_text(APP)
    with serving("app:graph", "--grpc-port", "0", "--tcp-port", "0", cwd=folder) as running:
        yield running


@pytest.fixture(scope="module")
def grpc_place(server: Server) -> str:
    return server.wait_for(r"on grpc://(\S+)")[1]


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    made = triton.InferenceServerClient(server.address.removeprefix("http://"))
    yield made
    made.close()


def inputs(x: np.ndarray[Any, Any] = X, *, binary: bool = True) -> list[Any]:
    made = triton.InferInput("x", list(x.shape), "FP32")
    made.set_data_from_numpy(x, binary_data=binary)
    return [made]


def outputs(*, binary: bool) -> list[Any]:
    return [triton.InferRequestedOutput("y", binary_data=binary)]


CODINGS = [None, "gzip", "deflate"]


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("answer_coding", CODINGS)
@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_infers_in_json_and_binary_compressed_both_ways(
    client: Any, binary: bool, coding: str | None, answer_coding: str | None
) -> None:
    for x, y in ((X, Y), (LARGE, LARGE / 2 @ WEIGHTS)):
        result = client.infer(
            "pipeline",
            inputs(x, binary=binary),
            outputs=outputs(binary=not binary),
            request_id="9",
            timeout=10_000_000,
            priority=1,
            request_compression_algorithm=coding,
            response_compression_algorithm=answer_coding,
        )
        assert np.allclose(result.as_numpy("y"), y) and result.get_response()["id"] == "9"


async def test_tritonclient_infers_asynchronously(server: Server) -> None:
    async with triton_aio.InferenceServerClient(server.address.removeprefix("http://")) as client:
        assert await client.is_server_ready() and await client.is_model_ready("pipeline", "1")
        for coding in CODINGS:
            codings = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
            asked = [client.infer("pipeline", inputs(x, binary=binary), **codings) for binary in (True, False)
                     for x in (X, LARGE)]  # fmt: skip
            for result, y in zip(await asyncio.gather(*asked), [Y, LARGE / 2 @ WEIGHTS] * 2, strict=True):
                assert np.allclose(result.as_numpy("y"), y)
        metadata = await client.get_model_metadata("pipeline")
        assert metadata["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]
        assert (await client.get_inference_statistics("net"))["model_stats"][0]["execution_count"] > 0


def test_tritonclient_reads_health_metadata_configuration_index_and_statistics(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("net")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata()["name"] == "asyncline"
    assert [each["name"] for each in client.get_model_repository_index()] == ["pipeline", "half", "net"]
    config = client.get_model_config("pipeline")
    assert [step["model_name"] for step in config["ensemble_scheduling"]["step"]] == ["half", "net"]
    assert client.get_model_config("net")["max_batch_size"] == 8
    before = client.get_inference_statistics("pipeline")["model_stats"][0]
    client.infer("pipeline", inputs())
    after = client.get_inference_statistics("pipeline")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 2
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 1
    client.unregister_system_shared_memory()
    assert client.get_system_shared_memory_status() == []


@pytest.mark.parametrize(
    ("ask", "status", "says"),
    [
        (lambda client: client.infer("nope", inputs()), "404", "there is no model 'nope'"),
        (lambda client: client.infer("net", inputs()), "400", "is an op of graph 'pipeline'"),
        (lambda client: client.infer("pipeline", []), "400", "input 'x' is missing"),
        (lambda client: client.infer("pipeline", inputs(X[:, :3])), "400", "expected shape [-1, 4], got [2, 3]"),
        (lambda client: client.infer("pipeline", inputs(), sequence_id=3), "400", "sequences are not served"),
        (lambda client: client.load_model("net"), "400", "there is nothing to load"),
        (lambda client: client.register_system_shared_memory("r", "/r", 8), "400", "memory is not shared"),
    ],
)
def test_tritonclient_reads_our_errors(client: Any, ask: Any, status: str, says: str) -> None:
    with pytest.raises(triton.InferenceServerException) as refused:
        ask(client)
    assert refused.value.status() == status and says in refused.value.message()


async def test_remote_lays_requests_together_where_the_graph_takes_rows(server: Server) -> None:
    request = Request(x=Tensor("FP32", [4]))
    remote = Remote(server.address, "pipeline", request.x, batch_size=8)
    async with Engine(Graph("caller", remote)) as engine:
        rows = await asyncio.gather(*(engine.submit({"x": row}) for row in LARGE[:50]))
    assert np.allclose(rows, LARGE[:50] / 2 @ WEIGHTS)


@pytest.mark.skipif(not PERF_ANALYZER, reason="no perf_analyzer: PERF_ANALYZER names it, or PATH has it")
@pytest.mark.parametrize(("wire", "tensor_format"), [("http", "binary"), ("http", "json"), ("grpc", "binary")])
def test_perf_analyzer_shows_where_time_goes_in_each_op(
    server: Server, grpc_place: str, tmp_path: Path, wire: str, tensor_format: str
) -> None:
    place = grpc_place if wire == "grpc" else server.address.removeprefix("http://")
    command = [
        PERF_ANALYZER, "-m", "pipeline", "-i", wire, "-u", place, "-b", "4",
        "--concurrency-range", "2", "--measurement-interval", "300", "--stability-percentage", "500",
        "--input-tensor-format", tensor_format, "--output-tensor-format", tensor_format, "-f", "report.csv",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    composing = done.stdout.partition("Composing models:")[2]
    assert "half, version: 1" in composing and "net, version: 1" in composing
    for name in ("half", "net"):
        (line,) = csv.DictReader((tmp_path / f"{name}_v1.report.csv").read_text().splitlines())
        assert float(line["Server Queue"]) >= 0 and float(line["Inferences/Second"]) > 0
        spent = "Server Compute Infer" if name == "net" else "Server Compute Input"
        assert float(line[spent]) > 0


# -- gRPC


def grpc_inputs(module: Any, x: np.ndarray[Any, Any] = X) -> list[Any]:
    made = module.InferInput("x", list(x.shape), "FP32")
    made.set_data_from_numpy(x)
    return [made]


def test_tritonclient_infers_over_grpc(grpc_place: str) -> None:
    module = pytest.importorskip("tritonclient.grpc")
    with module.InferenceServerClient(grpc_place) as client:
        assert client.is_server_ready() and client.is_model_ready("pipeline") and not client.is_model_ready("nope")
        for coding in CODINGS:
            result = client.infer("pipeline", grpc_inputs(module), request_id="9", compression_algorithm=coding)
            assert np.allclose(result.as_numpy("y"), Y) and result.get_response().id == "9"
        assert len(client.get_model_config("pipeline").config.ensemble_scheduling.step) == 2
        assert client.get_inference_statistics("net").model_stats[0].execution_count > 0
        with pytest.raises(triton.InferenceServerException, match="there is no model 'nope'"):
            client.infer("nope", grpc_inputs(module))


async def test_tritonclient_infers_over_grpc_asynchronously(grpc_place: str) -> None:
    module = pytest.importorskip("tritonclient.grpc.aio")
    async with module.InferenceServerClient(grpc_place) as client:
        asked = [client.infer("pipeline", grpc_inputs(module, x)) for x in (X, LARGE)]
        for result, y in zip(await asyncio.gather(*asked), [Y, LARGE / 2 @ WEIGHTS], strict=True):
            assert np.allclose(result.as_numpy("y"), y)


async def test_remote_asks_over_grpc(grpc_place: str) -> None:
    request = Request(x=Tensor("FP32", [4]))
    remote = Remote(f"grpc://{grpc_place}", "pipeline", request.x, batch_size=8)
    async with Engine(Graph("caller", remote)) as engine:
        rows = await asyncio.gather(*(engine.submit({"x": row}) for row in LARGE[:50]))
    assert np.allclose(rows, LARGE[:50] / 2 @ WEIGHTS)


# -- KServe


async def test_kserves_clients_infer_over_http_and_grpc(server: Server, grpc_place: str) -> None:
    kserve = pytest.importorskip("kserve")
    rest = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2"))
    grpc = kserve.InferenceGRPCClient(grpc_place)
    try:
        assert await rest.is_server_ready(server.address) and await rest.is_model_ready(server.address, "pipeline")
        assert await grpc.is_server_ready() and await grpc.is_model_ready("pipeline")
        for binary in (True, False):
            made = kserve.InferInput("x", list(X.shape), "FP32")
            made.set_data_from_numpy(X, binary_data=binary)
            asked = kserve.InferRequest(model_name="pipeline", infer_inputs=[made])
            for answer in (await rest.infer(server.address, asked, model_name="pipeline"), await grpc.infer(asked)):
                assert np.allclose(answer.outputs[0].as_numpy(), Y)
    finally:
        await rest.close()
        await grpc.close()
