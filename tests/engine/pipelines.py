"""A replica on a fake device, and what feeds it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from asyncline import Graph, Op, Request
from asyncline.backends import TensorInfo
from asyncline.backends.fake_cuda import FakeAccelerator, FakeCaptured, FakeDeviceSession, FakeEvent, FakeStream, Task
from asyncline.engine.lanes.accelerator import DeviceLost
from asyncline.engine.lanes.base import Batch
from asyncline.engine.lanes.pipelined import PipelinedReplica
from asyncline.graph.plan import Node, plan
from asyncline.settings import merge

ROW = 4
ROW_BYTES = 4 * ROW
MODEL, UPLOADS, DOWNLOADS = 1, 2, 3
"""Handles of the streams, which are made in that order."""
X = TensorInfo("x", "FP32", (-1, ROW))
Y = TensorInfo("y", "FP32", (-1, ROW))
Array = np.ndarray[Any, Any]


class Clock:
    """Time that passes only when somebody sleeps, and only while it is not stopped."""

    def __init__(self) -> None:
        self.now = 0.0
        #: Set when a thread has gone to sleep.
        self.asleep = threading.Event()
        self._may_pass = threading.Event()
        self._may_pass.set()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.asleep.set()
        self._may_pass.wait()
        self.now += seconds

    def stop(self) -> None:
        self._may_pass.clear()

    def go(self) -> None:
        self._may_pass.set()


class Device(FakeAccelerator):
    """A fake device that also keeps the waits of threads among its calls, and what was captured.

    :param can_capture: `capture` raises without.
    :param can_pin: `pinned` raises without.
    """

    def __init__(
        self, clock: Clock | None = None, *, can_capture: bool = True, can_pin: bool = True, **options: Any
    ) -> None:
        self.time = clock or Clock()
        super().__init__(clock=self.time, sleep=self.time.sleep, **options)
        self.captured = 0
        #: One for each batch that has been put into the streams.
        self.submitted = threading.Semaphore(0)
        self._can_capture = can_capture
        self._can_pin = can_pin
        #: Called before a thread is told that an event has passed.
        self.on_synchronize: Callable[[], None] = lambda: None

    def event(self) -> FakeEvent:
        return WatchedEvent(self, super().event().number)

    def put(self, stream: FakeStream, call: str, detail: int | None, task: Task) -> None:
        super().put(stream, call, detail, task)
        if (call, stream.handle) == ("record", DOWNLOADS):  # the last that is said of a batch
            self.submitted.release()

    async def wait_submitted(self, batches: int) -> None:
        """Wait until so many more batches have been put into the streams."""
        for _ in range(batches):
            await asyncio.to_thread(self.submitted.acquire)

    def capture(self, stream: FakeStream, work: Callable[[], None]) -> FakeCaptured:
        if not self._can_capture:
            raise RuntimeError("it allocates while it runs")
        self.captured += 1
        return super().capture(stream, work)

    def pinned(self, nbytes: int) -> Array:
        if not self._can_pin:
            raise OSError("no more memory may be locked")
        return super().pinned(nbytes)


class WatchedEvent(FakeEvent):
    """What an error did before the mark, a wait for it tells."""

    def synchronize(self) -> None:
        super().synchronize()
        device = self._accelerator
        assert isinstance(device, Device)
        device.on_synchronize()
        if device._lost:
            raise DeviceLost(f"{device.name} is lost")
        device.calls.append(("synchronize", 0, self.number))


def doubler(
    device: FakeAccelerator, compute: Callable[..., Any] = lambda x: 2 * x, **options: Any
) -> FakeDeviceSession:
    return FakeDeviceSession(device, compute, **{"inputs": (X,), "outputs": (Y,), **options})


class Piped(Op):
    """A DeviceOp; `load` makes its model in the replica's thread."""

    cpu = "inline"
    device = "cuda"

    def __init__(self, *inputs: Any, load: Callable[[], Any], **settings: Any) -> None:
        super().__init__(*inputs, **settings)
        self._load = load

    def load_model(self, device: str) -> Any:
        return self._load()

    def process(self, batch: list[Any]) -> Any:
        return self.results(self.model.run_rows(batch), len(batch))

    def arrays(self, sample: Any) -> tuple[Array, ...]:
        return sample if isinstance(sample, tuple) else (sample,)

    def results(self, outputs: Any, count: int) -> list[Any]:
        columns = [list(output[:count]) for output in outputs.values()]
        return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


class Sample:
    """As much of a sample as a replica looks at."""

    rows = None

    def __init__(self, value: Any, *, dead: bool = False) -> None:
        self.value = value
        self.dead = dead


def row(number: float) -> Array:
    return np.full(ROW, number, np.float32)


def rows(*numbers: float) -> list[Array]:
    return [row(number) for number in numbers]


def node_of(op: Op) -> Node:
    graph = Graph("test", op)
    node = plan(graph, merge(graph.name, {op.name: op.code_settings})).nodes[0]
    op.settings = node.settings
    return node


@asynccontextmanager
async def running(load: Callable[[], Any] | Op, batch_size: int = 8, **options: Any) -> AsyncIterator[PipelinedReplica]:
    """A replica of an Op, or of Piped around what `load` makes, started; closed at the end."""
    op = load if isinstance(load, Op) else Piped(Request(), load=load, batch_size=batch_size)
    model = options.pop("clock", Clock())
    replica = PipelinedReplica(node_of(op), 0, "cuda:0", model, **options)
    try:
        await replica.start()
        yield replica
    finally:
        replica.close()
        await replica.wait_closed()


class Feeder:
    """Hands batches to a replica, no more than `depth` at a time, and keeps them in the order of their end."""

    def __init__(self, replica: PipelinedReplica, depth: int = PipelinedReplica.depth) -> None:
        self.over: list[Batch] = []
        self._replica = replica
        self._depth = depth
        self._waiting: list[Batch] = []
        self._out = 0
        self._all_over = asyncio.Event()
        self._thread = threading.get_ident()

    def put(self, *batches: Iterable[Any]) -> None:
        """Hand in batches, of values or of Samples."""
        self._all_over.clear()
        for values in batches:
            samples: Sequence[Any] = [value if isinstance(value, Sample) else Sample(value) for value in values]
            self._waiting.append(Batch(list(samples), self._done))
        self._feed()

    async def wait(self) -> list[Batch]:
        """All batches so far, when they are over."""
        await self._all_over.wait()
        return self.over

    def _feed(self) -> None:
        while self._waiting and self._out < self._depth:
            self._out += 1
            self._replica.submit(self._waiting.pop(0))

    def _done(self, batch: Batch) -> None:
        assert threading.get_ident() == self._thread
        assert batch not in self.over
        self.over.append(batch)
        self._out -= 1
        self._feed()
        if not self._out:
            self._all_over.set()


async def run(replica: PipelinedReplica, *batches: Iterable[Any]) -> list[Batch]:
    """Run batches and return them in the order of their end."""
    feeder = Feeder(replica)
    feeder.put(*batches)
    return await feeder.wait()


def numbers(batch: Batch) -> list[float]:
    """The first number of each result, of a batch that did not fail and whose rows are whole."""
    assert batch.error is None, batch.error
    for result in batch.results:
        np.testing.assert_array_equal(result, np.full_like(result, result[0]))
    return [float(result[0]) for result in batch.results]
