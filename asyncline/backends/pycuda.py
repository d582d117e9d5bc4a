"""CUDA by pycuda, for TensorRT where torch is not installed. It captures no graphs.

Works in the device's primary context, the one that torch and TensorRT use; pycuda.autoinit would make another,
in which their memory is not valid. Written against pycuda 2026.1; checked by recorded calls, never run on a device.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from asyncline.engine.lanes.accelerator import Array, Captured, DeviceLost, OutOfMemory
from asyncline.errors import LoadError

_LOST = re.compile("launch failed|illegal|misaligned|assert|invalid program counter|ecc|stack error", re.IGNORECASE)
"""Words of the errors after which the device is of no more use: pycuda has no class for them."""


class PycudaMemory:
    """Bytes of the device."""

    def __init__(self, allocation: Any, nbytes: int) -> None:
        self.allocation = allocation
        self.nbytes = nbytes

    @property
    def address(self) -> int:
        return int(self.allocation)


class PycudaEvent:
    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        flags = cuda.event_flags
        self.event = cuda.Event(flags.BLOCKING_SYNC | flags.DISABLE_TIMING)

    def synchronize(self) -> None:
        with _translating(self._cuda):
            self.event.synchronize()


class PycudaStream:
    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self.stream = cuda.Stream()

    @property
    def handle(self) -> int:
        return int(self.stream.handle)

    def upload(self, target: PycudaMemory, source: Array) -> None:
        with _translating(self._cuda):
            self._cuda.memcpy_htod_async(target.allocation, source, self.stream)

    def download(self, target: Array, source: PycudaMemory) -> None:
        with _translating(self._cuda):
            self._cuda.memcpy_dtoh_async(target, source.allocation, self.stream)

    def record(self, event: PycudaEvent) -> None:
        with _translating(self._cuda):
            event.event.record(self.stream)

    def wait(self, event: PycudaEvent) -> None:
        with _translating(self._cuda):
            self.stream.wait_for_event(event.event)

    def synchronize(self) -> None:
        with _translating(self._cuda):
            self.stream.synchronize()


class PycudaAccelerator:
    """A CUDA device, by pycuda.

    :param index: its number.
    :raises LoadError: pycuda is not installed, or there is no such device.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            import pycuda.driver as cuda  # type: ignore[import-not-found]  # never installed with the linters
        except ImportError:
            raise LoadError(
                "CUDA wants torch or pycuda: pip install 'asyncline[torch]', or 'asyncline[tensorrt]' for pycuda"
            ) from None
        self._cuda: Any = cuda
        try:
            cuda.init()
            count = cuda.Device.count()
        except cuda.Error as error:
            raise LoadError(f"CUDA does not start: {' '.join(str(error).split())}") from error
        if index >= count:
            raise LoadError(f"there is no cuda:{index}: CUDA sees {count} devices, from cuda:0 on")
        device = cuda.Device(index)
        self.name = f"cuda:{index}"
        major, minor = device.compute_capability()
        self.architecture = f"sm_{major}{minor}"
        self._context = device.retain_primary_context()
        self._registered: dict[int, Any] = {}

    def enter(self) -> None:
        self._context.push()

    def leave(self) -> None:
        # In the thread that pushed it, or the process aborts at its end.
        self._context.pop()

    def stream(self) -> PycudaStream:
        return PycudaStream(self._cuda)

    def event(self) -> PycudaEvent:
        return PycudaEvent(self._cuda)

    def memory(self, nbytes: int) -> PycudaMemory:
        with _translating(self._cuda):
            return PycudaMemory(self._cuda.mem_alloc(nbytes), nbytes)

    def pinned(self, nbytes: int) -> Array:
        array: Array = self._cuda.pagelocked_empty(nbytes, np.uint8)
        return array

    def register(self, memory: Array) -> None:
        try:
            self._registered[memory.ctypes.data] = self._cuda.register_host_memory(memory)
        except self._cuda.Error as error:
            raise OSError(f"cannot pin {memory.nbytes} bytes: {error}") from error

    def unregister(self, memory: Array) -> None:
        self._registered.pop(memory.ctypes.data).base.unregister()

    def capture(self, stream: PycudaStream, work: Callable[[], None]) -> Captured:
        raise RuntimeError("pycuda captures no graphs")


@contextlib.contextmanager
def _translating(cuda: Any) -> Iterator[None]:
    """Say what pycuda raises in the words of the lane."""
    try:
        yield
    except cuda.Error as error:
        if isinstance(error, cuda.MemoryError):
            raise OutOfMemory(str(error)) from error
        if _LOST.search(str(error)):
            raise DeviceLost(str(error)) from error
        raise
