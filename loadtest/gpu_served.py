"""Ours: the module in a graph of one Op, in an Engine, in process. Requests of several images each.

Not run on a device yet.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
import uvloop

from asyncline import Each, Engine, Graph, Op, Request
from asyncline.backends import ModelInfo, TensorInfo
from asyncline.backends.cuda import open_accelerator
from asyncline.backends.torch import TorchDeviceSession
from asyncline.engine.lanes.base import Batch
from asyncline.engine.lanes.lanes import Lanes
from asyncline.engine.lanes.pipelined import PipelinedReplica
from loadtest.gpu_models import HEIGHT, WIDTH
from loadtest.report import BenchmarkFailed

EACH = 8
"""Images of a request: as an image is 50 µs of work or so for a large GPU, which is what a request costs here."""
BATCHES_AHEAD = 4
INFO = ModelInfo((TensorInfo("image", "UINT8", (-1, HEIGHT, 3 * WIDTH)),))

Array = np.ndarray[Any, Any]


class Classify(Op):
    """Images `[n, HEIGHT, 3 * WIDTH]`, uint8, to a list of n arrays of scores."""

    cpu = "inline"

    def __init__(self, *inputs: Any, source: str, **settings: Any) -> None:
        super().__init__(*inputs, **settings)
        self._source = source

    def load_model(self, device: str) -> TorchDeviceSession:
        return TorchDeviceSession(self._source, open_accelerator(device, "torch"), info=INFO, precision="bf16")

    def preprocess(self, images: Array) -> Each:
        return Each(images)

    def process(self, batch: list[Array]) -> list[Array]:
        return self.results(self.model.run_rows(batch), len(batch))

    def arrays(self, sample: Array) -> tuple[Array]:
        return (sample,)

    def results(self, outputs: dict[str, Array], count: int) -> list[Array]:
        return list(outputs["output"][:count])


class KeptLanes(Lanes):
    """Keeps the replicas that it makes."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def replicas(self, *args: Any, **options: Any) -> Sequence[Any]:
        made = super().replicas(*args, **options)
        self.made += made
        return made


class Alone:
    """A sample for a lane without an Engine: as much as a replica looks at."""

    dead, rows = False, None

    def __init__(self, value: Array) -> None:
        self.value = value


class TimedReplay:
    """A captured graph that marks its begin and its end in the stream."""

    def __init__(self, captured: Any, marks: list[tuple[Any, Any]]) -> None:
        self.captured = captured
        self._marks = marks

    def replay(self, stream: Any) -> None:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record(stream.stream)
        self.captured.replay(stream)
        end.record(stream.stream)
        self._marks.append((begin, end))


class Served:
    """An Engine that runs for the length of a `with`.

    :param images: uint8 `[n, HEIGHT, 3 * WIDTH]`; requests take EACH of them in turn.
    """

    def __init__(self, source: str, device: str, batch: int, images: Array) -> None:
        self._lanes = KeptLanes()
        graph = Graph("gpu", Classify(Request(), source=source, batch_size=batch, device=device))
        # Nothing watches the loop, which stands still while the others have their turns.
        self._engine = Engine(graph, lanes=self._lanes, blocked_s=None)
        self._batch = batch
        self._images = images
        self._requests = [images[start : start + EACH] for start in range(0, len(images), EACH)]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._loop = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
            self._loop.run(self._engine.start())
            stack.callback(lambda: self._loop.run(self._engine.close()))
            (replica,) = self._lanes.made
            if not isinstance(replica, PipelinedReplica) or replica.ring is None or not replica.ring.captures:
                raise BenchmarkFailed(f"no pipeline with CUDA graphs: {replica!r}")
            self._replica = replica
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def outputs(self) -> Array:
        """Of every image, float32 `[n, CLASSES]`."""

        async def ask() -> list[list[Array]]:
            return await asyncio.gather(*(self._engine.submit(request) for request in self._requests))

        return np.stack([row for rows in self._loop.run(ask()) for row in rows])

    def seconds(self, batches: int) -> float:
        """How long requests of as many images take that fill so many batches, in seconds for each."""
        count = max(1, batches * self._batch // EACH)
        callers = min(count, max(BATCHES_AHEAD, -(-BATCHES_AHEAD * self._batch // EACH)))

        async def ask(numbers: range) -> None:
            for number in numbers:
                await self._engine.submit(self._requests[number % len(self._requests)])

        async def ask_all() -> None:
            async with asyncio.TaskGroup() as tasks:
                for caller in range(callers):
                    tasks.create_task(ask(range(caller, count, callers)))

        before = self._replica.statistics()
        began = time.perf_counter()
        self._loop.run(ask_all())
        elapsed_s = time.perf_counter() - began
        after = self._replica.statistics()
        if after.plain > before.plain:
            raise BenchmarkFailed(f"{after.plain - before.plain} batches ran by plain calls")
        return elapsed_s / (count * EACH) * self._batch

    def lane_seconds(self, batches: int) -> float:
        """The replica by itself, with two batches at a time, in seconds for each: gather, copies, threads, one call
        to the loop for each batch."""
        samples: list[Any] = [Alone(image) for image in self._images[: self._batch]]

        async def feed() -> None:
            left, out = batches, 0
            over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def fill() -> None:
                nonlocal left, out
                while left and out < self._replica.depth:
                    left, out = left - 1, out + 1
                    self._replica.submit(Batch(list(samples), done))

            def done(batch: Batch) -> None:
                nonlocal out
                out -= 1
                if batch.error is None:
                    fill()
                elif not over.done():
                    over.set_exception(batch.error)
                if not out and not over.done():
                    over.set_result(None)

            fill()
            await over

        began = time.perf_counter()
        self._loop.run(feed())
        return (time.perf_counter() - began) / batches

    def gaps_us(self, batches: int) -> list[float]:
        """How long the device was idle between two runs, each time, while it was kept busy for so many batches."""
        marks: list[tuple[Any, Any]] = []
        assert self._replica.ring is not None
        runs = [run for slot in self._replica.ring.slots for run in slot.runs.values()]
        for run in runs:
            run.captured = TimedReplay(run.captured, marks)
        try:
            self.seconds(batches)
        finally:
            for run in runs:
                run.captured = run.captured.captured
        torch.cuda.synchronize()
        return [1e3 * end.elapsed_time(begin) for (_, end), (begin, _) in pairwise(marks)]
