"""CUDA by pycuda, against a driver that only keeps what it was told: no device has run this."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asyncline import LoadError
from asyncline.backends.cuda import open_accelerator
from asyncline.backends.pycuda import PycudaAccelerator
from asyncline.engine.lanes.accelerator import Accelerator, DeviceLost, OutOfMemory


class Driver:
    """A module `pycuda.driver`."""

    class Error(Exception):
        pass

    class MemoryError(Error):
        pass

    class LaunchError(Error):
        pass

    event_flags = SimpleNamespace(BLOCKING_SYNC=1, DISABLE_TIMING=2)

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.error: Exception | None = None
        calls = self.calls

        class Device:
            @staticmethod
            def count() -> int:
                return 2

            def __init__(self, index: int) -> None:
                calls.append(("Device", index))

            def compute_capability(self) -> tuple[int, int]:
                return (9, 0)

            def retain_primary_context(self) -> Any:
                return SimpleNamespace(push=lambda: calls.append("push"), pop=lambda: calls.append("pop"))

        class Stream:
            handle = 77

            def wait_for_event(self, event: Any) -> None:
                calls.append("wait_for_event")

            def synchronize(self) -> None:
                calls.append("synchronize")

        self.Device = Device
        self.Stream = Stream

    def init(self) -> None:
        if self.error is not None:
            raise self.error

    def Event(self, flags: int) -> Any:
        self.calls.append(("Event", flags))
        return SimpleNamespace(
            record=lambda stream: self.calls.append("record"), synchronize=lambda: self.calls.append("event wait")
        )

    def mem_alloc(self, nbytes: int) -> int:
        if self.error is not None:
            raise self.error
        return 4096

    def memcpy_htod_async(self, target: int, source: Any, stream: Any) -> None:
        self.calls.append(("htod", target, source.nbytes))

    def memcpy_dtoh_async(self, target: Any, source: int, stream: Any) -> None:
        self.calls.append(("dtoh", source, target.nbytes))

    def pagelocked_empty(self, shape: int, dtype: Any) -> Any:
        return np.empty(shape, dtype)

    def register_host_memory(self, array: Any) -> Any:
        if self.error is not None:
            raise self.error
        return SimpleNamespace(base=SimpleNamespace(unregister=lambda: self.calls.append("unregister")))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pycuda", SimpleNamespace(driver=driver))
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    return driver


def test_it_works_in_the_primary_context_of_the_thread_that_enters(driver: Driver) -> None:
    accelerator = open_accelerator("cuda:1", "pycuda")
    accelerator.leave()
    assert driver.calls == [("Device", 1), "push", "pop"]
    assert (accelerator.name, accelerator.architecture) == ("cuda:1", "sm_90")


def test_work_goes_into_streams_and_events_block(driver: Driver) -> None:
    accelerator: Accelerator = PycudaAccelerator(0)
    stream, event, memory = accelerator.stream(), accelerator.event(), accelerator.memory(16)
    driver.calls.clear()
    accelerator.event()
    array = np.zeros(4, np.float32)
    stream.upload(memory, array)
    stream.record(event)
    stream.wait(event)
    stream.download(array, memory)
    event.synchronize()
    stream.synchronize()
    assert driver.calls == [
        ("Event", 3), ("htod", 4096, 16), "record", "wait_for_event", ("dtoh", 4096, 16), "event wait", "synchronize",
    ]  # fmt: skip
    assert (stream.handle, memory.address, memory.nbytes) == (77, 4096, 16)


def test_memory_is_pinned_in_place_and_let_go(driver: Driver) -> None:
    accelerator = PycudaAccelerator(0)
    array = np.zeros(4096, np.uint8)
    accelerator.register(array)
    accelerator.unregister(array)
    assert driver.calls[-1] == "unregister"
    assert accelerator.pinned(10).shape == (10,)
    driver.error = Driver.Error("not supported")
    with pytest.raises(OSError, match="cannot pin 4096 bytes: not supported"):
        accelerator.register(array)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Driver.MemoryError("cuMemAlloc failed: out of memory"), OutOfMemory),
        (Driver.LaunchError("cuStreamSynchronize failed: unspecified launch failure, launch failed"), DeviceLost),
        (Driver.Error("cuMemcpy failed: an illegal memory access was encountered"), DeviceLost),
        (Driver.Error("cuMemAlloc failed: invalid argument"), Driver.Error),
    ],
)
def test_its_errors_are_those_of_the_lane(driver: Driver, error: Exception, kind: type[Exception]) -> None:
    accelerator = PycudaAccelerator(0)
    driver.error = error
    with pytest.raises(kind):
        accelerator.memory(1)


def test_it_captures_no_graphs(driver: Driver) -> None:
    accelerator = PycudaAccelerator(0)
    with pytest.raises(RuntimeError, match="captures no graphs"):
        accelerator.capture(accelerator.stream(), lambda: None)


def test_a_device_that_is_not_there_is_named(driver: Driver) -> None:
    with pytest.raises(LoadError, match=r"^there is no cuda:2: CUDA sees 2 devices, from cuda:0 on$"):
        PycudaAccelerator(2)


def test_a_driver_that_does_not_start_is_said(driver: Driver) -> None:
    driver.error = Driver.Error("cuInit failed: no CUDA-capable device is detected")
    with pytest.raises(LoadError, match=r"^CUDA does not start: cuInit failed: no CUDA-capable device"):
        PycudaAccelerator(0)


def test_without_pycuda_the_line_to_install_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(LoadError, match=r"^CUDA wants torch or pycuda: pip install 'asyncline\[torch\]'"):
        PycudaAccelerator(0)
