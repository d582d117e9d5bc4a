"""FakeAccelerator: a lane that says the right things gets right numbers; one that forgets a wait does not."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from asyncline import OpError
from asyncline.backends import TensorInfo
from asyncline.backends.fake_cuda import FakeAccelerator, FakeDeviceSession
from asyncline.engine.lanes.accelerator import Accelerator, DeviceLost, DeviceModel, DeviceTensor, OutOfMemory

ROW = 4
INFO = TensorInfo("x", "FP32", (-1, ROW))


class Clock:
    """Time that passes when somebody sleeps."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def device(**options: Any) -> tuple[FakeAccelerator, Clock]:
    clock = Clock()
    return FakeAccelerator(clock=clock, sleep=clock.sleep, **options), clock


def doubler(accelerator: FakeAccelerator, **options: Any) -> FakeDeviceSession:
    return FakeDeviceSession(
        accelerator, lambda x: 2 * x, inputs=(INFO,), outputs=(TensorInfo("y", "FP32", (-1, ROW)),), **options
    )


def batches(count: int, rows: int = 3) -> list[np.ndarray[Any, Any]]:
    return [np.full((rows, ROW), number, np.float32) for number in range(1, count + 1)]


@dataclass
class Slot:
    """Where one batch lies, on the host and on the device."""

    pinned_input: np.ndarray[Any, Any]
    device_input: Any
    device_output: Any
    pinned_output: np.ndarray[Any, Any]
    input_ready: Any
    computed: Any
    output_ready: Any


class Pipeline:
    """The lane of asyncline/engine/lanes/accelerator.py in its shortest form, one thread.

    :param forget: a step that it leaves out.
    """

    def __init__(self, model: FakeDeviceSession, slots: int = 3, rows: int = 3, forget: str = "") -> None:
        self.model = model
        self.forget = forget
        device = model.accelerator
        nbytes = rows * ROW * 4
        self.uploads, self.downloads = device.stream(), device.stream()
        self.slots = [
            Slot(
                device.pinned(nbytes).view(np.float32).reshape(rows, ROW),
                device.memory(nbytes),
                device.memory(nbytes),
                device.pinned(nbytes).view(np.float32).reshape(rows, ROW),
                device.event(),
                device.event(),
                device.event(),
            )
            for _ in range(slots)
        ]
        self.captured = [
            device.capture(model.stream, lambda slot=slot: self.enqueue(slot, rows)) for slot in self.slots
        ]

    def enqueue(self, slot: Slot, rows: int) -> None:
        shape = (rows, ROW)
        self.model.enqueue(
            {"x": DeviceTensor(slot.device_input, np.dtype(np.float32), shape)},
            {"y": DeviceTensor(slot.device_output, np.dtype(np.float32), shape)},
        )

    def submit(self, index: int, batch: np.ndarray[Any, Any]) -> None:
        slot, stream = self.slots[index], self.model.stream
        slot.pinned_input[:] = batch
        self.uploads.upload(slot.device_input, slot.pinned_input)
        self.uploads.record(slot.input_ready)
        if self.forget != "input_ready":
            stream.wait(slot.input_ready)
        self.captured[index].replay(stream)
        stream.record(slot.computed)
        if self.forget != "computed":
            self.downloads.wait(slot.computed)
        self.downloads.download(slot.pinned_output, slot.device_output)
        self.downloads.record(slot.output_ready)

    def complete(self, index: int) -> np.ndarray[Any, Any]:
        slot = self.slots[index]
        if self.forget != "output_ready":
            slot.output_ready.synchronize()
        return slot.pinned_output.copy()

    def run(self, work: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        ring = len(self.slots)
        results = []
        for number, batch in enumerate(work):
            if number >= ring:
                results.append(self.complete(number % ring))
            self.submit(number % ring, batch)
        return results + [self.complete(number % ring) for number in range(max(0, len(work) - ring), len(work))]


# -- a lane on it


@pytest.mark.parametrize("byte_s", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("base_s", [0.0, 0.5, 50.0])
def test_a_pipeline_that_waits_for_its_events_gets_every_batch_right(byte_s: float, base_s: float) -> None:
    accelerator, _ = device(byte_s=byte_s)
    work = batches(10)
    results = Pipeline(doubler(accelerator, base_s=base_s)).run(work)
    np.testing.assert_array_equal(results, [2 * batch for batch in work])


@pytest.mark.parametrize("forget", ["input_ready", "computed", "output_ready"])
@pytest.mark.parametrize(("byte_s", "base_s"), [(0.0, 0.0), (0.01, 0.5), (1.0, 0.5), (0.01, 50.0)])
def test_a_pipeline_that_forgets_a_wait_gets_wrong_numbers(forget: str, byte_s: float, base_s: float) -> None:
    accelerator, _ = device(byte_s=byte_s)
    work = batches(10)
    results = Pipeline(doubler(accelerator, base_s=base_s), forget=forget).run(work)
    assert not np.array_equal(results, [2 * batch for batch in work])


def test_a_slot_that_is_written_to_too_early_gives_wrong_numbers() -> None:
    accelerator, _ = device(byte_s=0.01)
    pipeline = Pipeline(doubler(accelerator))
    pipeline.submit(0, batches(1)[0])
    pipeline.slots[0].pinned_input[:] = 9
    assert not np.array_equal(pipeline.complete(0), 2 * batches(1)[0])


def test_a_run_whose_input_is_overwritten_on_the_device_gives_wrong_numbers() -> None:
    accelerator, _ = device(byte_s=0.01)
    pipeline = Pipeline(doubler(accelerator, base_s=50.0))
    pipeline.submit(0, batches(1)[0])
    pipeline.uploads.upload(pipeline.slots[0].device_input, np.full((3, ROW), 9, np.float32))
    assert not np.array_equal(pipeline.complete(0), 2 * batches(1)[0])


def test_the_calls_are_kept_in_order() -> None:
    accelerator, _ = device()
    pipeline = Pipeline(doubler(accelerator))
    slot = pipeline.slots[1]
    accelerator.calls.clear()
    pipeline.submit(1, batches(1)[0])
    up, model, down = pipeline.uploads.handle, pipeline.model.stream.handle, pipeline.downloads.handle
    assert accelerator.calls == [
        ("upload", up, 48),
        ("record", up, slot.input_ready.number),
        ("wait", model, slot.input_ready.number),
        ("replay", model, None),
        ("record", model, slot.computed.number),
        ("wait", down, slot.computed.number),
        ("download", down, 48),
        ("record", down, slot.output_ready.number),
    ]


def test_copies_hide_behind_runs() -> None:
    accelerator, clock = device(byte_s=1 / 48)  # a second for each copy
    pipeline = Pipeline(doubler(accelerator, base_s=2.0))
    began = clock.now
    pipeline.run(batches(10))
    # The first upload, ten runs, the last download.
    assert clock.now - began == pytest.approx(1 + 10 * 2 + 1)


def test_two_threads_submit_and_complete() -> None:
    accelerator, _ = device()
    pipeline = Pipeline(doubler(accelerator))
    work = batches(200)
    free, submitted = threading.Semaphore(3), threading.Semaphore(0)
    results: list[np.ndarray[Any, Any]] = []

    def complete() -> None:
        for number in range(len(work)):
            submitted.acquire()
            results.append(pipeline.complete(number % 3))
            free.release()

    thread = threading.Thread(target=complete)
    thread.start()
    for number, batch in enumerate(work):
        free.acquire()
        pipeline.submit(number % 3, batch)
        submitted.release()
    thread.join(20)
    np.testing.assert_array_equal(results, [2 * batch for batch in work])


# -- its parts


def test_it_is_an_accelerator_and_its_session_a_model_of_the_lane() -> None:
    accelerator: Accelerator = device()[0]
    assert isinstance(doubler(accelerator), DeviceModel)


def test_a_session_runs_without_a_lane_too() -> None:
    accelerator, clock = device(byte_s=0.5)
    session = doubler(accelerator, base_s=1.0, row_s=0.25)
    (batch,) = batches(1, rows=2)
    np.testing.assert_array_equal(session.run(batch), 2 * batch)
    assert clock.now == pytest.approx(0.5 * 32 + 1.5 + 0.5 * 32)
    np.testing.assert_array_equal(session.run(list(batches(1)[0])), 2 * batches(1)[0])


def test_a_session_keeps_its_memory_from_run_to_run_and_gives_it_back() -> None:
    accelerator, _ = device()
    session = doubler(accelerator)
    for rows in (1, 4, 2, 4):
        session.run(batches(1, rows)[0])
    assert accelerator.used_bytes == 2 * 4 * ROW * 4
    session.close()
    assert accelerator.used_bytes == 0


def test_outputs_of_open_lengths_are_not_run() -> None:
    accelerator, _ = device()
    session = FakeDeviceSession(accelerator, inputs=(INFO,), outputs=(TensorInfo("y", "FP32", (-1, -1)),))
    assert session.output_tensors({"x": (2, ROW)}) is None
    with pytest.raises(OpError, match="depend on the data"):
        session.run(batches(1)[0])


def test_memory_runs_out_and_comes_back() -> None:
    accelerator, _ = device(capacity_bytes=1000)
    first = accelerator.memory(800)
    with pytest.raises(OutOfMemory, match="no room for 300 bytes on cuda:0"):
        accelerator.memory(300)
    del first
    assert accelerator.memory(300).nbytes == 300


def test_a_run_of_too_many_rows_is_out_of_memory() -> None:
    accelerator, _ = device()
    session = doubler(accelerator, most=2)
    with pytest.raises(OutOfMemory):
        session.run(batches(1, rows=3)[0])
    assert len(session.run(batches(1, rows=2)[0])) == 2


def test_a_lost_device_fails_every_call() -> None:
    accelerator, _ = device()
    event, stream = accelerator.event(), accelerator.stream()
    accelerator.lose()
    for call in (event.synchronize, stream.synchronize, lambda: accelerator.memory(1), lambda: stream.record(event)):
        with pytest.raises(DeviceLost):
            call()


def test_streams_that_wait_for_each_other_are_found_out() -> None:
    accelerator, _ = device()
    one, other = accelerator.stream(), accelerator.stream()
    first, second = accelerator.event(), accelerator.event()
    for event in (first, second):
        event.passed_at = None
    one.wait(second)
    one.record(first)
    other.wait(first)
    other.record(second)
    with pytest.raises(RuntimeError, match="wait for each other"):
        one.synchronize()


def test_only_runs_can_be_captured() -> None:
    accelerator, _ = device()
    stream = accelerator.stream()
    event = accelerator.event()
    with pytest.raises(RuntimeError, match="record cannot be captured"):
        accelerator.capture(stream, lambda: stream.record(event))


@pytest.mark.parametrize("call", ["upload", "download"])
def test_a_copy_that_does_not_fit_is_refused(call: str) -> None:
    accelerator, _ = device()
    stream, memory, array = accelerator.stream(), accelerator.memory(8), np.zeros(3, np.float32)
    arguments = (memory, array) if call == "upload" else (array, memory)
    with pytest.raises(ValueError, match=f"{call} of 12 bytes, where the device has 8"):
        getattr(stream, call)(*arguments)


def test_memory_that_is_there_can_be_pinned_or_not() -> None:
    array = np.zeros(4096, np.uint8)
    accelerator, _ = device()
    accelerator.register(array)
    assert accelerator.registered
    accelerator.unregister(array)
    assert not accelerator.registered
    with pytest.raises(OSError, match="pins nothing"):
        device(can_register=False)[0].register(array)


def test_of_ever_new_shapes_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncline.backends.device.MOST_SHAPES", 4)
    session = doubler(device()[0])
    for rows in range(1, 20):
        session.output_tensors({"x": (rows, ROW)})
        assert len(session._outputs) <= 4
