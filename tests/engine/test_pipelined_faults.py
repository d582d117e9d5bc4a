"""PipelinedReplica when something fails: the model, the device, a hook; and its end, also of one that hangs."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asyncline import Engine, Graph, LoadError, OpError, Request
from asyncline.backends import FakeSession
from asyncline.backends.fake_cuda import FakeDeviceSession
from asyncline.engine.lanes import thread
from asyncline.engine.lanes.accelerator import DeviceLost, OutOfMemory
from asyncline.engine.lanes.base import Batch
from asyncline.engine.lanes.call import WrongNumber
from asyncline.engine.lanes.pipelined import PipelinedReplica

from .pipelines import (
    ROW_BYTES,
    Device,
    Feeder,
    Piped,
    Sample,
    X,
    Y,
    doubler,
    node_of,
    numbers,
    row,
    rows,
    run,
    running,
)


def threads_of(replica: PipelinedReplica) -> list[threading.Thread]:
    name = f"asyncline {replica.node.name} {replica.index} "
    return [each for each in threading.enumerate() if each.name.startswith(name)]


async def ended(replica: PipelinedReplica) -> None:
    """Its threads have said that they are over, and soon are."""
    for each in threads_of(replica):
        await asyncio.to_thread(each.join, 10)
        assert not each.is_alive()


def uncaptured(device: Device, **options: Any) -> FakeDeviceSession:
    session = doubler(device, **options)
    session.can_capture = False
    return session


# -- samples


async def test_dead_samples_are_left_out_before_the_upload() -> None:
    device = Device()
    async with running(lambda: doubler(device)) as replica:
        device.calls.clear()
        samples = [Sample(row(1)), Sample(row(2), dead=True), Sample(row(3))]
        (batch,) = await run(replica, samples)
        assert batch.samples == [samples[0], samples[2]]
        assert numbers(batch) == [2, 6]
        assert device.calls[0] == ("upload", 2, 2 * ROW_BYTES)


async def test_a_batch_of_dead_samples_never_reaches_the_device() -> None:
    device = Device()
    async with running(lambda: doubler(device)) as replica:
        device.calls.clear()
        (batch,) = await run(replica, [Sample(row(1), dead=True)])
        assert batch.error is None and list(batch.results) == batch.samples == []
        assert not device.calls


async def test_a_batch_that_did_not_run_took_no_time() -> None:
    ticks = map(float, itertools.count())
    async with running(lambda: doubler(Device()), clock=lambda: next(ticks)) as replica:
        dead, alive = await run(replica, [Sample(row(1), dead=True)], rows(2))
        assert dead.started_at == dead.ended_at
        assert alive.started_at < alive.ended_at


async def test_an_abandoned_batch_is_handed_back_unrun() -> None:
    device = Device()
    async with running(lambda: doubler(device)) as replica:
        device.calls.clear()
        over: asyncio.Future[Batch] = asyncio.get_running_loop().create_future()
        samples: Any = [Sample(row(1))]
        batch = Batch(samples, over.set_result)
        batch.abandoned = True
        replica.submit(batch)
        assert await over is batch
        assert batch.error is None and not batch.results
        assert not device.calls


# -- hooks


class Faulty(Piped):
    def arrays(self, sample: Any) -> Any:
        if sample[0] == 13:
            raise ValueError("thirteen")
        return super().arrays(sample)

    def results(self, outputs: Any, count: int) -> list[Any]:
        found = super().results(outputs, count)
        if found[0][0] == 2 * 14:
            raise SystemExit("fourteen")
        return found[:-1] if found[0][0] == 2 * 15 else found


async def test_what_the_op_raises_fails_the_batch_and_nothing_else() -> None:
    async with running(Faulty(Request(), load=lambda: doubler(Device()), batch_size=4)) as replica:
        raising, ending, short, *good = await run(replica, rows(1, 13), rows(14), rows(15, 1), *[rows(1, 2)] * 5)
        assert str(raising.error) == "op 'faulty' process: ValueError: thirteen"
        assert str(ending.error) == "op 'faulty' process: SystemExit: fourteen"
        assert isinstance(short.error, WrongNumber)
        assert str(short.error) == "op 'faulty' process: expected 2 results, got 1"
        assert [numbers(batch) for batch in good] == [[2, 4]] * 5
        assert replica.ring is not None and replica.ring.free.qsize() == 3


# -- memory


async def test_out_of_memory_fails_its_batch_with_that_fault_and_the_replica_lives() -> None:
    session = uncaptured(Device())
    async with running(lambda: session) as replica:
        session.most = 4
        large, small = rows(1, 2, 3, 4, 5), rows(1, 2)
        over = await run(replica, *[large, small] * 5)
        for batch in over[::2]:
            assert isinstance(batch.fault, OutOfMemory)
            assert batch.fault.__traceback__ is None  # its frames hold what there was no room for
            assert str(batch.error) == "op 'piped' process: OutOfMemory: no room for 6 rows"
        assert [numbers(batch) for batch in over[1::2]] == [[2, 4]] * 5
        assert replica.ring is not None and replica.ring.free.qsize() == 3


async def test_a_slot_whose_batch_found_no_memory_is_free_only_after_its_upload() -> None:
    device = Device(byte_s=1.0)
    session = uncaptured(device)
    async with running(lambda: session, clock=device.time) as replica:
        session.most = 4
        (batch,) = await run(replica, rows(1, 2, 3, 4, 5))
        assert isinstance(batch.fault, OutOfMemory)
        assert batch.ended_at - batch.started_at == (5 + 8) * ROW_BYTES  # and the zeros that take its place


# -- a lost device


async def test_a_lost_device_fails_what_is_in_flight_and_all_that_comes() -> None:
    device = Device(byte_s=1.0)
    async with running(lambda: doubler(device), clock=device.time) as replica:
        device.time.stop()
        feeder = Feeder(replica)
        feeder.put(rows(1), rows(2), rows(3))
        await device.wait_submitted(2)
        device.lose()
        device.time.go()
        over = await feeder.wait()
        assert len(over) == 3
        for batch in over:
            assert isinstance(batch.fault, DeviceLost) and isinstance(batch.error, OpError)
            assert not batch.results
        assert len({id(batch.error) for batch in over}) == 3
    await ended(replica)


async def test_results_that_were_known_to_be_over_before_are_kept() -> None:
    device = Device()
    async with running(lambda: doubler(device)) as replica:
        (good,) = await run(replica, rows(1))
        device.lose()
        (bad,) = await run(replica, rows(2))
        assert numbers(good) == [2]
        assert isinstance(bad.fault, DeviceLost)


async def test_a_lost_device_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    async with running(lambda: doubler(device)) as replica:
        device.lose()
        (first,) = await run(replica, rows(1))
        asked: list[str] = []
        monkeypatch.setattr(device, "put", lambda *_: asked.append("put"))
        monkeypatch.setattr(device, "wait_until", lambda *_: asked.append("wait"))
        (second,) = await run(replica, rows(2))
        assert second.fault is first.fault and isinstance(second.fault, DeviceLost)
        assert not asked


async def test_what_was_in_flight_when_the_device_was_lost_is_not_trusted_even_if_its_mark_passes() -> None:
    device = Device(byte_s=1.0)
    raised, went_on = threading.Event(), threading.Event()

    class Losing(Piped):
        def arrays(self, sample: Any) -> Any:
            if sample[0] == 13:
                raised.set()
                raise DeviceLost("seen by the submitting thread")
            return super().arrays(sample)

    def clock() -> float:
        if raised.is_set():
            went_on.set()  # the submitting thread asks when it takes the next batch
        return device.time.now

    op = Losing(Request(), load=lambda: doubler(device), batch_size=4)
    async with running(op, clock=clock) as replica:
        device.time.stop()
        device.time.asleep.clear()
        feeder = Feeder(replica, depth=4)
        feeder.put(rows(1), rows(2))
        await asyncio.to_thread(device.time.asleep.wait)  # the completing thread, for the first
        feeder.put(rows(13), rows(4))
        await asyncio.to_thread(went_on.wait)
        device.time.go()
        first, *others = await feeder.wait()
        assert numbers(first) == [2]
        assert [str(batch.fault) for batch in others] == ["seen by the submitting thread"] * 3


async def test_an_error_after_which_the_device_still_works_fails_one_batch() -> None:
    device = Device()
    async with running(lambda: doubler(device)) as replica:
        failures = iter([RuntimeError("a copy failed")])

        def fail() -> None:
            for error in failures:
                raise error

        device.on_synchronize = fail
        bad, good = await run(replica, rows(1), rows(2))
        assert str(bad.error) == "op 'piped' process: RuntimeError: a copy failed" and bad.fault is None
        assert numbers(good) == [4]


async def test_what_a_model_failed_for_is_not_left_in_the_padding_of_later_batches() -> None:
    device = Device()
    errors: list[RuntimeError] = []

    def compute(x: Any) -> Any:
        if 13 in x[:, 0]:
            errors.append(RuntimeError("thirteen"))
        return 2 * x

    def fail() -> None:
        if errors:
            raise errors.pop()

    device.on_synchronize = fail
    async with running(lambda: doubler(device, compute)) as replica:
        (bad,) = await run(replica, rows(1, 2, 3, 4, 5, 13))
        assert str(bad.error) == "op 'piped' process: RuntimeError: thirteen" and bad.fault is None
        for _ in range(3):  # one in each slot
            (good,) = await run(replica, rows(1, 2, 3, 4, 5))
            assert numbers(good) == [2, 4, 6, 8, 10]


async def test_a_model_that_refuses_a_batch_when_it_is_put_finds_none_of_it_in_later_ones() -> None:
    device = Device()
    seen: list[Any] = []

    def compute(x: Any) -> Any:
        seen.append(x[:, 0].tolist())
        return 2 * x

    session = uncaptured(device, compute=compute)
    async with running(lambda: session) as replica:
        session.most = 5
        (bad,) = await run(replica, rows(1, 2, 3, 4, 5, 13))
        assert isinstance(bad.fault, OutOfMemory)
        session.most = None
        seen.clear()
        await run(replica, *[rows(1, 2, 3, 4, 5)] * 3)
        assert seen == [[1, 2, 3, 4, 5, 0]] * 3


async def test_an_error_after_which_the_device_does_not_work_is_a_lost_device() -> None:
    device = Device()
    async with running(lambda: doubler(device)) as replica:
        assert replica.ring is not None

        def fail() -> None:
            raise RuntimeError("something broke")

        device.on_synchronize = fail
        replica.ring._downloads.synchronize = fail  # type: ignore[method-assign]
        (batch,) = await run(replica, rows(1))
        assert isinstance(batch.fault, DeviceLost) and "something broke" in str(batch.fault)


# -- in an Engine


async def test_an_engine_halves_batches_until_the_device_has_room_for_them() -> None:
    session = uncaptured(Device())
    op = Piped(Request(), load=lambda: session, batch_size=8)
    async with Engine(Graph("test", op)) as engine:
        session.most = 3
        answers = await asyncio.gather(*(engine.submit(row(n)) for n in range(60)))
        assert [answer[0] for answer in answers] == [2 * n for n in range(60)]
        (replica,) = engine.runners[0].replicas
        assert isinstance(replica, PipelinedReplica) and not replica.statistics().plain


async def test_a_lost_device_ends_the_engine_and_fails_every_request_once() -> None:
    device = Device()
    engine = Engine(Graph("test", Piped(Request(), load=lambda: doubler(device), batch_size=4)))
    await engine.start()
    assert (await engine.submit(row(1)))[0] == 2
    device.lose()
    outcomes = await asyncio.gather(*(engine.submit(row(n)) for n in range(40)), return_exceptions=True)
    assert all(isinstance(outcome, OpError) and "cuda:0 is lost" in str(outcome) for outcome in outcomes)
    with pytest.raises(ExceptionGroup) as ended_by:
        await engine.wait_closed()
    assert "cuda:0 is lost" in str(ended_by.value.exceptions[0])


# -- start


async def refused(load: Any, message: str) -> None:
    replica = PipelinedReplica(node_of(Piped(Request(), load=load)), 0, "cuda:0", Device().time)
    with pytest.raises(LoadError, match=message):
        await replica.start()
    replica.close()
    await replica.wait_closed()
    await ended(replica)


async def test_a_model_that_does_not_load_is_a_load_error() -> None:
    def load() -> Any:
        raise SystemExit("no weights")

    await refused(load, "^op 'piped' load_model: SystemExit: no weights$")


async def test_a_device_that_is_lost_while_it_warms_up_is_a_load_error() -> None:
    device = Device()

    class Losing(FakeDeviceSession):
        def enqueue(self, inputs: Any, outputs: Any) -> None:
            device.lose()
            super().enqueue(inputs, outputs)

    await refused(
        lambda: Losing(device, inputs=(X,), outputs=(Y,)), "^op 'piped' load_model: DeviceLost: cuda:0 is lost$"
    )


async def test_a_replica_that_never_started_closes() -> None:
    replica = PipelinedReplica(node_of(Piped(Request(), load=lambda: None)), 0, "cuda:0", Device().time)
    replica.close()
    await replica.wait_closed()


# -- end


async def test_close_hands_back_what_is_in_flight_and_leaves_nothing() -> None:
    device = Device(byte_s=1.0)
    async with running(lambda: doubler(device), clock=device.time) as replica:
        device.time.stop()
        feeder = Feeder(replica)
        feeder.put(rows(1), rows(2))
        await device.wait_submitted(2)
        replica.close()
        device.time.go()
        assert [numbers(batch) for batch in await feeder.wait()] == [[2], [4]]
        await replica.wait_closed()
        assert device.used_bytes == 0
        assert not device.entered
        await ended(replica)


async def test_the_model_is_closed_by_the_thread_that_loaded_it_while_that_may_use_the_device() -> None:
    device = Device()
    threads: dict[str, int] = {}

    class Closing(FakeDeviceSession):
        def close(self) -> None:
            threads["closed"] = threading.get_ident()
            assert threads["closed"] in device.entered
            super().close()

    def load() -> Any:
        threads["loaded"] = threading.get_ident()
        return Closing(device, inputs=(X,), outputs=(Y,))

    async with running(load):
        pass
    assert threads["closed"] == threads["loaded"] != threading.get_ident()


async def test_a_model_without_streams_is_closed_too() -> None:
    closed: list[int] = []

    class Plain(FakeSession):
        def close(self) -> None:
            closed.append(threading.get_ident())

    async with running(lambda: Plain(lambda x: 2 * x, inputs=(X,), outputs=(Y,))):
        pass
    assert len(closed) == 1 and closed[0] != threading.get_ident()


async def test_a_completing_thread_that_may_not_use_the_device_fails_what_comes_instead_of_losing_it() -> None:
    class Taken(Device):
        def enter(self) -> None:
            if threading.current_thread().name.endswith("complete"):
                raise RuntimeError("taken")
            super().enter()

    async with running(lambda: doubler(Taken())) as replica:
        first, second = await run(replica, rows(1), rows(2))
        for batch in (first, second):
            assert isinstance(batch.fault, DeviceLost) and "taken" in str(batch.fault)
    await ended(replica)


@pytest.mark.parametrize("error", [RuntimeError("stuck"), SystemExit("stuck")])
async def test_a_model_that_does_not_close_is_logged(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    class Stuck(FakeDeviceSession):
        def close(self) -> None:
            raise error

    async with running(lambda: Stuck(Device(), inputs=(X,), outputs=(Y,))) as replica:
        pass
    await ended(replica)
    assert "op 'piped': its model on cuda:0 does not close" in caplog.text


@asynccontextmanager
async def hanging(device: Device, batches: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PipelinedReplica]:
    """A replica whose device does not go on; it does at the end."""
    monkeypatch.setattr(thread, "JOIN_S", 0.01)
    replica = PipelinedReplica(
        node_of(Piped(Request(), load=lambda: doubler(device, base_s=1.0), batch_size=4)), 0, "cuda:0", device.time
    )
    await replica.start()
    device.time.stop()
    Feeder(replica, depth=batches).put(*[rows(1)] * batches)
    await device.wait_submitted(min(batches, 3))
    yield replica
    device.time.go()
    await ended(replica)


@pytest.mark.parametrize("batches", [1, 2, 5])
async def test_the_end_of_a_replica_that_hangs_is_bounded(
    batches: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with hanging(Device(), batches, monkeypatch) as replica:
        replica.close()
        async with asyncio.timeout(10):
            await replica.wait_closed()
        assert "replica 0 of op 'piped' is still in a hook; it is left behind" in caplog.text
        assert len(threads_of(replica)) == 2


def test_a_replica_whose_loop_is_closed_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    replica: list[PipelinedReplica] = []

    async def main() -> None:
        context = hanging(device, 2, monkeypatch)
        replica.append(await context.__aenter__())
        replica[0].close()
        await replica[0].wait_closed()

    asyncio.run(main())
    left = threads_of(replica[0])
    device.time.go()
    for each in left:
        each.join(10)
        assert not each.is_alive()
    assert device.used_bytes == 0
