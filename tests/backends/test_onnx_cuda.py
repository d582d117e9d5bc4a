"""onnxruntime on CUDA, against a module that only keeps what it was told: no GPU has run this."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asyncline import LoadError
from asyncline.backends import OnnxSession
from asyncline.backends.fake_cuda import FakeAccelerator
from asyncline.backends.onnx import OnnxDeviceSession
from asyncline.engine.lanes.accelerator import DeviceModel, DeviceTensor

from . import onnx_models

CUDA = "CUDAExecutionProvider"


class Binding:
    """Keeps what is bound; its outputs are twice the inputs."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls
        self.arrays: list[np.ndarray] = []

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        self.calls.append(("bind_ortvalue_input", name, value.device))
        self.arrays.append(value.array)

    def bind_input(self, *arguments: Any) -> None:
        self.calls.append(("bind_input", *arguments))

    def bind_output(self, *arguments: Any) -> None:
        self.calls.append(("bind_output", *arguments))

    def copy_outputs_to_cpu(self) -> list[np.ndarray]:
        self.calls.append(("copy_outputs_to_cpu",))
        return [2 * self.arrays[0]]


class Recorded:
    """A module `onnxruntime` with CUDA, as far as a Session needs it."""

    __version__ = "0.0"

    def __init__(self, providers: list[str], works: list[str]) -> None:
        self.calls: list[Any] = []
        self._providers = providers
        self._works = works
        module = self

        class InferenceSession:
            def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
                module.calls.append(("InferenceSession", Path(path).name, providers))

            def get_providers(self) -> list[str]:
                return module._works

            def get_inputs(self) -> list[Any]:
                return [SimpleNamespace(name="x", type=module.input_type, shape=["n", 4])]

            def get_outputs(self) -> list[Any]:
                return [SimpleNamespace(name="y", type="tensor(float)", shape=module.output_shape)]

            def get_modelmeta(self) -> Any:
                return SimpleNamespace(custom_metadata_map={})

            def io_binding(self) -> Binding:
                return Binding(module.calls)

            def run(self, names: list[str], inputs: dict[str, np.ndarray], options: Any) -> list[np.ndarray]:
                module.calls.append(("run",))
                return [inputs["x"]]

            def run_with_iobinding(self, binding: Binding, options: Any) -> None:
                module.calls.append(("run_with_iobinding", options.entries))
                if module.error is not None:
                    raise module.error

        class Options:
            def __init__(self) -> None:
                self.entries: dict[str, str] = {}

            def add_session_config_entry(self, key: str, value: str) -> None:
                self.entries[key] = value

            add_run_config_entry = add_session_config_entry

        self.error: Exception | None = None
        self.output_shape: list[Any] = ["n", 2]
        self.input_type = "tensor(float)"
        self.InferenceSession = InferenceSession
        self.SessionOptions = self.RunOptions = Options
        self.OrtValue = SimpleNamespace(
            ortvalue_from_numpy=lambda array, kind, index: SimpleNamespace(array=array, device=f"{kind}:{index}")
        )

    def get_available_providers(self) -> list[str]:
        return self._providers

    def preload_dlls(self) -> None:
        self.calls.append(("preload_dlls",))


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded = Recorded([CUDA, "CPUExecutionProvider"], [CUDA, "CPUExecutionProvider"])
    monkeypatch.setitem(sys.modules, "onnxruntime", recorded)
    return recorded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return onnx_models.linear(tmp_path / "net.onnx")


def test_the_provider_is_asked_for_with_its_device(runtime: Recorded, path: Path) -> None:
    OnnxSession(path, "cuda:1")
    assert runtime.calls == [
        ("preload_dlls",),
        ("InferenceSession", "net.onnx", [(CUDA, {"device_id": "1"}), "CPUExecutionProvider"]),
    ]


def test_a_device_that_onnxruntime_gives_up_silently_is_an_error(runtime: Recorded, path: Path) -> None:
    runtime._works = ["CPUExecutionProvider"]
    with pytest.raises(LoadError, match=r"^onnxruntime cannot use cuda:7: there is no such device"):
        OnnxSession(path, "cuda:7")


def test_a_run_is_bound_to_the_device_on_both_sides(runtime: Recorded, path: Path) -> None:
    session = OnnxSession(path, "cuda:1")
    runtime.calls.clear()
    batch = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(session.run(batch), 2 * batch)
    assert runtime.calls == [
        ("bind_ortvalue_input", "x", "cuda:1"),
        ("bind_output", "y", "cuda", 1),
        ("run_with_iobinding", {}),
        ("copy_outputs_to_cpu",),
    ]


def test_strings_are_not_bound_to_the_device(runtime: Recorded, path: Path) -> None:
    runtime.input_type = "tensor(string)"
    session = OnnxSession(path, "cuda:1")
    runtime.calls.clear()
    session.run(np.array([["a"] * 4], object))
    assert runtime.calls == [("run",)]


def test_a_lane_runs_it_on_its_own_stream_and_memory(runtime: Recorded, path: Path) -> None:
    accelerator = FakeAccelerator("cuda:1")
    session = OnnxDeviceSession(path, accelerator)
    assert isinstance(session, DeviceModel)
    provider = {"device_id": "1", "user_compute_stream": str(session.stream.handle)}
    assert runtime.calls[-1] == ("InferenceSession", "net.onnx", [(CUDA, provider), "CPUExecutionProvider"])
    runtime.calls.clear()
    x = DeviceTensor(accelerator.memory(32), np.dtype(np.float32), (2, 4))
    y = DeviceTensor(accelerator.memory(16), np.dtype(np.float32), (2, 2))
    session.enqueue({"x": x}, {"y": y})
    assert runtime.calls == [
        ("bind_input", "x", "cuda", 1, np.dtype(np.float32), (2, 4), x.memory.address),
        ("bind_output", "y", "cuda", 1, np.dtype(np.float32), (2, 2), y.memory.address),
        ("run_with_iobinding", {"disable_synchronize_execution_providers": "1"}),
    ]


def test_shapes_of_outputs_follow_from_the_names_of_open_lengths(runtime: Recorded, path: Path) -> None:
    session = OnnxDeviceSession(path, FakeAccelerator())
    assert session.output_tensors({"x": (5, 4)}) == {"y": (np.dtype(np.float32), (5, 2))}


@pytest.mark.parametrize("shape", [["found", 2], []])
def test_an_output_whose_length_depends_on_the_data_is_run_without_the_lane(
    runtime: Recorded, path: Path, shape: list[Any]
) -> None:
    runtime.output_shape = shape
    session = OnnxDeviceSession(path, FakeAccelerator())
    assert session.output_tensors({"x": (5, 4)}) is None
    runtime.calls.clear()
    batch = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(session.run(batch), 2 * batch)
    assert ("copy_outputs_to_cpu",) in runtime.calls


def test_the_calls_are_those_of_the_real_onnxruntime() -> None:
    """Positions of the arguments, since the recorded module takes any."""
    onnxruntime = pytest.importorskip("onnxruntime")

    def names(function: Any) -> list[str]:
        return list(inspect.signature(function).parameters)[1:]

    binding = onnxruntime.IOBinding
    order = ["name", "device_type", "device_id", "element_type", "shape", "buffer_ptr"]
    assert names(binding.bind_input) == names(binding.bind_output) == order
    assert names(binding.bind_ortvalue_input) == ["name", "ortvalue"]
    assert names(onnxruntime.InferenceSession.run_with_iobinding) == ["iobinding", "run_options"]
    assert list(inspect.signature(onnxruntime.OrtValue.ortvalue_from_numpy).parameters)[1:3] == [
        "device_type",
        "device_id",
    ]
    assert hasattr(onnxruntime, "preload_dlls")
    assert hasattr(onnxruntime.RunOptions, "add_run_config_entry")
    assert list(inspect.signature(onnxruntime.InferenceSession.run).parameters)[1:] == [
        "output_names",
        "input_feed",
        "run_options",
    ]
