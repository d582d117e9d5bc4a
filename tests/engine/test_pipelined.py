"""PipelinedReplica on the fake device: numbers, order, overlap, one call to the loop."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from asyncline import Engine, Graph, Request, Tensor
from asyncline.backends import Model, ModelInfo, TensorInfo

from .pipelines import (
    DOWNLOADS,
    MODEL,
    ROW,
    ROW_BYTES,
    UPLOADS,
    Device,
    Feeder,
    Piped,
    X,
    Y,
    doubler,
    numbers,
    row,
    rows,
    run,
    running,
)

# -- numbers


async def test_batches_of_every_size_come_back_right_and_in_order() -> None:
    async with running(lambda: doubler(Device())) as replica:
        work = [rows(*range(start, start + count)) for start, count in enumerate([1, 2, 3, 4, 5, 6, 7, 8, 1, 8])]
        over = await run(replica, *work)
        assert [numbers(batch) for batch in over] == [[2 * value[0] for value in batch] for batch in work]
        statistics = replica.statistics()
        assert (statistics.slots, statistics.buckets, statistics.captured) == (3, (1, 2, 3, 4, 6, 8), True)
        assert (statistics.pipelined, statistics.rows, statistics.plain) == (10, 45, 0)
        assert statistics.padding == 2  # 5 ran as 6, 7 as 8
        assert replica.batch_sizes == (1, 2, 3, 4, 6, 8)


@pytest.mark.parametrize("byte_s", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("base_s", [0.0, 0.5, 50.0])
@pytest.mark.parametrize("depth", [1, 2, 5])
async def test_no_row_is_spoiled_or_crossed_however_long_copies_and_runs_take(
    byte_s: float, base_s: float, depth: int
) -> None:
    device = Device(byte_s=byte_s)
    async with running(lambda: doubler(device, base_s=base_s), clock=device.time) as replica:
        random = np.random.default_rng(0)
        work = [rows(*random.integers(1, 1000, count)) for count in random.integers(1, 9, 40)]
        feeder = Feeder(replica, depth)
        feeder.put(*work)
        over = await feeder.wait()
        assert [numbers(batch) for batch in over] == [[2 * value[0] for value in batch] for batch in work]


async def test_several_inputs_and_outputs_keep_their_places() -> None:
    left, right = TensorInfo("left", "FP32", (-1, ROW)), TensorInfo("right", "INT64", (-1,))
    total, product = TensorInfo("sum", "FP32", (-1, ROW)), TensorInfo("product", "FP64", (-1,))
    device = Device(byte_s=0.01)

    def compute(a: Any, b: Any) -> Any:
        return a + b[:, None], a[:, 0] * b

    async with running(lambda: doubler(device, compute, inputs=(left, right), outputs=(total, product))) as replica:
        work = [[(row(n), np.int64(10 * n)[()]) for n in range(1, count + 1)] for count in (3, 1, 5)]
        work = [[(a, np.asarray(b)) for a, b in batch] for batch in work]
        for batch in await run(replica, *work):
            for number, (added, multiplied) in enumerate(batch.results, 1):
                np.testing.assert_array_equal(added, row(11 * number))
                assert multiplied == 10 * number**2 and multiplied.dtype == np.float64
        assert replica.statistics().plain == 0


async def test_padding_is_zeros_at_first_and_never_comes_back() -> None:
    seen: list[Any] = []

    def compute(x: Any) -> Any:
        seen.append(x.copy())
        return 2 * x

    async with running(lambda: doubler(Device(), compute)) as replica:
        seen.clear()
        (batch,) = await run(replica, rows(1, 2, 3, 4, 5))
        assert [padded[:, 0].tolist() for padded in seen] == [[1, 2, 3, 4, 5, 0]]
        assert numbers(batch) == [2, 4, 6, 8, 10]


async def test_a_batch_tells_how_long_it_took_to_lay_it_together() -> None:
    device = Device()

    class Slow(Piped):
        def arrays(self, sample: Any) -> Any:
            return (Slower(sample),)

    class Slower:
        dtype, shape = np.dtype(np.float32), (ROW,)

        def __init__(self, array: Any) -> None:
            self._array = array

        def __array__(self, *args: Any, **options: Any) -> Any:
            device.time.now += 0.5
            return self._array

    async with running(Slow(Request(), load=lambda: doubler(device), batch_size=4), clock=device.time) as replica:
        (batch,) = await run(replica, rows(1, 2, 3))
        assert numbers(batch) == [2, 4, 6] and batch.staged_s == 1.5


async def test_results_own_their_memory() -> None:
    async with running(lambda: doubler(Device())) as replica:
        assert replica.ring is not None
        (first,) = await run(replica, rows(1, 2))
        await run(replica, *[rows(9, 9)] * 6)
        assert numbers(first) == [2, 4]
        for slot in replica.ring.slots:
            for one in slot.runs.values():
                assert not any(np.shares_memory(result, one.results["y"]) for result in first.results)


async def test_an_engine_gets_every_request_its_own_answer() -> None:
    model = Model(
        lambda device: doubler(Device(name=device)),
        Request(x=Tensor("FP32", [ROW])).x,
        info=ModelInfo((X,), (Y,)),
        name="model",
        batch_size=8,
        concurrency=2,
        device="cuda:0,1",
    )
    async with Engine(Graph("test", model)) as engine:
        answers = await asyncio.gather(*(engine.submit({"x": row(n)}) for n in range(300)))
        assert [answer.tolist() for answer in answers] == [[2.0 * n] * ROW for n in range(300)]
        statistics = [replica.statistics() for replica in engine.runners[0].replicas]  # type: ignore[attr-defined]
        assert sum(each.rows for each in statistics) == 300
        assert all(each.pipelined and not each.plain for each in statistics)


# -- order


async def test_the_calls_for_a_batch_are_these() -> None:
    device = Device()
    async with running(lambda: doubler(device)) as replica:
        assert replica.ring is not None
        (slot, *_) = replica.ring.slots
        ready, computed, over = (e.number for e in (slot.input_ready, slot.computed, slot.output_ready))
        device.calls.clear()
        await run(replica, rows(1, 2, 3, 4, 5))
        assert device.calls == [
            ("upload", UPLOADS, 5 * ROW_BYTES),
            ("record", UPLOADS, ready),
            ("wait", MODEL, ready),
            ("replay", MODEL, None),
            ("record", MODEL, computed),
            ("wait", DOWNLOADS, computed),
            ("download", DOWNLOADS, 5 * ROW_BYTES),
            ("record", DOWNLOADS, over),
            ("synchronize", 0, over),
        ]


async def test_copies_hide_behind_runs() -> None:
    device = Device(byte_s=1 / (4 * ROW_BYTES))  # a second for each copy of 4 rows
    async with running(lambda: doubler(device, base_s=2.0), clock=device.time) as replica:
        began = device.time.now
        device.time.stop()
        feeder = Feeder(replica, depth=3)
        feeder.put(rows(1, 2, 3, 4), rows(5, 6, 7, 8), rows(9, 10, 11, 12))
        await device.wait_submitted(3)
        device.time.go()
        over = await feeder.wait()
        # An upload, a run each, a download; the other copies go on beside.
        assert [batch.ended_at - began for batch in over] == [4, 6, 8]
        assert [batch.started_at - began for batch in over] == [0, 4, 6]


async def test_a_slot_is_used_again_only_after_its_batch_was_waited_for() -> None:
    device = Device(byte_s=0.01)
    async with running(lambda: doubler(device, base_s=0.3), clock=device.time) as replica:
        assert replica.ring is not None
        over_of = {slot.input_ready.number: slot.output_ready.number for slot in replica.ring.slots}
        device.calls.clear()
        feeder = Feeder(replica, depth=6)
        feeder.put(*[rows(*range(1, 9))] * 30)
        await feeder.wait()
        busy: set[int] = set()
        for call, _, number in device.calls:
            if call == "record" and number in over_of:
                assert over_of[number] not in busy
                busy.add(over_of[number])
            elif call == "synchronize":
                busy.remove(number)
        assert not busy and len(over_of) == 3


async def test_no_more_batches_are_in_flight_than_there_are_slots() -> None:
    device = Device()
    async with running(lambda: doubler(device, base_s=1.0), clock=device.time) as replica:
        device.time.stop()
        feeder = Feeder(replica, depth=10)
        feeder.put(*[rows(1)] * 10)
        await device.wait_submitted(3)
        assert replica.ring is not None and replica.ring.free.empty()
        device.time.go()
        assert [numbers(batch) for batch in await feeder.wait()] == [[2]] * 10


async def test_the_loop_is_called_once_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(lambda: doubler(Device())) as replica:
        loop = asyncio.get_running_loop()
        called: list[Any] = []
        call = loop.call_soon_threadsafe

        def counted(callback: Any, *args: Any, **options: Any) -> Any:
            called.append(args[0])
            return call(callback, *args, **options)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        over = await run(replica, rows(1, 2, 3), rows(4), [np.zeros(9, np.float32)], rows(5))
        monkeypatch.undo()
        assert called == over and len(over) == 4
