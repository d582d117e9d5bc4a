"""The Open Inference Protocol over gRPC as served: by tritonclient, unmodified, and by our own Remote."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from asyncline import BadRequest, Engine, Graph, Request
from asyncline.client import Remote
from tests.serving import Server, serving

pytest.importorskip("grpc", reason="pip install grpcio")  # without it tritonclient raises something else
triton = pytest.importorskip("tritonclient.grpc")
triton_aio = pytest.importorskip("tritonclient.grpc.aio")

X = np.arange(8, dtype=np.float32).reshape(2, 4)


@contextmanager
def served(name: str) -> Iterator[tuple[Server, str]]:
    """An app of `tests/services/tensors.py`, and where it listens for gRPC."""
    with serving(f"tensors:{name}", "--grpc-port", "0") as server:
        yield server, server.wait_for(r"and on grpc://(\S+)")[1]


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    with served("graph") as (_, place):
        yield place


@pytest.fixture
def client(place: str) -> Iterator[Any]:
    with triton.InferenceServerClient(place) as made:
        yield made


def tensor(array: np.ndarray[Any, Any], name: str = "x", kind: Any = triton) -> Any:
    made = kind.InferInput(name, array.shape, triton.np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


class Stream:
    """ModelStreamInfer of a client; what is said is in order."""

    def __init__(self, client: Any) -> None:
        self._said: queue.Queue[Any] = queue.Queue()
        self._client = client

    def __enter__(self) -> Stream:
        self._client.start_stream(lambda result, error: self._said.put((result, error)))
        return self

    def __exit__(self, *_: Any) -> None:
        self._client.stop_stream(cancel_requests=True)

    def infer(self, model: str, array: np.ndarray[Any, Any], name: str = "x", **options: Any) -> None:
        self._client.async_stream_infer(model, [tensor(array, name)], **options)

    def next(self) -> tuple[Any, Any]:
        result, error = self._said.get(timeout=20)
        return result, error


def is_final(result: Any) -> bool:
    return bool(result.get_response().parameters["triton_final_response"].bool_param)


# -- one request ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("rows", [0, 2, 50_000])
def test_tritonclient_infers(client: Any, compression: str | None, rows: int) -> None:
    x = np.resize(X, (rows, 4))
    result = client.infer("pair", [tensor(x)], request_id="7", compression_algorithm=compression)
    assert np.array_equal(result.as_numpy("y"), 2 * x) and result.get_response().id == "7"


def test_typed_contents_are_read(client: Any) -> None:
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name="pair")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([1, 2, 3, 4])
    response = client._client_stub.ModelInfer(request)
    assert np.frombuffer(response.raw_output_contents[0], np.float32).tolist() == [2, 4, 6, 8]


async def test_tritonclient_infers_asynchronously(place: str) -> None:
    import grpc

    grpc.aio.init_grpc_aio()  # for good: it ends a thread with the last channel
    async with triton_aio.InferenceServerClient(place) as client:
        result = await client.infer("pair", [tensor(X, kind=triton_aio)])
        assert np.array_equal(result.as_numpy("y"), 2 * X)


async def test_our_own_remote_infers(place: str) -> None:
    async with Engine(Graph("g", Remote(f"grpc://{place}", "pair", Request(), outputs="y"))) as engine:
        assert np.array_equal(await engine.submit(X), 2 * X)
        with pytest.raises(BadRequest):
            await engine.submit(X[:, :3])


def test_metadata_configuration_index_health_and_statistics_are_told(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("pair", "1")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata().name == "asyncline"
    metadata = client.get_model_metadata("pair")
    (x,) = metadata.inputs
    assert (metadata.platform, x.name, x.datatype, list(x.shape)) == ("ensemble", "x", "FP32", [-1, 4])
    config = client.get_model_config("pair").config
    assert [step.model_name for step in config.ensemble_scheduling.step] == ["twice"]
    assert not config.model_transaction_policy.decoupled
    index = client.get_model_repository_index().models
    assert [(model.name, model.state) for model in index] == [("pair", "READY"), ("twice", "READY")]
    before = client.get_inference_statistics("pair").model_stats[0].inference_stats.success.count
    client.infer("pair", [tensor(X)])
    (counted,) = client.get_inference_statistics("pair").model_stats
    assert counted.inference_stats.success.count == before + 1 and counted.inference_stats.queue.count == before + 1
    assert {model.name for model in client.get_inference_statistics().model_stats} == {"pair", "twice"}


@pytest.mark.parametrize(
    ("ask", "status", "says"),
    [
        (lambda client: client.infer("nope", [tensor(X)]), "NOT_FOUND", "there is no model 'nope'"),
        (lambda client: client.infer("pair", [tensor(X)], "2"), "NOT_FOUND", "model 'pair' has no version '2'"),
        (lambda client: client.infer("pair", [tensor(X, "z")]), "INVALID_ARGUMENT", "input"),
        (lambda client: client.infer("pair", [tensor(X[:, :3])]), "INVALID_ARGUMENT", "x"),
        (lambda client: client.infer("twice", [tensor(X)]), "INVALID_ARGUMENT", "is not run alone"),
        (lambda client: client.get_model_config("nope"), "NOT_FOUND", "there is no model 'nope'"),
        (lambda client: client.load_model("pair"), "UNIMPLEMENTED", "models are not loaded or unloaded"),
        (lambda client: client.unload_model("pair"), "UNIMPLEMENTED", "models are not loaded or unloaded"),
        (lambda client: client.get_system_shared_memory_status(), "UNIMPLEMENTED", "shared memory are not served"),
        (lambda client: client.register_cuda_shared_memory("r", b"", 0, 8), "UNIMPLEMENTED", "are not served"),
        (lambda client: client.get_trace_settings(), "UNIMPLEMENTED", "there are no trace settings"),
        (lambda client: client.update_log_settings({}), "UNIMPLEMENTED", "the log is not set by clients"),
    ],
)
def test_errors_are_told_as_tritonclient_expects_them(client: Any, ask: Any, status: str, says: str) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException) as caught:
        ask(client)
    assert caught.value.status() == f"StatusCode.{status}" and says in caught.value.message()


# -- many on one call -----------------------------------------------------------------------------------


def test_a_stream_answers_every_request_with_its_id(client: Any) -> None:
    with Stream(client) as stream:
        for n in range(300):
            stream.infer("pair", X + n, request_id=str(n))
        said = [stream.next() for _ in range(300)]
    assert all(error is None and is_final(result) for result, error in said)
    found = {int(result.get_response().id): result.as_numpy("y") for result, _ in said}
    assert sorted(found) == list(range(300)) and all(np.array_equal(y, 2 * (X + n)) for n, y in found.items())


def test_an_error_on_a_stream_is_an_answer_and_the_stream_goes_on(client: Any) -> None:
    with Stream(client) as stream:
        stream.infer("pair", X, "z", request_id="bad")
        stream.infer("nope", X, request_id="none")
        stream.infer("pair", X, request_id="good")
        (_, bad), (_, none), (good, error) = stream.next(), stream.next(), stream.next()
    assert "input" in bad.message() and "there is no model 'nope'" in none.message()
    assert error is None and good.get_response().id == "good"


def test_an_error_on_a_stream_has_the_id_of_its_request(place: str) -> None:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    with grpc.insecure_channel(place) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        (said,) = stub.ModelStreamInfer(iter([service_pb2.ModelInferRequest(model_name="nope", id="9")]), timeout=20)
    assert said.error_message.startswith("there is no model 'nope'") and said.infer_response.id == "9"


def test_a_stream_answers_in_the_order_of_completion() -> None:
    with served("nap") as (_, place), triton.InferenceServerClient(place) as client, Stream(client) as stream:
        stream.infer("nap", np.array([1], np.float32), request_id="slow")
        stream.infer("nap", np.array([0], np.float32), request_id="fast")
        assert [stream.next()[0].get_response().id for _ in range(2)] == ["fast", "slow"]


def test_a_graph_that_streams_answers_part_by_part_and_says_which_is_the_last_if_asked_to() -> None:
    with served("count") as (_, place), triton.InferenceServerClient(place) as client:
        three = np.array([3], np.int32)
        with Stream(client) as stream:
            stream.infer("count", three, "n", request_id="a", enable_empty_final_response=True)
            parts = [stream.next()[0] for _ in range(4)]
            assert [part.as_numpy("i")[0] for part in parts[:3]] == [0, 1, 2]
            assert parts[3].as_numpy("i") is None and [*map(is_final, parts)] == [False, False, False, True]
            assert {part.get_response().id for part in parts} == {"a"}
            stream.infer("count", np.array([1], np.int32), "n")
            stream.infer("count", np.array([1], np.int32), "n", request_id="next")
            assert [stream.next()[0].get_response().id for _ in range(2)] == ["", "next"]
        assert client.get_model_config("count").config.model_transaction_policy.decoupled
        with pytest.raises(triton.InferenceServerException, match="answers in parts: infer it by ModelStreamInfer"):
            client.infer("count", [tensor(three, "n")])


def test_parts_that_are_not_taken_are_not_made() -> None:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    with served("flood") as (server, place), grpc.insecure_channel(place) as channel:
        request = service_pb2.ModelInferRequest(model_name="flood", raw_input_contents=[b"\1\0\0\0"])
        request.inputs.add(name="n", datatype="INT32", shape=[1])
        parts = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([request]))
        assert len(next(parts).infer_response.raw_output_contents[0]) == 1_000_000
        assert server.get("/readyz")[0] == 200  # the loop is not kept busy
        metrics = server.get("/metrics")[1]
        assert "asyncline_in_flight 1.0" in metrics
        kept = next(
            float(line.split()[1]) for line in metrics.splitlines() if line.startswith("asyncline_in_flight_bytes")
        )
        assert kept < 10_000_000
        parts.cancel()
