"""CUDA by torch on a device, where there is one."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from asyncline import LoadError
from asyncline.backends import ModelInfo, TensorInfo, TorchSession
from asyncline.backends.cuda import open_accelerator
from asyncline.backends.torch import TorchDeviceSession
from asyncline.engine.lanes.accelerator import DeviceModel, DeviceTensor, OutOfMemory

from . import torch_models
from .torch_models import torch

INFO = ModelInfo((TensorInfo("x", "FP32", (-1, 4)),))
FLOAT = np.dtype(np.float32)

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def marked(test: Any) -> Any:
    for mark in gpu:
        test = mark(test)
    return test


def test_the_calls_are_those_of_the_real_torch() -> None:
    """Without a device they cannot be made, but their names and arguments are there to see."""
    inspect.signature(torch.cuda.graph.__init__).bind(
        None, None, pool=None, stream=None, capture_error_mode="thread_local"
    )
    inspect.signature(torch.cuda.Event.__new__).bind(torch.cuda.Event, blocking=True)
    assert "enable_timing=False" in str(inspect.signature(torch.cuda.Event.__new__))
    for kind, names in (
        (torch.cuda.Stream, ["wait_event", "synchronize"]),
        (torch.cuda.Event, ["record", "synchronize"]),
        (torch.cuda.CUDAGraph, ["replay"]),
        (torch.cuda, ["graph_pool_handle", "cudart", "set_device", "get_device_capability", "stream"]),
    ):
        assert not [name for name in names if not hasattr(kind, name)]
    assert issubclass(torch.OutOfMemoryError, RuntimeError)
    assert issubclass(torch.AcceleratorError, RuntimeError)


@marked
def test_copies_go_there_and_back() -> None:
    device = open_accelerator("cuda:0", "torch")
    stream, event = device.stream(), device.event()
    source = device.pinned(4096)
    source[:] = np.arange(4096) % 251
    target, memory = device.pinned(4096), device.memory(4096)
    stream.upload(memory, source)
    stream.download(target, memory)
    stream.record(event)
    event.synchronize()
    np.testing.assert_array_equal(target, source)


@marked
def test_memory_that_is_there_is_pinned() -> None:
    device = open_accelerator("cuda:0", "torch")
    import mmap

    memory = np.frombuffer(mmap.mmap(-1, 1 << 20), np.uint8)
    device.register(memory)
    assert torch.from_numpy(memory).is_pinned()
    device.unregister(memory)


@marked
def test_a_model_runs_and_its_graph_replays_with_new_data() -> None:
    device = open_accelerator("cuda:0", "torch")
    model = TorchDeviceSession(torch_models.Linear, device, info=INFO)
    assert isinstance(model, DeviceModel)
    batch = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = batch @ np.arange(8, dtype=np.float32).reshape(2, 4).T
    np.testing.assert_allclose(model.run(batch), expected, rtol=1e-3)
    x = DeviceTensor(device.memory(48), FLOAT, (3, 4))
    y = DeviceTensor(device.memory(24), FLOAT, (3, 2))
    captured = device.capture(model.stream, lambda: model.enqueue({"x": x}, {"y": y}))
    for factor in (1, 2, 3):
        model.stream.upload(x.memory, factor * batch)
        captured.replay(model.stream)
        result = np.empty((3, 2), np.float32)
        model.stream.download(result, y.memory)
        model.stream.synchronize()
        np.testing.assert_allclose(result, factor * expected, rtol=1e-3)


@marked
def test_half_precision_and_a_plain_session_give_the_same() -> None:
    batch = np.arange(12, dtype=np.float32).reshape(3, 4)
    half = TorchSession(torch_models.Linear, "cuda:0", info=INFO, precision="bf16").run(batch)
    full = TorchSession(torch_models.Linear, "cuda:0", info=INFO).run(batch)
    np.testing.assert_allclose(half, full, rtol=0.02)


@marked
def test_memory_that_is_not_there_is_out_of_memory() -> None:
    with pytest.raises(OutOfMemory):
        open_accelerator("cuda:0", "torch").memory(1 << 45)


@marked
def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(LoadError, match=r"^there is no cuda:99: torch sees"):
        open_accelerator("cuda:99", "torch")
