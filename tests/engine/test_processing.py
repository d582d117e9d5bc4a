"""Batches at work: failures and who pays for them, requests that are batches, priorities, devices that fail."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asyncline import (
    BadRequest,
    DeadlineExceeded,
    Each,
    Graph,
    GraphError,
    Observer,
    Op,
    OpError,
    Pad,
    Request,
    Rows,
    Stack,
)
from asyncline.engine.engine import Engine
from asyncline.engine.lanes.accelerator import DeviceLost, OutOfMemory
from asyncline.engine.lanes.base import Batch
from asyncline.engine.lanes.call import find_fault
from asyncline.graph.plan import Node
from asyncline.settings import Source, merge
from asyncline.testing import SimulatedLanes, run_virtual, virtual_engine

from .ops import graph_of


class Inline(Op):
    cpu = "inline"


class Inverse(Inline):
    """Fails a batch that has a zero."""

    def process(self, batch: list[int]) -> list[float]:
        return [1 / n for n in batch]


def run(
    graph: Graph, payloads: list[Any], seconds: Callable[[str, str, int], float] = lambda *_: 0.01, **sections: Any
) -> tuple[list[Any], SimulatedLanes, Engine]:
    """Submit all payloads at once, on a simulated device: their outcomes."""
    lanes = SimulatedLanes(seconds)

    async def main() -> tuple[list[Any], Engine]:
        settings = merge(graph.name, {o.name: o.code_settings for o in graph.ops}, Source("test", sections))
        async with virtual_engine(graph, lanes, settings) as engine:
            submits = [engine.submit(payload) for payload in payloads]
            return await asyncio.gather(*submits, return_exceptions=True), engine

    outcomes, engine = run_virtual(main())
    return outcomes, lanes, engine


# -- what comes in one turn of the loop -----------------------------------------------------------------


class Plain(Inline):
    def process(self, batch: list[int]) -> list[int]:
        return batch


def test_requests_of_one_turn_share_a_batch_though_a_replica_is_idle() -> None:
    _, lanes, _ = run(graph_of(Plain, batch_size=8), [1, 2, 3])
    assert lanes.batches["plain"] == [3]


def test_clients_that_ask_again_when_their_batch_ends_share_the_next() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda *_: 0.01)
        async with virtual_engine(graph_of(Plain, batch_size=8), lanes) as engine:

            async def client(number: int) -> None:
                for _ in range(3):
                    await engine.submit(number)

            await asyncio.gather(*map(client, range(5)))
        assert lanes.batches["plain"] == [5, 5, 5]

    run_virtual(main())


def test_a_lone_request_waits_for_the_next_turn_and_for_no_timer() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda *_: 0.01)
        async with virtual_engine(graph_of(Plain, batch_size=8), lanes) as engine:
            item = engine.begin(1)
            assert not lanes.batches
            await asyncio.sleep(0)
            assert lanes.batches["plain"] == [1]
            await item.wait()
            assert item.times[0] == 0.0

    run_virtual(main())


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_batch_that_is_full_does_not_wait_for_the_next_turn(batch_size: int) -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda *_: 0.01)
        async with virtual_engine(graph_of(Plain, batch_size=batch_size), lanes) as engine:
            for number in range(batch_size):
                assert not lanes.batches
                engine.begin(number)
            assert lanes.batches["plain"] == [batch_size]
            await engine.drain(1)

    run_virtual(main())


def test_one_who_leaves_within_the_turn_is_not_run() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda *_: 0.01)
        async with virtual_engine(graph_of(Plain, batch_size=8), lanes) as engine:
            first, second = engine.begin(1), engine.begin(2)
            first.cancel()
            await second.wait()
            assert lanes.batches["plain"] == [1]

    run_virtual(main())


def test_a_batch_whose_samples_have_all_died_is_none_to_observers() -> None:
    class Seen(Observer):
        def batch_done(self, node: Node, batch: Batch) -> None:
            rows.append(batch.rows)

    async def main() -> None:
        async with virtual_engine(graph_of(Plain), SimulatedLanes(lambda *_: 0.01)) as engine:
            engine.hooks.add(Seen())
            for number in range(4):
                item = engine.begin(number)
                await asyncio.sleep(0)
                if number % 2:
                    item.cancel()
                await asyncio.sleep(1)

    rows: list[int] = []
    run_virtual(main())
    assert rows == [1, 1]


def test_a_runner_that_is_closed_within_the_turn_feeds_nothing_any_more() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda *_: 0.01)
        async with virtual_engine(graph_of(Plain, batch_size=8), lanes) as engine:
            item = engine.begin(1)
            engine.runners[0].close()
            await asyncio.sleep(0)
            assert not lanes.batches
            item.cancel()

    run_virtual(main())


def test_idle_replicas_share_what_comes_in_one_turn() -> None:
    _, lanes, _ = run(graph_of(Plain, batch_size=8, concurrency=2), [1, 2, 3, 4, 5])
    assert lanes.batches["plain"] == [3, 2]


# -- failures -------------------------------------------------------------------------------------------


def test_one_bad_sample_of_32_fails_alone() -> None:
    payloads = [*range(1, 20), 0, *range(20, 32)]
    outcomes, lanes, _ = run(graph_of(Inverse, batch_size=32), payloads)
    bad = payloads.index(0)
    assert isinstance(outcomes[bad], OpError) and "op 'inverse' process: ZeroDivisionError" in str(outcomes[bad])
    assert outcomes[:bad] + outcomes[bad + 1 :] == [1 / n for n in payloads if n]
    assert lanes.batches["inverse"][0] == 32
    assert len(lanes.batches["inverse"]) - 1 <= 10


def test_a_batch_is_retried_whole_before_it_is_split() -> None:
    outcomes, lanes, _ = run(graph_of(Inverse, batch_size=4, retry=1), [0, 2])
    assert [type(outcome) for outcome in outcomes] == [OpError, float]
    assert lanes.batches["inverse"] == [2, 2, 1, 1]


def test_the_client_s_error_is_not_retried() -> None:
    class Refusing(Inline):
        def process(self, batch: list[int]) -> list[int]:
            raise BadRequest("no")

    outcomes, lanes, _ = run(graph_of(Refusing, batch_size=4, retry=3), [1])
    assert isinstance(outcomes[0], BadRequest) and lanes.batches["refusing"] == [1]


@pytest.mark.parametrize("returned", [[1], [1, 2, 3], None, 7, (n for n in [1]), {"a": 1, "b": 2}, {1, 2}, "ab", b"ab"])
def test_a_wrong_number_of_results_fails_all_and_gives_nobody_another_s(returned: Any) -> None:
    class Wrong(Inline):
        def process(self, batch: list[int]) -> Any:
            return returned

    outcomes, lanes, _ = run(graph_of(Wrong, batch_size=4), [1, 2])
    assert all(isinstance(outcome, OpError) for outcome in outcomes)
    assert "op 'wrong' process: expected 2 results" in str(outcomes[1])
    assert lanes.batches["wrong"] == [2]  # not tried again


def test_a_lack_of_memory_makes_batches_smaller() -> None:
    class Small(Inline):
        def process(self, batch: list[int]) -> list[int]:
            if len(batch) > 5:
                raise MemoryError
            return batch

    outcomes, lanes, engine = run(graph_of(Small, batch_size=16), list(range(32)))
    assert outcomes == list(range(32))
    sizes = lanes.batches["small"]
    assert sizes[:2] == [16, 8] and max(sizes[2:]) <= 5
    processing = engine.runners[0].processing
    assert processing is not None and processing.batcher.statistics().limited == 1


def test_a_lone_sample_that_does_not_fit_fails() -> None:
    class Tiny(Inline):
        def process(self, batch: list[int]) -> list[int]:
            raise MemoryError("no room")

    outcomes, _, _ = run(graph_of(Tiny, batch_size=4), [1])
    assert isinstance(outcomes[0], OpError) and "MemoryError: no room" in str(outcomes[0])


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (MemoryError(), OutOfMemory),
        (OutOfMemoryError("CUDA out of memory"), OutOfMemory),
        (OutOfMemory("full"), OutOfMemory),
        (DeviceLost("gone"), DeviceLost),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), DeviceLost),
        (RuntimeError("CUDA error: device-side assert triggered"), DeviceLost),
        (RuntimeError("CUDA error: invalid argument"), type(None)),
        (RuntimeError("an illegal memory access, says somebody else"), type(None)),
        (ValueError("no"), type(None)),
    ],
)
def test_faults_of_a_device_are_told_from_those_of_a_hook(raised: BaseException, kind: type) -> None:
    assert isinstance(find_fault(raised), kind)
    wrapped = OpError("wrapped")
    wrapped.__cause__ = raised
    assert isinstance(find_fault(wrapped), kind)


def test_a_device_that_is_lost_ends_the_engine_after_failing_what_was_in_flight() -> None:
    class Lost(Inline):
        def process(self, batch: list[int]) -> list[int]:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    async def main() -> None:
        engine = virtual_engine(graph_of(Lost, batch_size=1), SimulatedLanes(lambda *_: 1.0))
        await engine.start()
        outcomes = await asyncio.gather(*(engine.submit(n) for n in range(3)), return_exceptions=True)
        assert all(isinstance(outcome, OpError) for outcome in outcomes)
        assert engine.problem() is not None
        with pytest.raises(ExceptionGroup) as ended:
            await engine.wait_closed()
        assert ended.value.subgroup(DeviceLost) is not None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asyncline.engine.engine.log.critical", lambda *_: None)
        run_virtual(main())


def test_a_replica_that_hangs_is_reported_gets_nothing_more_and_comes_back() -> None:
    hangs = {"first": 100.0}

    def seconds(op: str, hook: str, size: int) -> float:
        return hangs.pop("first", 0.01) if hook == "process" else 0.0

    async def main() -> None:
        graph = graph_of(Inverse, batch_size=1, concurrency=2)
        async with virtual_engine(graph, SimulatedLanes(seconds)) as engine:
            with pytest.raises(DeadlineExceeded):
                await engine.submit(1, timeout=5)
            assert engine.problem() is None
            await asyncio.sleep(2)
            assert "op 'inverse': replica" in str(engine.problem()) and "hangs in process" in str(engine.problem())
            assert await asyncio.gather(*(engine.submit(n) for n in (2, 4))) == [0.5, 0.25]
            await asyncio.sleep(100)
            assert engine.problem() is None
            assert await asyncio.gather(*(engine.submit(n) for n in (2, 4))) == [0.5, 0.25]

    run_virtual(main())


async def test_a_real_thread_that_hangs_is_given_nothing_until_it_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncline.engine.processing.GRACE_S", 0.01)
    out = threading.Event()
    ran: list[int] = []

    class Hanging(Inline):
        def process(self, batch: list[int]) -> list[int]:
            if batch == [0]:
                out.wait(20)
            ran.extend(batch)
            return batch

    hung = asyncio.Event()

    class Watching(Observer):
        def replica_hung(self, node: Node, replica: int) -> None:
            hung.set()

    async with Engine(graph_of(Hanging), observers=[Watching()]) as engine:
        assert await engine.submit(1) == 1
        with pytest.raises(DeadlineExceeded):
            await engine.submit(0, timeout=0.05)
        await hung.wait()
        assert "hangs in process" in str(engine.problem())
        with pytest.raises(DeadlineExceeded):
            await engine.submit(2, timeout=0.05)  # there is no other replica
        out.set()
        assert await engine.submit(3, timeout=20) == 3
        assert engine.problem() is None
    assert ran == [1, 0, 3]


# -- requests that are batches --------------------------------------------------------------------------


class Half(Inline):
    collate = Stack()

    def preprocess(self, x: Any) -> Any:
        return Rows(x) if np.ndim(x) == 2 else x

    def process(self, batch: np.ndarray) -> np.ndarray:
        assert isinstance(batch, np.ndarray) and batch.ndim == 2
        return batch / 2


def test_a_request_that_is_a_batch_is_cut_and_gathered_and_shares_with_lone_samples() -> None:
    lone = np.full(3, 8.0)
    whole = np.arange(33.0).reshape(11, 3)
    outcomes, lanes, _ = run(graph_of(Half, batch_size=4), [lone, whole, lone, lone])
    assert np.array_equal(outcomes[1], whole / 2)
    assert all(np.array_equal(outcome, lone / 2) for outcome in (outcomes[0], *outcomes[2:]))
    assert sum(lanes.batches["half"]) == 3 + 3  # three lone ones, and pieces of 4, 4 and 3 rows
    assert lanes.batches["half"] == [1, 1, 1, 2, 1]


def test_rows_of_none_skip_process() -> None:
    outcomes, lanes, _ = run(graph_of(Half, batch_size=4), [np.zeros((0, 3))])
    assert outcomes == [[]] and not lanes.batches


def test_rows_need_a_collate() -> None:
    class Bare(Inline):
        def preprocess(self, x: Any) -> Any:
            return Rows(x)

        def process(self, batch: list[Any]) -> list[Any]:
            return batch

    outcomes, _, _ = run(graph_of(Bare), [[1, 2]])
    assert "Rows without `collate`" in str(outcomes[0])


def test_samples_of_other_shapes_do_not_share_a_batch() -> None:
    outcomes, lanes, _ = run(graph_of(Half, batch_size=8), [np.zeros(1), np.zeros(2), np.zeros(3), np.zeros(2)])
    assert [len(outcome) for outcome in outcomes] == [1, 2, 3, 2]
    assert lanes.batches["half"] == [1, 2, 1]


def test_a_sample_that_cannot_be_laid_together_is_refused_by_name() -> None:
    outcomes, _, _ = run(graph_of(Half), ["text"])
    assert "op 'half' bucket: ValueError: expected a sample that is an array, got str" in str(outcomes[0])


def test_padding_hands_on_the_lengths() -> None:
    class Mean(Inline):
        collate = Pad(to=8)

        def process(self, tokens: np.ndarray, lengths: np.ndarray) -> list[float]:
            assert tokens.shape[1] % 8 == 0
            return list(tokens.sum(axis=1) / lengths)

    outcomes, lanes, _ = run(graph_of(Mean, batch_size=8), [np.full(n, float(n)) for n in (3, 5, 8, 9)])
    assert outcomes == [3.0, 5.0, 8.0, 9.0]
    assert lanes.batches["mean"] == [3, 1]


def test_each_and_collate_go_together_with_an_own_bucket() -> None:
    class Parity(Inline):
        collate = Stack()

        def preprocess(self, values: list[int]) -> Each:
            return Each(np.array([value]) for value in values)

        def bucket(self, sample: np.ndarray) -> int:
            return int(sample[0]) % 2

        def process(self, batch: np.ndarray) -> np.ndarray:
            assert len(set(batch[:, 0] % 2)) == 1
            return batch[:, 0]

    outcomes, lanes, _ = run(graph_of(Parity, batch_size=8), [[1, 2, 3, 4, 5]])
    assert outcomes == [[1, 2, 3, 4, 5]] and sorted(lanes.batches["parity"]) == [2, 3]


# -- what else a batch is bounded by --------------------------------------------------------------------


def test_costs_bound_a_batch() -> None:
    class Pixels(Inline):
        def cost(self, sample: int) -> float:
            return sample

        def process(self, batch: list[int]) -> list[int]:
            assert len(batch) == 1 or sum(batch) <= 10
            return batch

    outcomes, lanes, _ = run(graph_of(Pixels, batch_size=100, max_batch_cost=10), [1, 4, 5, 30, 2, 2])
    assert outcomes == [1, 4, 5, 30, 2, 2]
    assert lanes.batches["pixels"] == [3, 1, 2]


def test_a_cost_that_makes_no_sense_names_its_hook() -> None:
    class Free(Inline):
        def cost(self, sample: int) -> float:
            return -1.0

        def process(self, batch: list[int]) -> list[int]:
            return batch

    outcomes, _, _ = run(graph_of(Free, max_batch_cost=10), [1])
    assert "op 'free' cost: ValueError: a sample with a cost of -1.0" in str(outcomes[0])


def test_a_cost_limit_wants_a_cost() -> None:
    with pytest.raises(GraphError, match="max_batch_cost without `cost`: write cost"):
        run(graph_of(Inverse, max_batch_cost=10), [1])


def test_requests_of_a_higher_priority_go_first() -> None:
    async def main() -> list[int]:
        graph = graph_of(Inverse, batch_size=1)
        settings = merge("test", {"inverse": {}}, Source("test", {"service": {"priorities": 2}}))
        order: list[int] = []
        async with virtual_engine(graph, SimulatedLanes(lambda *_: 0.01), settings) as engine:
            for n in range(1, 6):
                engine.begin(n, priority=1 if n > 3 else 2, on_done=lambda item: order.append(item.data_id))
            await engine.drain(1)
        return order

    assert run_virtual(main()) == [1, 4, 5, 2, 3]


def test_what_cannot_be_done_in_time_is_refused_before_it_runs() -> None:
    async def main() -> int:
        lanes = SimulatedLanes(lambda *_: 1.0)
        async with virtual_engine(graph_of(Inverse, batch_size=1), lanes) as engine:
            for _ in range(10):
                await engine.submit(1)  # so that it is known how long it takes
            before = len(lanes.batches["inverse"])
            with pytest.raises(DeadlineExceeded, match="op 'inverse': would not be done before the deadline"):
                await engine.submit(1, timeout=0.5)
            return len(lanes.batches["inverse"]) - before

    assert run_virtual(main()) == 0


@pytest.mark.parametrize(("policy", "fails"), [("pass", False), ("refuse", True)])
def test_a_result_that_is_no_number_is_refused_where_the_op_says_so(policy: str, fails: bool) -> None:
    class Root(Inline):
        collate = Stack()

        def process(self, batch: np.ndarray) -> np.ndarray:
            return np.where(batch < 0, np.nan, np.abs(batch) ** 0.5)

    outcomes, _, _ = run(graph_of(Root, batch_size=4, nan=policy), [np.array([4.0]), np.array([-1.0]), np.array([9.0])])
    assert outcomes[0][0] == 2 and outcomes[2][0] == 3
    if fails:
        assert "op 'root' process: the result is not a number" in str(outcomes[1])
    else:
        assert math.isnan(outcomes[1][0])


def test_process_has_to_take_what_collate_makes() -> None:
    class Few(Op):
        collate = Pad(to=8)

        def process(self, batch: Any) -> Any: ...

    with pytest.raises(GraphError, match="what Pad makes of a batch"):
        Few(Request())


def test_collate_has_to_be_one() -> None:
    class Odd(Op):
        collate = "stack"  # type: ignore[assignment]

        def process(self, batch: Any) -> Any: ...

    with pytest.raises(GraphError, match=r"collate is 'stack'; expected Stack\(\) or Pad"):
        Odd(Request())
