"""FakeAccelerator: a CUDA device that is not there. It shows whether a lane says the right things in the right order.

Work waits in streams, as on a device, and is done when a thread waits for it, in the order of the device's time.
Copies and runs read at their begin and write at their end; what changed meanwhile spoils them. So a lane that
forgets to wait for an event, or writes to a slot too early, gets wrong numbers: every time, not one in a thousand.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from asyncline.backends.base import TensorInfo
from asyncline.backends.device import DeviceSession, OutputTensors
from asyncline.backends.fake import NUMBER
from asyncline.engine.lanes.accelerator import Array, DeviceLost, DeviceTensor, OutOfMemory, Shape
from asyncline.graph.fields import DTYPES

STALE = 0xA5
"""What memory holds that nothing was written to, and what a copy or a run makes whose source changed under it."""


class FakeMemory:
    """Bytes of the fake device."""

    def __init__(self, accelerator: FakeAccelerator, address: int, nbytes: int) -> None:
        self._accelerator = accelerator
        self.address = address
        self.nbytes = nbytes
        self.data = np.full(nbytes, STALE, np.uint8)

    def __del__(self) -> None:
        self._accelerator.give_back(self.nbytes)


class FakeEvent:
    def __init__(self, accelerator: FakeAccelerator, number: int) -> None:
        self._accelerator = accelerator
        self.number = number
        #: When the device passes the mark, by the clock; None while that is not known.
        self.passed_at: float | None = 0.0

    def synchronize(self) -> None:
        self._accelerator.wait_until(lambda: self.passed_at is not None)
        assert self.passed_at is not None
        self._accelerator.sleep_until(self.passed_at)


@dataclass(frozen=True)
class Task:
    """One piece of work in a stream."""

    queued_at: float = 0.0
    seconds: float = 0.0
    begin: Callable[[], None] | None = None
    end: Callable[[], None] | None = None
    waits_for: FakeEvent | None = None


class FakeStream:
    """A queue of work."""

    def __init__(self, accelerator: FakeAccelerator, handle: int) -> None:
        self._accelerator = accelerator
        self.handle = handle
        self.tasks: deque[Task] = deque()
        #: When the running task ends, by the clock; None between tasks.
        self.ends_at: float | None = None
        #: When the last task ended.
        self.free_at = 0.0

    def upload(self, target: FakeMemory, source: Array) -> None:
        self._copy("upload", source, target, is_upload=True)

    def download(self, target: Array, source: FakeMemory) -> None:
        self._copy("download", target, source, is_upload=False)

    def record(self, event: FakeEvent) -> None:
        def pass_() -> None:
            event.passed_at = self.free_at

        with self._accelerator.lock:
            event.passed_at = None
            self._accelerator.put(self, "record", event.number, Task(begin=pass_))

    def wait(self, event: FakeEvent) -> None:
        self._accelerator.put(self, "wait", event.number, Task(waits_for=event))

    def launch(self, seconds: float, begin: Callable[[], None], end: Callable[[], None]) -> None:
        """Put a run of a model here, which reads in `begin` and writes in `end`."""
        self._accelerator.put(self, "launch", None, Task(seconds=seconds, begin=begin, end=end))

    def synchronize(self) -> None:
        self._accelerator.wait_until(lambda: not self.tasks and self.ends_at is None)
        self._accelerator.sleep_until(self.free_at)

    def _copy(self, call: str, host: Array, device: FakeMemory, *, is_upload: bool) -> None:
        if not host.flags.c_contiguous:
            raise ValueError(f"{call} wants a C-contiguous array")
        if host.nbytes > device.nbytes:
            raise ValueError(f"{call} of {host.nbytes} bytes, where the device has {device.nbytes}")
        ends = _bytes(host), device.data[: host.nbytes]
        source, target = ends if is_upload else ends[::-1]
        seen: list[Array] = []

        def begin() -> None:
            seen[:] = [source.copy()]

        def end() -> None:
            target[:] = seen[0] if np.array_equal(seen[0], source) else STALE

        seconds = host.nbytes * self._accelerator.byte_s
        self._accelerator.put(self, call, host.nbytes, Task(seconds=seconds, begin=begin, end=end))


class FakeCaptured:
    def __init__(self, accelerator: FakeAccelerator, tasks: list[Task]) -> None:
        self._accelerator = accelerator
        self._tasks = tasks

    def replay(self, stream: FakeStream) -> None:
        with self._accelerator.lock:
            for task in self._tasks:
                self._accelerator.put(stream, "replay", None, task)


class FakeAccelerator:
    """A device whose memory is numpy arrays.

    :param byte_s: seconds that a copy takes for each byte.
    :param capacity_bytes: more memory than that raises OutOfMemory.
    :param can_register: whether memory can be pinned in place.
    :param clock: what time it is, in seconds.
    :param sleep: what a wait waits with.
    """

    def __init__(
        self,
        name: str = "cuda:0",
        *,
        byte_s: float = 0.0,
        capacity_bytes: int = 1 << 30,
        can_register: bool = True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self.architecture = "sm_00"
        self.byte_s = byte_s
        self.capacity_bytes = capacity_bytes
        self.clock = clock
        #: Bytes of device memory in use.
        self.used_bytes = 0
        #: Threads that have called `enter` and not `leave`.
        self.entered: set[int] = set()
        #: What was put into streams, in order: the call, the stream's handle, and the bytes or the event's number.
        self.calls: list[tuple[str, int, int | None]] = []
        #: Addresses of registered memory.
        self.registered: set[int] = set()
        self.lock = threading.RLock()
        self._can_register = can_register
        self._sleep = sleep
        self._streams: list[FakeStream] = []
        self._events = 0
        self._next_address = 1 << 20
        self._capturing: tuple[FakeStream, list[Task]] | None = None
        self._lost = False

    def enter(self) -> None:
        self.entered.add(threading.get_ident())

    def leave(self) -> None:
        self.entered.discard(threading.get_ident())

    def stream(self) -> FakeStream:
        with self.lock:
            stream = FakeStream(self, len(self._streams) + 1)
            self._streams.append(stream)
            return stream

    def event(self) -> FakeEvent:
        with self.lock:
            self._events += 1
            return FakeEvent(self, self._events)

    def memory(self, nbytes: int) -> FakeMemory:
        with self.lock:
            self._check()
            if self.used_bytes + nbytes > self.capacity_bytes:
                raise OutOfMemory(f"no room for {nbytes} bytes on {self.name}")
            self.used_bytes += nbytes
            self._next_address += nbytes + -nbytes % 512
            return FakeMemory(self, self._next_address, nbytes)

    def give_back(self, nbytes: int) -> None:
        with self.lock:
            self.used_bytes -= nbytes

    def pinned(self, nbytes: int) -> Array:
        return np.full(nbytes, STALE, np.uint8)

    def register(self, memory: Array) -> None:
        if not self._can_register:
            raise OSError("the fake device pins nothing in place")
        self.registered.add(memory.ctypes.data)

    def unregister(self, memory: Array) -> None:
        self.registered.remove(memory.ctypes.data)

    def capture(self, stream: FakeStream, work: Callable[[], None]) -> FakeCaptured:
        work()
        stream.synchronize()
        tasks: list[Task] = []
        with self.lock:
            self._capturing = stream, tasks
            try:
                work()
            finally:
                self._capturing = None
        return FakeCaptured(self, tasks)

    def lose(self) -> None:
        """From now on every call raises DeviceLost, as after a sticky error."""
        self._lost = True

    def put(self, stream: FakeStream, call: str, detail: int | None, task: Task) -> None:
        """Queue `task`."""
        with self.lock:
            self._check()
            if self._capturing is not None:
                if stream is not self._capturing[0] or call != "launch":
                    raise RuntimeError(f"{call} cannot be captured")
                self._capturing[1].append(task)
                return
            self.calls.append((call, stream.handle, detail))
            stream.tasks.append(replace(task, queued_at=self.clock()))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Do queued work, in the order of the device's time, until `condition` holds.

        :raises RuntimeError: it never will: the streams wait for an event that nobody records.
        """
        with self.lock:
            self._check()
            while not condition():
                # At one and the same time begins go before ends: whoever did not wait for an end does not see it.
                steps = [step for stream in self._streams if (step := self._next_step(stream)) is not None]
                if not steps:
                    raise RuntimeError("the streams wait for each other")
                at, ends, handle = min(steps)
                stream = self._streams[handle - 1]
                task = stream.tasks[0]
                if ends:
                    stream.tasks.popleft()
                    stream.ends_at, stream.free_at = None, at
                    if task.end is not None:
                        task.end()
                else:
                    stream.ends_at, stream.free_at = at + task.seconds, at
                    if task.begin is not None:
                        task.begin()

    def sleep_until(self, at: float) -> None:
        left = at - self.clock()
        if left > 0:
            self._sleep(left)

    def _next_step(self, stream: FakeStream) -> tuple[float, bool, int] | None:
        """When the next thing happens in `stream`, and whether it is an end; None where that is open."""
        if stream.ends_at is not None:
            return stream.ends_at, True, stream.handle
        if not stream.tasks:
            return None
        task = stream.tasks[0]
        at = max(stream.free_at, task.queued_at)
        if task.waits_for is not None:
            if task.waits_for.passed_at is None:
                return None
            at = max(at, task.waits_for.passed_at)
        return at, False, stream.handle

    def _check(self) -> None:
        if self._lost:
            raise DeviceLost(f"{self.name} is lost")


class FakeDeviceSession(DeviceSession):
    """A model on a FakeAccelerator; a run of b rows takes `base_s + row_s * b` seconds.

    :param compute: from the arrays of the inputs to the output, or to a tuple of outputs.
    :param most: a run of more rows raises OutOfMemory.
    """

    def __init__(
        self,
        accelerator: FakeAccelerator,
        compute: Callable[..., Any] = np.copy,
        *,
        inputs: tuple[TensorInfo, ...] = (NUMBER,),
        outputs: tuple[TensorInfo, ...] = (TensorInfo("y", "FP32", (-1,)),),
        base_s: float = 0.0,
        row_s: float = 0.0,
        most: int | None = None,
        max_batch_size: int | None = None,
        batch_sizes: tuple[int, ...] = (),
    ) -> None:
        super().__init__(accelerator)
        self.inputs = inputs
        self.outputs = outputs
        self.metadata = {"backend": "fake"}
        self.max_batch_size = max_batch_size
        self.batch_sizes = batch_sizes
        self.most = most
        self._compute = compute
        self._base_s = base_s
        self._row_s = row_s

    def infer_outputs(self, shapes: Mapping[str, Shape]) -> OutputTensors | None:
        rows = next(iter(shapes.values()))[0]
        if any(-1 in info.row for info in self.outputs):
            return None
        return {info.name: (np.dtype(DTYPES[info.dtype]), (rows, *info.row)) for info in self.outputs}

    def enqueue(self, inputs: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor]) -> None:
        rows = next(iter(inputs.values())).shape[0]
        if self.most is not None and rows > self.most:
            raise OutOfMemory(f"no room for {rows} rows")
        seen: list[Array] = []

        def begin() -> None:
            seen[:] = [_view(inputs[info.name]).copy() for info in self.inputs]

        def end() -> None:
            changed = any(
                _bytes(was).tobytes() != _bytes(_view(inputs[info.name])).tobytes()
                for info, was in zip(self.inputs, seen, strict=True)
            )
            found = self._compute(*seen)
            results = found if isinstance(found, tuple) else (found,)
            for info, result in zip(self.outputs, results, strict=True):
                target = _view(outputs[info.name])
                if changed:
                    _bytes(target)[:] = STALE
                else:
                    target[:] = result

        stream: Any = self.stream
        stream.launch(self._base_s + self._row_s * rows, begin, end)


def _view(tensor: DeviceTensor) -> Array:
    memory: Any = tensor.memory
    view: Array = memory.data[: tensor.nbytes].view(tensor.dtype).reshape(tensor.shape)
    return view


def _bytes(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)
