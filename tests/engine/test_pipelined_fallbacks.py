"""PipelinedReplica where a piece is missing: graphs, pinned memory, known shapes, room on the device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest

from asyncline import Op, Request
from asyncline.backends import FakeSession, Model, ModelInfo, TensorInfo
from asyncline.backends.fake_cuda import FakeDeviceSession
from asyncline.engine.lanes.accelerator import OutOfMemory
from asyncline.engine.lanes.pipelined import can_pipeline

from .pipelines import MODEL, ROW, ROW_BYTES, Device, Piped, X, Y, doubler, numbers, row, rows, run, running


class Eager(FakeDeviceSession):
    """Its outputs have lengths that depend on the data; it still runs, by a plain call."""

    def run_eagerly(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": 2 * inputs["x"]}


# -- graphs


async def test_graphs_are_captured_for_every_slot_the_largest_first() -> None:
    device = Device()
    shapes: list[int] = []

    class Watched(FakeDeviceSession):
        def enqueue(self, inputs: Any, outputs: Any) -> None:
            shapes.append(inputs["x"].shape[0])
            super().enqueue(inputs, outputs)

    async with running(lambda: Watched(device, inputs=(X,), outputs=(Y,)), batch_size=4):
        assert device.captured == 3 * 4
        assert shapes == sorted(shapes, reverse=True) and set(shapes) == {1, 2, 3, 4}


def unable(device: Device) -> FakeDeviceSession:
    session = doubler(device)
    session.can_capture = False
    return session


@pytest.mark.parametrize(
    ("make", "device"),
    [(doubler, Device(can_capture=False)), (unable, Device())],
    ids=["capture raises", "the model says so"],
)
async def test_without_graphs_runs_are_enqueued(make: Callable[[Device], Any], device: Device) -> None:
    async with running(lambda: make(device)) as replica:
        device.calls.clear()
        (batch,) = await run(replica, rows(1, 2, 3, 4, 5))
        assert numbers(batch) == [2, 4, 6, 8, 10]
        assert ("launch", MODEL, None) in device.calls and ("replay", MODEL, None) not in device.calls
        statistics = replica.statistics()
        assert (statistics.captured, statistics.pipelined, statistics.padding) == (False, 1, 1)


async def test_a_size_that_the_model_refuses_is_padded_to_the_next(caplog: pytest.LogCaptureFixture) -> None:
    class FromFour(FakeDeviceSession):
        def infer_outputs(self, shapes: Any) -> Any:
            if shapes["x"][0] < 4:
                raise RuntimeError("no profile for so few rows")
            return super().infer_outputs(shapes)

    async with running(lambda: FromFour(Device(), lambda x: 2 * x, inputs=(X,), outputs=(Y,))) as replica:
        (batch,) = await run(replica, rows(1))
        assert numbers(batch) == [2]
        assert replica.statistics().buckets == (4, 6, 8)
        assert "op 'piped': its model does not run 3 rows: no profile for so few rows" in caplog.text


# -- memory


async def test_memory_that_cannot_be_pinned_is_used_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    async with running(lambda: doubler(Device(can_pin=False))) as replica:
        (batch,) = await run(replica, rows(1, 2, 3))
        assert numbers(batch) == [2, 4, 6]
        assert replica.statistics().pipelined == 1
    assert caplog.text.count("copies are slow, host memory cannot be pinned: no more memory may be locked") == 1


@pytest.mark.parametrize("slots", [1, 2])
async def test_with_less_room_fewer_batches_are_in_flight(slots: int) -> None:
    # Each slot has room for eight rows in and eight out.
    device = Device(capacity_bytes=slots * 16 * ROW_BYTES + ROW_BYTES)
    async with running(lambda: doubler(device)) as replica:
        work = [rows(n, n + 1) for n in range(10)]
        over = await run(replica, *work)
        assert [numbers(batch) for batch in over] == [[2 * n, 2 * n + 2] for n in range(10)]
        assert replica.statistics().slots == slots


async def test_without_room_for_one_batch_calls_are_plain() -> None:
    device = Device(capacity_bytes=8 * ROW_BYTES)
    async with running(lambda: doubler(device)) as replica:
        (batch,) = await run(replica, rows(1))
        assert numbers(batch) == [2]
        assert (replica.statistics().slots, replica.statistics().plain) == (0, 1)


async def test_a_size_that_finds_no_room_at_the_start_is_left_to_plain_calls() -> None:
    async with running(lambda: doubler(Device(), most=4)) as replica:
        assert replica.statistics().buckets == (1, 2, 3, 4)
        assert replica.ring is not None and set(replica.ring.slots[0].runs) == {1, 2, 3, 4}
        small, large, again = await run(replica, rows(1, 2, 3, 4), rows(1, 2, 3, 4, 5), rows(1))
        assert numbers(small) == [2, 4, 6, 8] and numbers(again) == [2]
        assert isinstance(large.fault, OutOfMemory)


# -- shapes


async def test_outputs_whose_lengths_depend_on_the_data_come_by_a_plain_call(caplog: pytest.LogCaptureFixture) -> None:
    open_output = TensorInfo("y", "FP32", (-1, -1))
    async with running(lambda: Eager(Device(), inputs=(X,), outputs=(open_output,))) as replica:
        over = await run(replica, rows(1, 2), rows(3))
        assert [numbers(batch) for batch in over] == [[2, 4], [6]]
        assert (replica.statistics().plain, replica.statistics().pipelined) == (2, 0)
        assert repr(replica) == "<PipelinedReplica 0 of 'piped' on cuda:0: plain calls>"
    assert "batches run one by one: the outputs have lengths that depend on the data" in caplog.text


async def test_a_batch_with_a_sample_of_another_shape_takes_the_plain_path_in_its_turn() -> None:
    wide, wide_out = TensorInfo("x", "FP32", (-1, -1)), TensorInfo("y", "FP32", (-1, -1))

    class Wide(FakeDeviceSession):
        def infer_outputs(self, shapes: Any) -> Any:
            return {"y": (np.dtype(np.float32), shapes["x"])}

    class Exemplary(Piped):
        def example(self) -> Any:
            return row(0)

    op = Exemplary(
        Request(), load=lambda: Wide(Device(), lambda x: 2 * x, inputs=(wide,), outputs=(wide_out,)), batch_size=4
    )
    async with running(op) as replica:
        longer = np.full(7, 3, np.float32)
        over = await run(replica, rows(1, 2), [longer], [row(4).astype(np.float64)], rows(5))
        assert [[r.tolist() for r in batch.results] for batch in over] == [
            [[2.0] * ROW, [4.0] * ROW],
            [[6.0] * 7],
            [[8.0] * ROW],
            [[10.0] * ROW],
        ]
        assert (replica.statistics().pipelined, replica.statistics().plain) == (2, 2)


async def test_a_model_of_one_size_runs_padded_to_it() -> None:
    fixed_in, fixed_out = TensorInfo("x", "FP32", (5, ROW)), TensorInfo("y", "FP32", (5, ROW))
    async with running(lambda: doubler(Device(), inputs=(fixed_in,), outputs=(fixed_out,)), batch_size=3) as replica:
        (batch,) = await run(replica, rows(1, 2, 3))
        assert numbers(batch) == [2, 4, 6]
        assert (replica.statistics().buckets, replica.statistics().padding) == ((5,), 2)


async def test_a_model_without_streams_runs_by_plain_calls(caplog: pytest.LogCaptureFixture) -> None:
    async with running(lambda: FakeSession(lambda x: 2 * x, inputs=(X,), outputs=(Y,))) as replica:
        (batch,) = await run(replica, rows(1, 2))
        assert numbers(batch) == [2, 4]
    assert "its model on cuda:0 has no streams" in caplog.text


async def test_an_op_with_a_process_of_its_own_has_it_called() -> None:
    class Own(Piped):
        def process(self, batch: list[Any]) -> list[Any]:
            return [10 * sample for sample in batch]

    async with running(Own(Request(), load=lambda: doubler(Device()), batch_size=4)) as replica:
        (batch,) = await run(replica, rows(1, 2))
        assert numbers(batch) == [10, 20]


# -- which Ops


def ops() -> dict[str, tuple[Op, bool]]:
    x = Request()
    info = ModelInfo((X,), (Y,))

    class OwnProcess(Model):
        def process(self, batch: list[Any]) -> list[Any]:
            return batch

    class OwnBoth(Model):
        def process(self, batch: list[Any]) -> list[Any]:
            return self.results(self.model.run_rows(batch), len(batch))

        def results(self, outputs: Any, count: int) -> list[Any]:
            return [float(value) for value in outputs["y"][:count, 0]]

    class OwnResults(Model):
        def results(self, outputs: Any, count: int) -> list[Any]:
            return [float(value) for value in outputs["y"][:count, 0]]

    class Plain(Op):
        def process(self, batch: list[Any]) -> list[Any]:
            return batch

    def load(device: str) -> Any: ...

    return {
        "a model": (Model(load, x, info=info), True),
        "its own process": (OwnProcess(load, x, info=info), False),
        "its own process and results": (OwnBoth(load, x, info=info), True),
        "its own results": (OwnResults(load, x, info=info), True),
        "batches joined": (Model(load, x, info=info, rows=True), False),
        "no model": (Plain(x), False),
    }


@pytest.mark.parametrize("what", ops())
def test_an_op_is_pipelined_where_process_only_runs_its_model(what: str) -> None:
    made, expected = ops()[what]
    assert can_pipeline(made) is expected


# -- profiler


class Annotated(Device):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.ranges: list[str] = []

    def range(self, name: str) -> AbstractContextManager[None]:
        self.ranges.append(name)
        return nullcontext()


@pytest.mark.parametrize(("asked", "shown"), [(True, {"gather", "submit", "wait", "results"}), (False, set())])
async def test_a_profiler_is_shown_what_the_threads_do_when_asked(asked: bool, shown: set[str]) -> None:
    device = Annotated()
    async with running(lambda: doubler(device), nvtx=asked) as replica:
        await run(replica, rows(1))
        assert set(device.ranges) == shown


async def test_a_device_without_ranges_is_not_asked_for_any() -> None:
    async with running(lambda: doubler(Device()), nvtx=True) as replica:
        (batch,) = await run(replica, rows(1))
        assert numbers(batch) == [2]


@pytest.fixture(autouse=True)
def warnings_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "asyncline.engine")
