"""server_endpoints: models at other servers, and other pipelines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from asyncline import DeadlineExceeded, Engine, LoadError, SettingsError, Unavailable
from asyncline.paddle import Op
from asyncline.paddle.pipeline_client import PipelineClient
from asyncline.transports.grpc.paddle import PaddleService
from asyncline.transports.grpc.transport import GrpcTransport
from asyncline.wire.oip import InferRequest, InferResponse, ModelMetadata, TensorMetadata
from asyncline.wire.paddle import number_of
from tests.client.servers import Failure, ModelServer, closed_port, doubled, grpc_server, http

from .pipelines import ask, ask_all, entry, prepared, refused, request, running

WIRES = {"http": http, "grpc": grpc_server}
both_wires = pytest.mark.parametrize("wire", WIRES)


class Uses(Op):
    """Feeds rows of three numbers to the model `scores`."""

    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        numbers = [float(word) for word in input_dicts["@DAGExecutor"]["x"].split()]
        return {"x": np.array([numbers])}, False, None, ""

    def postprocess(self, input_data: Any, fetch_data: Any, data_id: int, log_id: int) -> Any:
        return {name: str(value.tolist()) for name, value in fetch_data.items()}, None, ""


@both_wires
async def test_process_runs_the_model_there(wire: str) -> None:
    async with WIRES[wire]() as served, running(Uses("scores", entry(), server_endpoints=[served.url])) as engine:
        assert await ask(engine, x="1 2 3") == {"y": "[[2.0, 4.0, 6.0]]", "sum": "[6.0]"}
        assert await ask(engine, x="0 1 0") == {"y": "[[0.0, 2.0, 0.0]]", "sum": "[1.0]"}


async def test_config_yml_says_where_and_what() -> None:
    async with http() as served:
        section = {"server_endpoints": [served.url], "client_config": "scores", "fetch_list": ["sum"]}
        async with running(Uses("op", entry()), op={"op": section}) as engine:
            assert await ask(engine, x="1 2 3") == {"sum": "[6.0]"}


async def test_requests_share_a_call_of_the_model() -> None:
    release = asyncio.Event()

    async def held(asked: InferRequest) -> InferResponse:
        await release.wait()
        return doubled(asked)

    async with http(ModelServer(answer=held)) as served:
        op = Uses("scores", entry(), server_endpoints=[served.url], batch_size=8)
        async with running(op) as engine:
            asking = asyncio.create_task(ask_all(engine, "0 0 1", "0 0 2", "0 0 3"))
            await served.until(1)
            release.set()
            assert [each["sum"] for each in await asking] == ["[1.0]", "[2.0]", "[3.0]"]
    assert sum(served.rows) == 3 and len(served.requests) < 3


class Rows(Uses):
    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        return {"x": np.arange(120.0).reshape(40, 3)}, False, None, ""


async def test_a_model_without_batches_gets_the_rows_one_by_one() -> None:
    metadata = ModelMetadata(
        "scores",
        (TensorMetadata("x", "FP32", (3,)),),
        (TensorMetadata("y", "FP32", (3,)), TensorMetadata("sum", "FP32", ())),
    )
    async with http(ModelServer(metadata)) as served:
        async with running(Rows("scores", entry(), server_endpoints=[served.url])) as engine:
            found = await ask(engine, x="")
    assert found["sum"] == str(np.arange(120.0).reshape(40, 3).sum(1).tolist())
    assert [request.inputs[0].shape for request in served.requests] == [(3,)] * 40


class Whole(Uses):
    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        return {"x": np.arange(3.0)}, False, None, ""


async def test_a_model_without_batches_gets_what_it_takes_as_it_is() -> None:
    metadata = ModelMetadata("scores", (TensorMetadata("x", "FP32", (3,)),), (TensorMetadata("y", "FP32", (3,)),))
    async with http(ModelServer(metadata)) as served:
        async with running(Whole("scores", entry(), server_endpoints=[served.url])) as engine:
            assert await ask(engine, x="") == {"y": "[0.0, 2.0, 4.0]"}


def test_the_models_description_of_paddle_changes_nothing_without_endpoints(caplog: pytest.LogCaptureFixture) -> None:
    prepared(Uses("bow", entry(), client_config="x.prototxt"))
    assert "op.bow.client_config changes nothing here: the model says what it takes" in caplog.text


class Asks(Uses):
    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        assert self.client.get_feed_names() == ["x"]
        found = self.client.predict(feed=feed_batch[0], fetch=["y"], batch=True, log_id=typical_logid)
        return {"y": found["y"] + 0.5}, 0, ""


async def test_a_process_of_ones_own_has_the_model_as_its_client() -> None:
    async with http() as served, running(Asks("scores", entry(), server_endpoints=[served.url])) as engine:
        assert await ask(engine, x="1 2 3") == {"y": "[[2.5, 4.5, 6.5]]"}


async def test_hooks_in_worker_processes_have_it_too() -> None:
    async with http() as served:
        op = Uses("scores", entry(), server_endpoints=[served.url])
        async with running(op, dag={"is_thread_op": False}) as engine:
            assert (await ask(engine, x="1 2 3"))["sum"] == "[6.0]"


async def test_requests_go_to_another_server_when_one_goes_away() -> None:
    async with http() as stays:
        async with http() as leaves:
            op = Uses("scores", entry(), server_endpoints=[stays.url, leaves.url])
            server = prepared(op)
            engine = Engine(server.graph, server.settings)
            await engine.start()
            for _ in range(4):
                await ask(engine, x="1 2 3")
        assert stays.requests and leaves.requests
        for _ in range(4):
            assert (await ask(engine, x="1 2 3"))["sum"] == "[6.0]"
        await engine.close()


async def test_replicas_share_one_way_there_and_the_last_closes_it() -> None:
    async with http() as served:
        op = Uses("scores", entry(), server_endpoints=[served.url], concurrency=3)
        server = prepared(op)
        model: Any = server.graph["scores"]._model  # type: ignore[attr-defined]  # a ModelStep
        async with Engine(server.graph, server.settings) as engine:
            await ask_all(engine, *["1 2 3"] * 6)
            assert model._users == 3
        assert (model._users, model._thread) == (0, None)


@pytest.mark.parametrize(
    ("numbers", "err_no", "words"),
    [
        ("1 2", 5000, "input 'x': expected shape [-1, 3], got [1, 2]"),
        ("", 5000, "input 'x'"),
    ],
)
async def test_a_feed_that_is_not_the_models_is_refused(numbers: str, err_no: int, words: str) -> None:
    async with http() as served, running(Uses("scores", entry(), server_endpoints=[served.url])) as engine:
        found, message = await refused(engine, x=numbers)
    assert (found, words in message) == (err_no, True), message
    assert not served.requests


def failing(status: int) -> ModelServer:
    def answer(asked: InferRequest) -> InferResponse:
        raise Failure(status, "no luck")

    return ModelServer(answer=answer)


@pytest.mark.parametrize(("status", "err_no"), [(400, 5000), (500, 10000), (503, 3001), (429, 3001)])
async def test_an_error_of_the_server_has_a_number(status: int, err_no: int) -> None:
    served = failing(status)
    async with http(served), running(Uses("scores", entry(), server_endpoints=[served.url])) as engine:
        found, message = await refused(engine, x="1 2 3")
    assert (found, "no luck" in message) == (err_no, True), message


async def test_a_server_that_is_slow_ends_with_the_timeout_of_the_op() -> None:
    async def never(asked: InferRequest) -> InferResponse:
        return await asyncio.get_running_loop().create_future()

    served = ModelServer(answer=never)
    async with http(served), running(Uses("scores", entry(), server_endpoints=[served.url], timeout=50)) as engine:
        assert (await refused(engine, x="1 2 3"))[0] == 6000


async def test_a_server_that_is_slow_ends_with_the_deadline() -> None:
    async def never(asked: InferRequest) -> InferResponse:
        return await asyncio.get_running_loop().create_future()

    served = ModelServer(answer=never)
    async with http(served), running(Uses("scores", entry(), server_endpoints=[served.url])) as engine:
        with pytest.raises(DeadlineExceeded):
            await engine.submit(request(x="1 2 3"), timeout=0.05)


@pytest.mark.parametrize("scheme", WIRES)
async def test_nobody_there_stops_the_start(scheme: str) -> None:
    server = prepared(Uses("scores", entry(), server_endpoints=[f"{scheme}://127.0.0.1:{await closed_port()}"]))
    with pytest.raises(LoadError, match="op 'scores' load_model: remote model 'scores': no endpoint can be reached"):
        async with Engine(server.graph, server.settings):
            pass


async def test_an_output_that_is_not_the_models_stops_the_start() -> None:
    async with http() as served:
        op = Uses("scores", entry(), server_endpoints=[served.url], fetch_list=["z"])
        server = prepared(op)
        with pytest.raises(LoadError, match="fetch_list: the model has no output 'z': y, sum"):
            async with Engine(server.graph, server.settings):
                pass
        assert server.graph["scores"]._model._thread is None  # type: ignore[attr-defined]  # a ModelStep


# -- another pipeline


class Inner(Op):
    """Text, doubled; or what the text asks for."""

    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        data = input_dicts["@DAGExecutor"]
        if data.get("x") == "refuse":
            return None, False, 51, "out of stock"
        if data.get("x") == "raise":
            raise ValueError("broken")
        if "x" in data and isinstance(data["x"], str):
            return {"y": data["x"] * 2, "log": str(log_id)}, False, None, ""
        return {name: repr(value.tolist()) for name, value in data.items()}, False, None, ""


@asynccontextmanager
async def pipeline(last: Op) -> AsyncIterator[str]:
    """A pipeline that is served over gRPC; `host:port`."""
    async with running(last) as engine:
        transport = GrpcTransport(engine, engine.plan.settings.service, [PaddleService(engine)])
        await transport.start()
        try:
            yield transport.address.removeprefix("grpc://")
        finally:
            transport.close()
            await transport.wait_closed()


class Calls(Op):
    def postprocess(self, input_data: Any, fetch_data: Any, data_id: int, log_id: int) -> Any:
        return {name: str(value) for name, value in fetch_data.items()}, None, ""


def calls(address: str, **options: Any) -> Op:
    return Calls("calls", entry(), server_endpoints=[address], client_type="pipeline_grpc", **options)


async def test_an_op_may_call_another_pipeline() -> None:
    async with pipeline(Inner("inner", entry())) as address, running(calls(address)) as engine:
        assert await ask(engine, logid=7, x="ab") == {"y": "['abab']", "log": "['7']"}
        assert await ask_all(engine, *"abc") == [{"y": f"['{2 * x}']", "log": "['0']"} for x in "abc"]


async def test_fetch_list_says_which_of_its_values_are_wanted() -> None:
    async with pipeline(Inner("inner", entry())) as address:
        async with running(calls(address, fetch_list=["y"])) as engine:
            assert await ask(engine, x="ab") == {"y": "['abab']"}
        async with running(calls(address, fetch_list=["z"])) as engine:
            err_no, message = await refused(engine, x="ab")
    assert (err_no, "gave no 'z': y, log" in message) == (5000, True)


@pytest.mark.parametrize(("x", "err_no", "words"), [("refuse", 51, "out of stock"), ("raise", 10000, "broken")])
async def test_its_errors_keep_their_numbers(x: str, err_no: int, words: str) -> None:
    async with pipeline(Inner("inner", entry())) as address, running(calls(address)) as engine:
        found, message = await refused(engine, x=x)
    assert (found, words in message) == (err_no, True), message


class Feeds(Calls):
    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        return {"a": np.array([[1, 2]]), "a.lod": np.array([[0], [1]]), "b": [0.5, 2.0]}, False, None, ""


@pytest.mark.parametrize("as_tensors", [False, True])
async def test_arrays_go_as_text_or_as_tensors(as_tensors: bool) -> None:
    op: Op
    async with pipeline(Shows("inner", entry())) as address:
        op = Feeds("feeds", entry(), server_endpoints=[address], client_type="pipeline_grpc")
        op.set_pack_tensor_format(as_tensors)
        async with running(op) as engine:
            found = await ask(engine, x="")
    texts = {"a": "['str array([[1, 2]])']", "a.lod": "['str array([[0], [1]])']", "b": "['str array([0.5, 2.0])']"}
    arrays = {"a": "['ndarray [[1, 2]]']", "a.lod": "['ndarray [[0], [1]]']", "b": "['ndarray [0.5, 2.0]']"}
    assert found == (arrays if as_tensors else texts)


class Shows(Op):
    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        data = input_dicts["@DAGExecutor"]
        return {
            name: f"{type(value).__name__} {value if isinstance(value, str) else value.tolist()}"
            for name, value in data.items()
        }, False, None, ""  # fmt: skip


class Asynchronous(Calls):
    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        assert isinstance(self.client, PipelineClient)
        futures = [self.client.predict(feed_dict={"x": f"{n}"}, fetch=["y"], asyn=True) for n in range(3)]
        return {str(n): future.result()["y"] for n, future in enumerate(futures)}, 0, ""


async def test_calls_may_go_side_by_side() -> None:
    async with pipeline(Inner("inner", entry())) as address:
        op = Asynchronous("calls", entry(), server_endpoints=[address], client_type="pipeline_grpc")
        async with running(op) as engine:
            assert await ask(engine, x="") == {"0": "['00']", "1": "['11']", "2": "['22']"}


@pytest.mark.parametrize("feed", [{"x": 5}, {"x": b"1"}, ["x"], None])
async def test_what_has_no_form_is_7000(feed: Any) -> None:
    class Wrong(Calls):
        def process(self, feed_batch: Any, typical_logid: int) -> Any:
            return self.client.predict(feed_dict=feed), 0, ""

    async with pipeline(Inner("inner", entry())) as address:
        op = Wrong("calls", entry(), server_endpoints=[address], client_type="pipeline_grpc")
        async with running(op) as engine:
            assert (await refused(engine, x="1"))[0] == 7000


async def test_a_pipeline_that_is_not_there_is_3001_and_found_when_it_comes() -> None:
    address = f"127.0.0.1:{await closed_port()}"
    async with running(calls(address)) as engine:
        with pytest.raises(Unavailable) as error:
            await engine.submit(request(x="1"))
        assert number_of(error.value) == 3001


# -- what cannot be


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"server_endpoints": ["127.0.0.1:9292"], "client_type": "brpc"},
            "with client_type 'brpc' is a server of Paddle's",
        ),
        ({"server_endpoints": ["127.0.0.1:9292"]}, "write http://host:8000 or grpc://host:8001"),
        ({"server_endpoints": "http://a:1"}, "expected a list of addresses, got 'http://a:1'"),
        ({"server_endpoints": [5]}, "expected a list of addresses"),
        ({"server_endpoints": ["tcp://a:1"]}, "'tcp://a:1' is no endpoint: write http://host:8000 or grpc://host:8001"),
        ({"server_endpoints": ["http://a:1", "http://a:1"]}, "an endpoint is there twice"),
        ({"server_endpoints": ["http://a:1"], "client_type": "pipeline_grpc"}, "write grpc://host:8001"),
        ({"server_endpoints": ["a"], "client_type": "pipeline_grpc"}, "has no port"),
    ],
)
def test_endpoints_that_cannot_be_asked_are_refused_by_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as error:
        prepared(Uses("bow", entry(), **options))
    assert str(error.value).startswith("yml_dict: op.bow.server_endpoints: ") and words in str(error.value)


def test_paddles_description_of_a_model_is_not_read(caplog: pytest.LogCaptureFixture) -> None:
    op = Uses("bow", entry(), server_endpoints=["http://a:1"], client_config="conf/serving_client_conf.prototxt")
    model: Any = prepared(op).graph["bow"]._model  # type: ignore[attr-defined]  # a ModelStep
    assert model.model == "bow"
    assert "client_config: conf/serving_client_conf.prototxt is not read" in caplog.text


def test_a_model_of_local_service_conf_is_for_where_there_are_no_endpoints() -> None:
    section = {"server_endpoints": ["http://a:1"], "local_service_conf": {"model_config": "m.onnx"}}
    model: Any = prepared(Uses("op", entry()), op={"op": section}).graph["op"]._model  # type: ignore[attr-defined]
    assert model.addresses[0].host == "a"
