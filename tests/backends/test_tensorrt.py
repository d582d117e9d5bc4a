"""Running engines, by recorded calls: no release of TensorRT has run one through this code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncline import LoadError, OpError
from asyncline.backends import BuildOptions, TensorInfo, TensorRTSession
from asyncline.backends.fake_cuda import FakeAccelerator
from asyncline.engine.lanes.accelerator import DeviceModel, DeviceTensor

from . import onnx_models, recorded_tensorrt
from .recorded_tensorrt import Recorded

FLOAT = np.dtype(np.float32)


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    module = recorded_tensorrt.make(11)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return onnx_models.linear(tmp_path / "net.onnx")


def session(path: Path, **options: Any) -> TensorRTSession:
    return TensorRTSession(path, accelerator=FakeAccelerator(), **options)


def plan(path: Path, profiles: str) -> Path:
    file = path.with_suffix(".plan")
    file.write_text(profiles)
    return file


def tensors(session: TensorRTSession, rows: int) -> tuple[dict[str, DeviceTensor], dict[str, DeviceTensor]]:
    x, y = (DeviceTensor(session.accelerator.memory(rows * 16), FLOAT, (rows, 4)) for _ in range(2))
    return {"x": x}, {"y": y}


def names(trt: Recorded) -> list[str]:
    return [call[0] for call in trt.calls]


def test_a_run_sets_shapes_then_addresses_then_starts_on_the_models_stream(trt: Recorded, path: Path) -> None:
    model = session(path)
    inputs, outputs = tensors(model, 3)
    trt.calls.clear()
    model.enqueue(inputs, outputs)
    assert trt.calls == [
        ("set_input_shape", "x", (3, 4)),
        ("set_tensor_address", "x", inputs["x"].memory.address),
        ("set_tensor_address", "y", outputs["y"].memory.address),
        ("execute_async_v3", model.stream.handle),
    ]


def test_it_is_a_model_of_the_lane(trt: Recorded, path: Path) -> None:
    assert isinstance(session(path), DeviceModel)


def test_it_says_what_the_engine_says(trt: Recorded, path: Path) -> None:
    model = session(path, options=BuildOptions(max_batch_size=16))
    assert model.inputs == (TensorInfo("x", "FP32", (-1, 4)),)
    assert model.outputs == (TensorInfo("y", "FP32", (-1, 4)),)
    assert (model.max_batch_size, model.batch_sizes) == (16, (16,))
    assert model.output_tensors({"x": (5, 4)}) == {"y": (FLOAT, (5, 4))}


def test_the_first_profile_with_room_is_taken_before_the_shapes(trt: Recorded, path: Path) -> None:
    model = session(plan(path, "[[[1,4],[2,4],[2,4]], [[1,4],[8,4],[8,4]]]"))
    assert (model.max_batch_size, model.batch_sizes) == (8, (2, 8))
    trt.calls.clear()
    for rows in (2, 5, 5, 1):
        model.enqueue(*tensors(model, rows))
    chosen = [call for call in trt.calls if call[0] in ("set_optimization_profile_async", "set_input_shape")]
    assert chosen == [
        ("set_input_shape", "x", (2, 4)),
        ("set_optimization_profile_async", 1, model.stream.handle),
        ("set_input_shape", "x", (5, 4)),
        ("set_input_shape", "x", (5, 4)),
        ("set_optimization_profile_async", 0, model.stream.handle),
        ("set_input_shape", "x", (1, 4)),
    ]


def test_a_shape_that_no_profile_has_room_for_is_an_error(trt: Recorded, path: Path) -> None:
    model = session(path, options=BuildOptions(max_batch_size=4))
    with pytest.raises(OpError, match=r"^no profile of the engine has room for x \[5, 4\]$"):
        model.enqueue(*tensors(model, 5))


def test_a_batch_larger_than_the_profile_runs_in_turns(trt: Recorded, path: Path) -> None:
    model = session(path, options=BuildOptions(max_batch_size=4))
    trt.calls.clear()
    assert len(model.run(np.ones((9, 4), np.float32))) == 9
    assert names(trt).count("execute_async_v3") == 3


def test_an_output_whose_length_depends_on_the_data_is_refused(trt: Recorded, path: Path) -> None:
    model = session(path)
    trt.output_shape = (-1, 4)
    with pytest.raises(OpError, match="depend on the data"):
        model.run(np.ones((2, 4), np.float32))


def test_a_run_that_does_not_start_is_an_error(trt: Recorded, path: Path) -> None:
    model = session(path)
    trt.runs = False
    with pytest.raises(RuntimeError, match="TensorRT could not start the run"):
        model.run(np.ones((2, 4), np.float32))


# -- loading


def test_an_engine_is_built_once_and_then_read(trt: Recorded, path: Path, tmp_path: Path) -> None:
    session(path, cache=tmp_path / "engines")
    session(path, cache=tmp_path / "engines")
    assert names(trt).count("build_serialized_network") == 1
    session(path, cache=tmp_path / "engines", options=BuildOptions(max_batch_size=2))
    assert names(trt).count("build_serialized_network") == 2
    assert ("create_timing_cache", b"timings") in trt.calls


def test_a_kept_plan_that_cannot_be_read_is_built_again(trt: Recorded, path: Path, tmp_path: Path) -> None:
    session(path, cache=tmp_path / "engines")
    (kept,) = (tmp_path / "engines").glob("*.plan")
    kept.write_bytes(b"half a pl")
    session(path, cache=tmp_path / "engines")
    assert names(trt).count("build_serialized_network") == 2
    assert kept.read_bytes().startswith(b"[")


def test_a_plan_of_another_release_is_refused(trt: Recorded, path: Path) -> None:
    with pytest.raises(LoadError, match=r"^net\.plan is no plan that TensorRT 11\.0 can run on sm_00: plans are for"):
        session(plan(path, "other"))


@pytest.mark.parametrize("name", ["gone.onnx", "gone.plan"])
def test_a_missing_file_is_named(trt: Recorded, tmp_path: Path, name: str) -> None:
    with pytest.raises(LoadError, match=f"^there is no model file .*{name}$"):
        session(tmp_path / name)


def test_a_dtype_that_numpy_lacks_is_refused(trt: Recorded, path: Path) -> None:
    trt.dtype = recorded_tensorrt.BF16
    with pytest.raises(LoadError, match=r"^tensor 'x' is BF16: numpy has no such type$"):
        session(path)


def test_nothing_of_tensorrt_is_made_before_the_device_is_there(trt: Recorded, path: Path) -> None:
    with pytest.raises(LoadError):
        TensorRTSession(path, "cuda:99")
    assert trt.calls == []


def test_without_tensorrt_the_line_to_install_it_is_shown(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(LoadError, match=r"^tensorrt is not installed: pip install 'asyncline\[tensorrt\]'"):
        TensorRTSession(path)


def test_the_cpu_is_no_device_of_tensorrt(trt: Recorded, path: Path) -> None:
    with pytest.raises(LoadError, match=r"^cpu is no CUDA device: use cuda or cuda:1$"):
        TensorRTSession(path, "cpu")


# -- the record


def test_the_recorded_calls_are_those_of_the_real_bindings() -> None:
    """TensorRT-RTX has the API of TensorRT 11; what the record has more would never have been called."""
    rtx = pytest.importorskip("tensorrt_rtx")
    pairs = [
        (recorded_tensorrt.Context, rtx.IExecutionContext),
        (recorded_tensorrt.Engine, rtx.ICudaEngine),
        (recorded_tensorrt.Runtime, rtx.Runtime),
        (recorded_tensorrt.Network, rtx.INetworkDefinition),
        (recorded_tensorrt.Parser, rtx.OnnxParser),
        (recorded_tensorrt.Config, rtx.IBuilderConfig),
        (recorded_tensorrt.Profile, rtx.IOptimizationProfile),
        (recorded_tensorrt.Builder, rtx.Builder),
    ]
    missing = [
        f"{real.__name__}.{name}"
        for recorded, real in pairs
        for name in vars(recorded)
        if not name.startswith("_") and not hasattr(real, name)
    ]
    assert not missing
    for name in ("FLOAT", "HALF", "BF16", "INT8", "UINT8", "INT32", "INT64", "BOOL"):
        assert hasattr(rtx.DataType, name)
    assert rtx.LayerType.QUANTIZE != rtx.LayerType.DEQUANTIZE
    assert rtx.TensorIOMode.INPUT != rtx.TensorIOMode.OUTPUT


def test_an_accelerator_that_was_entered_is_left_where_the_engine_cannot_be_made(
    trt: Recorded, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pycuda's context would stay pushed, and abort the process at its end.
    left: list[str] = []

    class Entered(FakeAccelerator):
        def leave(self) -> None:
            left.append(self.name)

    monkeypatch.setattr("asyncline.backends.tensorrt.open_accelerator", lambda device: Entered())
    with pytest.raises(LoadError, match="there is no model file"):
        TensorRTSession(path.with_suffix(".plan"))
    assert len(left) == 1


def test_closing_twice_is_closing_once(trt: Recorded, path: Path) -> None:
    model = session(path)
    model.close()
    model.close()
