"""CUDA by torch: streams, events, memory and graphs for the device lane.

Written against torch 2.13; it has not been run on a device yet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from asyncline.engine.lanes.accelerator import Array, DeviceLost, OutOfMemory
from asyncline.errors import LoadError

WARM_UPS = 3
"""Runs before a capture: libraries choose kernels and make workspaces, which a capture must not contain."""

# One capture at a time in the process: it must not see what another thread's allocates.
_capturing = threading.Lock()

LAUNCH_FAILURE = 719
STICKY = frozenset({214, 220, 226, 700, 702, 710, 714, 715, 716, 717, 718, LAUNCH_FAILURE})
"""cudaError numbers after which, by CUDA's documentation, the process can use the device no more."""


class TorchMemory:
    """Bytes of the device, of torch's caching allocator."""

    def __init__(self, bytes: Any) -> None:
        self.bytes = bytes

    @property
    def address(self) -> int:
        return int(self.bytes.data_ptr())

    @property
    def nbytes(self) -> int:
        return int(self.bytes.numel())


class TorchEvent:
    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self.event = torch.cuda.Event(blocking=True)

    def synchronize(self) -> None:
        with translating(self._torch):
            self.event.synchronize()


class TorchStream:
    def __init__(self, torch: Any, device: Any) -> None:
        self._torch = torch
        self.stream = torch.cuda.Stream(device)

    @property
    def handle(self) -> int:
        return int(self.stream.cuda_stream)

    def upload(self, target: TorchMemory, source: Array) -> None:
        with translating(self._torch), self._torch.cuda.stream(self.stream):
            target.bytes[: source.nbytes].copy_(self._host(source), non_blocking=True)

    def download(self, target: Array, source: TorchMemory) -> None:
        with translating(self._torch), self._torch.cuda.stream(self.stream):
            self._host(target).copy_(source.bytes[: target.nbytes], non_blocking=True)

    def record(self, event: TorchEvent) -> None:
        with translating(self._torch):
            event.event.record(self.stream)

    def wait(self, event: TorchEvent) -> None:
        with translating(self._torch):
            self.stream.wait_event(event.event)

    def synchronize(self) -> None:
        with translating(self._torch):
            self.stream.synchronize()

    def _host(self, array: Array) -> Any:
        if not array.flags.writeable:
            array = array.copy()  # torch warns of an array that it could not write to
        return self._torch.from_numpy(array.reshape(-1).view(np.uint8))


class TorchCaptured:
    def __init__(self, torch: Any, graph: Any) -> None:
        self._torch = torch
        self._graph = graph

    def replay(self, stream: TorchStream) -> None:
        with translating(self._torch), self._torch.cuda.stream(stream.stream):
            self._graph.replay()


class TorchAccelerator:
    """A CUDA device, by torch.

    :param index: its number.
    :raises LoadError: torch is not installed, or cannot use the device.
    """

    def __init__(self, index: int = 0) -> None:
        self._torch = import_torch()
        self.device = cuda_device(self._torch, index)
        self.name = f"cuda:{index}"
        major, minor = self._torch.cuda.get_device_capability(self.device)
        self.architecture = f"sm_{major}{minor}"
        self._pool: Any = None

    def enter(self) -> None:
        self._torch.cuda.set_device(self.device)

    def leave(self) -> None:
        pass

    def range(self, name: str) -> Any:
        """A context that a profiler shows by that name."""
        return self._torch.cuda.nvtx.range(name)

    def stream(self) -> TorchStream:
        return TorchStream(self._torch, self.device)

    def event(self) -> TorchEvent:
        return TorchEvent(self._torch)

    def memory(self, nbytes: int) -> TorchMemory:
        with translating(self._torch):
            return TorchMemory(self._torch.empty(nbytes, dtype=self._torch.uint8, device=self.device))

    def pinned(self, nbytes: int) -> Array:
        array: Array = self._torch.empty(nbytes, dtype=self._torch.uint8, pin_memory=True).numpy()
        return array

    def register(self, memory: Array) -> None:
        error = self._torch.cuda.cudart().cudaHostRegister(memory.ctypes.data, memory.nbytes, 0)
        if int(error) != 0:
            raise OSError(f"cannot pin {memory.nbytes} bytes: CUDA error {int(error)}")

    def unregister(self, memory: Array) -> None:
        self._torch.cuda.cudart().cudaHostUnregister(memory.ctypes.data)

    def capture(self, stream: TorchStream, work: Callable[[], None]) -> TorchCaptured:
        torch = self._torch
        with _capturing, translating(torch):
            for _ in range(WARM_UPS):
                work()
            stream.synchronize()
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # "global", torch's default, would fail whatever other threads do with CUDA meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, stream=stream.stream, capture_error_mode="thread_local"):
                work()
        return TorchCaptured(torch, graph)


def import_torch() -> Any:
    """The module torch.

    :raises LoadError: it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise LoadError("torch is not installed: pip install 'asyncline[torch]'") from None
    return torch


def cuda_device(torch: Any, index: int) -> Any:
    """The `torch.device` of a CUDA device.

    :raises LoadError: torch cannot use it.
    """
    if not torch.cuda.is_available():
        raise LoadError(f"torch {torch.__version__} sees no CUDA device: it needs a driver, and a torch built for CUDA")
    if index >= torch.cuda.device_count():
        raise LoadError(
            f"there is no cuda:{index}: torch sees {torch.cuda.device_count()} CUDA devices, from cuda:0 on"
        )
    return torch.device("cuda", index)


class translating:  # used as a function, and cheaper than a generator
    """Say what torch raises in the words of the lane.

    :raises OutOfMemory: there was no room, here or on the device.
    :raises DeviceLost: the device is of no more use to this process.
    """

    __slots__ = ("_torch",)

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if not isinstance(error, RuntimeError):
            return
        text = " ".join(str(error).split())
        if isinstance(error, self._torch.OutOfMemoryError) or "can't allocate memory" in text:
            raise OutOfMemory(text) from error
        if isinstance(error, self._torch.AcceleratorError) and getattr(error, "error_code", LAUNCH_FAILURE) in STICKY:
            raise DeviceLost(text) from error
