"""Models that local_service_conf names, and the default `process` that runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncline import Engine, LoadError, SettingsError
from asyncline.backends import BuildOptions
from asyncline.paddle import Op
from asyncline.paddle.predictor import ModelFile
from asyncline.paddle.translate import OpPlan
from tests.backends import onnx_models

from .pipelines import ask, ask_all, entry, prepared, refused, running


class Uses(Op):
    """Feeds what the test says to the model."""

    def __init__(self, **feed: Any) -> None:
        super().__init__("op", entry())
        self.feed = feed

    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        return dict(self.feed), False, None, ""

    def postprocess(self, input_data: Any, fetch_data: Any, data_id: int, log_id: int) -> Any:
        return {name: str(value.tolist()) for name, value in fetch_data.items()}, None, ""


def served(model: Path | str, **local: Any) -> dict[str, Any]:
    conf = {"model_config": str(model), "client_type": "local_predictor", **local}
    return {"op": {"op": {"local_service_conf": conf}}}


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return onnx_models.linear(tmp_path / "linear.onnx")


@pytest.fixture
def two(tmp_path: Path) -> Path:
    return onnx_models.two(tmp_path / "two.onnx")


ROW = np.array([[1, 0, 0, 1]])


async def test_process_runs_the_model_on_batches_cast_to_its_dtype(linear: Path) -> None:
    async with running(Uses(x=ROW), **served(linear)) as engine:
        assert await ask(engine) == {"y": "[[6.0, 8.0]]"}


async def test_offsets_are_left_out_of_a_feed(linear: Path) -> None:
    async with running(Uses(x=ROW, **{"x.lod": np.array([0, 1])}), **served(linear)) as engine:
        assert await ask(engine) == {"y": "[[6.0, 8.0]]"}


@pytest.mark.parametrize(
    "feed, err_no, words",
    [
        ({}, 5000, "feed: the model takes x, got nothing"),
        ({"y": ROW}, 5000, "feed: the model takes x, got y"),
        ({"x": ROW, "y": ROW}, 5000, "feed: the model takes x, got x, y"),
        ({"x": [[1, 0, 0, 1]]}, 7000, "feed_batch must be npdata"),
        ({"x": np.zeros((1, 3))}, 10000, "[op] failed to predict"),
    ],
)
async def test_a_feed_that_is_not_the_models_is_refused(
    linear: Path, feed: dict[str, Any], err_no: int, words: str
) -> None:
    async with running(Uses(**feed), **served(linear)) as engine:
        found, message = await refused(engine)
    assert (found, words in message) == (err_no, True)


PAIR = {"left": np.ones((1, 3), np.float32), "right": np.full((1, 1), 2, np.float32)}


@pytest.mark.parametrize("fetch, names", [(None, {"sum", "product"}), (["product"], {"product"})])
async def test_fetch_list_says_which_outputs_are_wanted(two: Path, fetch: Any, names: set[str]) -> None:
    async with running(Uses(**PAIR), **served(two, fetch_list=fetch)) as engine:
        assert set(await ask(engine)) == names


async def test_a_fetch_list_with_another_name_stops_the_start(two: Path) -> None:
    server = prepared(Uses(**PAIR), **served(two, fetch_list=["mean"]))
    with pytest.raises(LoadError, match="fetch_list: the model has no output 'mean': sum, product"):
        async with Engine(server.graph, server.settings):
            pass


async def test_requests_share_a_run_of_the_model(linear: Path) -> None:
    config = served(linear)
    config["op"]["op"]["batch_size"] = 4
    async with running(Uses(x=ROW), **config) as engine:
        assert await ask_all(engine, *"12345") == [{"y": "[[6.0, 8.0]]"}] * 5


class Asks(Uses):
    """A process of its own around the model."""

    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        assert self.client is not None
        found = self.client.predict(feed=feed_batch[0], fetch=["y"], batch=True, log_id=typical_logid)
        return {"y": found["y"] * 10}, 0, ""


async def test_a_process_of_ones_own_has_the_model_as_its_client(linear: Path) -> None:
    async with running(Asks(x=ROW), **served(linear)) as engine:
        assert await ask(engine) == {"y": "[[60.0, 80.0]]"}


class AsksForMore(Uses):
    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        assert self.client is not None
        assert (self.client.get_feed_names(), self.client.get_fetch_names()) == (["x"], ["y"])
        return self.client.predict(feed=feed_batch[0], fetch=["z"])


async def test_an_output_that_the_model_lacks_is_5000(linear: Path) -> None:
    async with running(AsksForMore(x=ROW), **served(linear)) as engine:
        assert (await refused(engine))[0] == 5000


class One(Uses):
    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        assert self.client is not None
        return self.client.predict(feed=feed_batch[0], batch=False)


async def test_a_sample_without_its_batch_gets_one(linear: Path) -> None:
    async with running(One(x=ROW[0]), **served(linear)) as engine:
        assert await ask(engine) == {"y": "[[6.0, 8.0]]"}


async def test_a_folder_with_one_model_names_it(linear: Path) -> None:
    async with running(Uses(x=ROW), **served(linear.parent)) as engine:
        assert await ask(engine) == {"y": "[[6.0, 8.0]]"}


@pytest.mark.parametrize(
    "name, words",
    [("", "is a folder with no files.*paddle2onnx"), ("missing.onnx", "there is no model file")],
)
async def test_a_model_that_is_none_stops_the_start(tmp_path: Path, name: str, words: str) -> None:
    server = prepared(Uses(x=ROW), **served(tmp_path / name))
    with pytest.raises(LoadError, match=f"op 'op' load_model: .*{words}"):
        async with Engine(server.graph, server.settings):
            pass


# -- settings of a model


def plan(**local: Any) -> OpPlan:
    from asyncline.paddle.config import read

    op = {"concurrency": 4, "local_service_conf": {"model_config": "m.onnx", **local}}
    return OpPlan(Op("a", entry()), read(yml_dict={"http_port": 9999, "op": {"a": op}}))


@pytest.mark.parametrize(
    "local, device, concurrency",
    [
        ({"devices": "0"}, "cuda:0", 1),
        ({"devices": "0,1"}, "cuda:0,1", 2),
        ({"devices": "2, 3", "device_type": 1}, "cuda:2,3", 2),
        ({"device_type": 1}, "cuda:0", 1),
        ({"device_type": 2, "devices": "1"}, "cuda:1", 1),
        ({"device_type": 0, "devices": "0"}, None, None),
        ({"device_type": 3}, None, None),
        ({}, None, None),
    ],
)
def test_a_model_has_one_copy_on_each_of_its_devices(local: Any, device: str | None, concurrency: int | None) -> None:
    settings = plan(**local).settings
    assert settings.get("device") == device
    if concurrency is not None:
        assert settings["concurrency"] == concurrency


def test_a_model_on_the_cpu_has_no_more_copies_than_fit_its_threads() -> None:
    assert plan(thread_num=10_000).settings["concurrency"] == 1
    assert plan(thread_num=7).settings["threads"] == 7


@pytest.mark.parametrize("kind, name", [(4, "Kunlun XPU"), (5, "Ascend 310"), (6, "Ascend 910")])
def test_other_hardware_is_refused_by_name(kind: int, name: str) -> None:
    with pytest.raises(SettingsError, match=f"device_type {kind}: {name} is not served"):
        plan(device_type=kind)


def test_devices_are_numbers() -> None:
    with pytest.raises(SettingsError, match="devices: 'gpu' are no numbers"):
        plan(devices="gpu")


@pytest.mark.parametrize("text, precision", [("fp32", None), ("FP16", "fp16"), ("int8", "int8"), ("bf16", "bf16")])
def test_precision_is_handed_on(text: str, precision: str | None) -> None:
    model = plan(precision=text).model
    assert model is not None and model.precision == precision


def test_an_unknown_precision_is_fp32_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    model = plan(precision="fp8").model
    assert model is not None and model.precision is None
    assert "precision: 'fp8' is unknown, fp32 is used" in caplog.text


def test_another_client_type_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert plan(client_type="brpc").model
    assert "client_type: the model runs here" in caplog.text


class Shaped(Op):
    def set_dynamic_shape_info(self) -> None:
        self.dynamic_shape_info = {
            "min_input_shape": {"x": [1, 3, 32, 32]},
            "max_input_shape": {"x": [8, 3, 640, 640]},
            "opt_input_shape": {"x": [1, 3, 320, 320]},
        }


def test_dynamic_shapes_go_to_tensorrt() -> None:
    from asyncline.paddle.config import read

    local = {"model_config": "m.onnx", "device_type": 2, "precision": "fp16"}
    config = read(yml_dict={"http_port": 9999, "op": {"a": {"local_service_conf": local}}})
    model = OpPlan(Shaped("a", entry()), config).model
    assert isinstance(model, ModelFile)
    assert model.tensorrt and model.precision == "fp16"
    assert model.shapes == {"x": ((1, 3, 32, 32), (1, 3, 320, 320), (8, 3, 640, 640))}
    BuildOptions(shapes=model.shapes, precision=model.precision)
