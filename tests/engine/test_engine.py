"""What becomes of requests: answers, joins, failures, deadlines, cancels, the door, the drain."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncline import (
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    Each,
    Graph,
    LoadError,
    Op,
    OpError,
    Overloaded,
    ProductError,
    Reply,
    Request,
    Response,
    Skip,
    Text,
    Unavailable,
    WorkerCrashed,
    context,
    op,
)
from asyncline.engine.engine import Engine
from asyncline.engine.item import STARTED_AT, TOTAL
from asyncline.settings import Settings, Source, merge
from asyncline.testing import SimulatedLane, SimulatedLanes, run_virtual, virtual_engine

from .ops import Forever, Slow, Split, Square, add, double, graph_of


def settings_for(graph: Graph, **service: Any) -> Settings:
    return merge(graph.name, {o.name: o.code_settings for o in graph.ops}, Source("test", {"service": service}))


def assert_nothing_left(engine: Engine) -> None:
    """No Item, no token, no deadline, no waiting sample, no job remains."""
    assert engine.admission.in_flight == 0
    assert engine.admission.nbytes == 0
    assert len(engine.expiry) == 0
    for runner in engine.runners:
        assert runner.processing is None or runner.processing.batcher.count == 0
        assert runner._preparing == 0
        assert runner.processing is None or not runner.processing.batcher.replicas.running


def submit(graph: Graph, payload: Any, **kwargs: Any) -> Any:
    async def main() -> Any:
        async with virtual_engine(graph) as engine:
            try:
                return await engine.submit(payload, **kwargs)
            finally:
                await asyncio.sleep(100)
                assert_nothing_left(engine)

    return run_virtual(main())


# -- graphs ---------------------------------------------------------------------------------------------


def test_a_value_goes_through_a_chain() -> None:
    request = Request()
    assert submit(Graph("test", double(double(request), name="again")), 3) == 12


def test_a_join_waits_for_all_its_inputs_whichever_comes_first() -> None:
    request = Request()
    slow, fast = Slow(request, name="slow"), double(request)
    assert submit(Graph("test", add(slow, fast)), 5) == 15
    request = Request()
    slow, fast = Slow(request, name="slow"), double(request)
    assert submit(Graph("test", add(fast, slow)), 5) == 15


def test_an_edge_may_skip_levels_and_an_input_may_come_twice() -> None:
    request = Request()
    first = double(request)
    second = double(first, name="second")
    assert submit(Graph("test", add(add(first, second, name="inner"), add(first, first, name="twice"))), 1) == 10


def test_several_outputs_make_an_object() -> None:
    request = Request()
    first = double(request)
    assert submit(Graph("test", first=first, second=double(first, name="second")), 1) == {"first": 2, "second": 4}


def test_a_response_packs_the_outputs() -> None:
    class Packed(Response):
        def pack(self, outputs: dict[str | None, Any]) -> Any:
            return {"answer": outputs[None]}

    assert submit(Graph("test", Packed(double(Request()))), 4) == {"answer": 8}


def test_a_request_may_unpack_itself() -> None:
    class Doubled(Request):
        def unpack(self, payload: Any) -> Any:
            return 2 * payload

    assert submit(Graph("test", double(Doubled())), 1) == 4


def test_several_inputs_without_preprocess_make_a_tuple() -> None:
    class Sum(Op):
        cpu = "inline"

        def process(self, batch: list[tuple[int, int]]) -> list[int]:
            return [a + b for a, b in batch]

    request = Request()
    assert submit(Graph("test", Sum(double(request), request)), 3) == 9


# -- what hooks return ----------------------------------------------------------------------------------


def test_each_is_gathered_in_order_and_an_empty_one_skips_process() -> None:
    assert submit(graph_of(Split, batch_size=2), [3, 1, 2]) == [9, 1, 4]
    assert submit(graph_of(Split, batch_size=2), []) == []


def test_each_of_many_requests_shares_batches() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 1.0)
        async with virtual_engine(graph_of(Split, batch_size=4), lanes) as engine:
            got = await asyncio.gather(*(engine.submit([n, n + 1, n + 2]) for n in range(4)))
            assert got == [[n * n, (n + 1) ** 2, (n + 2) ** 2] for n in range(4)]
            assert lanes.batches["split"] == [4, 4, 4]

    run_virtual(main())


def test_skip_goes_past_process_to_postprocess() -> None:
    class Skipping(Op):
        cpu = "inline"

        def preprocess(self, x: int) -> Any:
            return Skip("skipped") if x < 0 else x

        def process(self, batch: list[int]) -> list[str]:
            return ["run"] * len(batch)

        def postprocess(self, result: str, x: int) -> str:
            return f"{result} {x}"

    assert submit(graph_of(Skipping), -1) == "skipped -1"
    assert submit(graph_of(Skipping), 1) == "run 1"


@pytest.mark.parametrize("hook", ["preprocess", "process", "postprocess"])
def test_reply_ends_the_request_early_from_any_hook(hook: str) -> None:
    class Replying(Op):
        cpu = "inline"

        def preprocess(self, x: int) -> Any:
            return Reply("early") if hook == "preprocess" else x

        def process(self, batch: list[int]) -> list[Any]:
            return [Reply("early") if hook == "process" else x for x in batch]

        def postprocess(self, result: int, x: int) -> Any:
            return Reply("early") if hook == "postprocess" else result

    request = Request()
    assert submit(Graph("test", double(Replying(request))), 1) == "early"


def test_a_reply_leaves_the_siblings_cancelled() -> None:
    async def main() -> None:
        @op(cpu="inline")
        def reply(x: int) -> Reply:
            return Reply("early")

        request = Request()
        waiting = Forever(request)
        async with virtual_engine(Graph("test", add(waiting, reply(request)))) as engine:
            assert await engine.submit(1) == "early"
            await asyncio.sleep(0)
            await asyncio.sleep(1)
            assert waiting.cancelled == len(waiting.entered)
            assert_nothing_left(engine)

    run_virtual(main())


# -- failures -------------------------------------------------------------------------------------------


class Raising(Op):
    cpu = "inline"
    raises: Any = ValueError("too bad")
    where = ""

    def preprocess(self, x: Any) -> Any:
        self.maybe("preprocess")
        return x

    def process(self, batch: list[Any]) -> list[Any]:
        self.maybe("process")
        return batch

    def postprocess(self, result: Any, x: Any) -> Any:
        self.maybe("postprocess")
        return result

    def maybe(self, hook: str) -> None:
        if self.where == hook:
            raise self.raises


@pytest.mark.parametrize("cpu", ["inline", "thread"])
@pytest.mark.parametrize("hook", ["preprocess", "process", "postprocess"])
def test_a_raising_hook_fails_its_request_and_is_named(hook: str, cpu: str) -> None:
    kind = type("Raising", (Raising,), {"where": hook, "cpu": cpu})
    with pytest.raises(OpError, match=f"op 'raising' {hook}: ValueError: too bad"):
        submit(graph_of(kind), 1)


@pytest.mark.parametrize("hook", ["preprocess", "process", "postprocess"])
def test_a_product_error_keeps_the_business_code(hook: str) -> None:
    kind = type("Raising", (Raising,), {"where": hook, "raises": ProductError(1001, "no such customer")})
    with pytest.raises(ProductError, match=r"^no such customer$") as caught:
        submit(graph_of(kind), 1)
    assert caught.value.code == 1001


def test_a_clients_fault_found_by_a_hook_stays_the_clients() -> None:
    kind = type("Raising", (Raising,), {"where": "preprocess", "raises": BadRequest("expected 3 channels, got 4")})
    with pytest.raises(BadRequest, match="op 'raising' preprocess: expected 3 channels, got 4"):
        submit(graph_of(kind), 1)


def test_an_exception_among_the_results_fails_that_sample_alone() -> None:
    async def main() -> None:
        async with virtual_engine(graph_of(Square, batch_size=8)) as engine:
            got = await asyncio.gather(*(engine.submit(n) for n in (1, -2, 3)), return_exceptions=True)
            assert got[0] == 1 and got[2] == 9
            assert isinstance(got[1], OpError) and "-2 is negative" in str(got[1])
            assert_nothing_left(engine)

    run_virtual(main())


@pytest.mark.parametrize("results", [[], [1, 2, 3], None, 7])
def test_a_wrong_number_of_results_fails_the_batch_and_gives_nobody_anothers(results: Any) -> None:
    class Wrong(Op):
        cpu = "inline"

        def process(self, batch: list[Any]) -> Any:
            return results

    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 1.0)
        async with virtual_engine(graph_of(Wrong, batch_size=2), lanes) as engine:
            got = await asyncio.gather(*(engine.submit(n) for n in range(3)), return_exceptions=True)
            assert all(isinstance(error, OpError) and "op 'wrong' process: expected" in str(error) for error in got)
            assert_nothing_left(engine)

    run_virtual(main())


def test_process_may_return_an_array_of_rows() -> None:
    import numpy as np

    class Rows(Op):
        cpu = "inline"

        def process(self, batch: list[int]) -> Any:
            return np.array([[n, n] for n in batch])

    assert submit(graph_of(Rows), 4).tolist() == [4, 4]


def test_a_failing_batch_is_retried_as_often_as_told() -> None:
    class Flaky(Op):
        cpu = "inline"
        fails = 0

        def process(self, batch: list[int]) -> list[int]:
            type(self).fails -= 1
            if type(self).fails >= 0:
                raise RuntimeError("not yet")
            return batch

    Flaky.fails = 2
    assert submit(graph_of(Flaky, retry=2), 7) == 7
    Flaky.fails = 3
    with pytest.raises(OpError, match="not yet"):
        submit(graph_of(Flaky, retry=2), 7)


def test_a_bucket_that_cannot_be_hashed_fails_its_request_only() -> None:
    class Unhashable(Op):
        cpu = "inline"

        def bucket(self, sample: Any) -> Any:
            return [sample]

        def process(self, batch: list[Any]) -> list[Any]:
            return batch

    with pytest.raises(OpError, match="op 'unhashable' bucket: TypeError"):
        submit(graph_of(Unhashable), 1)


def test_unpack_and_pack_of_a_user_are_named_when_they_raise() -> None:
    class BadUnpack(Request):
        def unpack(self, payload: Any) -> Any:
            raise KeyError("x")

    class BadPack(Response):
        def pack(self, outputs: dict[str | None, Any]) -> Any:
            raise KeyError("x")

    with pytest.raises(OpError, match="op 'request' unpack: KeyError"):
        submit(Graph("test", double(BadUnpack())), 1)
    with pytest.raises(OpError, match="op 'response' pack: KeyError"):
        submit(Graph("test", BadPack(double(Request()))), 1)


def test_a_wrong_field_never_reaches_an_op() -> None:
    with pytest.raises(BadRequest, match="field 'text': expected a string"):
        submit(Graph("test", Slow(Request(text=Text()).text)), {"text": 5})


def test_an_async_hook_that_lets_a_cancel_escape_fails_its_request() -> None:
    class Escaping(Op):
        async def preprocess(self, x: int) -> int:
            raise asyncio.CancelledError

    with pytest.raises(OpError, match="op 'escaping' preprocess: was cancelled"):
        submit(graph_of(Escaping), 1)


def test_a_crashed_worker_costs_the_requests_it_had() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 1.0, width=1)
        async with virtual_engine(graph_of(Slow), lanes) as engine:
            calls = [asyncio.create_task(engine.submit(n)) for n in range(3)]
            await asyncio.sleep(0.5)
            lane = engine.works.lanes["process"]
            assert isinstance(lane, SimulatedLane)
            lane.crash()
            got = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(got[0], WorkerCrashed) and "op 'slow' preprocess" in str(got[0])
            assert got[1:] == [1, 2]
            assert_nothing_left(engine)

    run_virtual(main())


# -- deadlines ------------------------------------------------------------------------------------------


def test_a_deadline_passes_while_queued_and_the_hook_never_runs() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 1.0, width=1)
        async with virtual_engine(graph_of(Slow), lanes) as engine:
            first = asyncio.create_task(engine.submit("first", timeout=9))
            await asyncio.sleep(0)
            started = asyncio.get_running_loop().time()
            with pytest.raises(DeadlineExceeded, match="the deadline of 500 ms passed in op 'slow'"):
                await engine.submit("second", timeout=0.5)
            assert asyncio.get_running_loop().time() - started <= 0.511
            assert await first == "first"
            await asyncio.sleep(10)
            assert lanes.ran == [("slow", "preprocess", 1), ("slow", "postprocess", 1)]
            assert_nothing_left(engine)

    run_virtual(main())


def test_a_deadline_passes_while_a_batch_runs() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 1.0)
        async with virtual_engine(graph_of(Square), lanes) as engine:
            with pytest.raises(DeadlineExceeded):
                await engine.submit(2, timeout=0.5)
            assert await engine.submit(3) == 9
            assert_nothing_left(engine)

    run_virtual(main())


def test_a_sample_that_expired_is_not_in_the_next_batch() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 1.0)
        async with virtual_engine(graph_of(Square, batch_size=4), lanes) as engine:
            first = asyncio.create_task(engine.submit(1))
            await asyncio.sleep(0.1)
            dying = asyncio.create_task(engine.submit(2, timeout=0.5))
            living = asyncio.create_task(engine.submit(3))
            await asyncio.gather(first, dying, living, return_exceptions=True)
            assert lanes.batches["square"] == [1, 1]
            assert isinstance(dying.exception(), DeadlineExceeded) and living.result() == 9

    run_virtual(main())


def test_the_servers_deadline_holds_where_it_is_earlier() -> None:
    async def main() -> None:
        graph = graph_of(Slow)
        lanes = SimulatedLanes(lambda op, hook, size: 5.0)
        async with virtual_engine(graph, lanes, settings_for(graph, timeout_ms=1000)) as engine:
            with pytest.raises(DeadlineExceeded, match="1000 ms"):
                await engine.submit(1, timeout=60)

    run_virtual(main())


def test_an_op_has_a_deadline_of_its_own() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 1.0)
        async with virtual_engine(graph_of(Slow, timeout_ms=300), lanes) as engine:
            with pytest.raises(DeadlineExceeded, match="op 'slow': took longer than its timeout_ms of 300"):
                await engine.submit(1)
            await asyncio.sleep(5)
            assert_nothing_left(engine)

    run_virtual(main())


def test_a_hook_sees_the_ids_and_the_time_left() -> None:
    class Seeing(Op):
        async def preprocess(self, x: int) -> Any:
            here = context()
            return here.data_id, here.log_id

    async def main() -> None:
        async with virtual_engine(graph_of(Seeing)) as engine:
            assert await engine.submit(1, log_id="mine") == (1, "mine")
            assert await engine.submit(1) == (2, "")

    run_virtual(main())


def test_process_has_no_single_request() -> None:
    class Seeing(Op):
        cpu = "inline"

        def process(self, batch: list[int]) -> list[Any]:
            return [context() for _ in batch]

    with pytest.raises(OpError, match="LookupError: no request here"):
        submit(graph_of(Seeing), 1)


# -- cancels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5])
def test_a_cancel_at_any_moment_leaves_nothing_behind(after: float) -> None:
    """In the Channel, in preprocess, in the batcher, in process, in postprocess, in the next Op."""

    class Whole(Op):
        def preprocess(self, x: int) -> int:
            return x

        def process(self, batch: list[int]) -> list[int]:
            return batch

        def postprocess(self, result: int, x: int) -> int:
            return result

    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 1.0, width=1)
        graph = Graph("test", Slow(Whole(Request(), batch_size=2)))
        async with virtual_engine(graph, lanes) as engine:
            calls = [asyncio.create_task(engine.submit(n)) for n in range(3)]
            await asyncio.sleep(after)
            for call in calls[:2]:
                call.cancel()
            assert await calls[2] == 2
            assert (await asyncio.gather(*calls[:2], return_exceptions=True)).count(2) == 0
            await asyncio.sleep(20)
            assert_nothing_left(engine)

    run_virtual(main())


def test_a_cancel_reaches_the_async_hooks_of_the_item() -> None:
    async def main() -> None:
        request = Request()
        left, right = Forever(request, name="left"), Forever(request, name="right")
        async with virtual_engine(Graph("test", add(left, right))) as engine:
            call = asyncio.create_task(engine.submit(1))
            await asyncio.sleep(1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.sleep(1)
            assert (left.cancelled, right.cancelled) == (1, 1)
            assert_nothing_left(engine)

    run_virtual(main())


def test_a_failure_cancels_the_siblings() -> None:
    async def main() -> None:
        request = Request()
        waiting = Forever(request)
        failing = type("Raising", (Raising,), {"where": "process"})(request)
        async with virtual_engine(Graph("test", add(waiting, failing))) as engine:
            with pytest.raises(OpError, match="too bad"):
                await engine.submit(1)
            await asyncio.sleep(1)
            assert waiting.cancelled == 1
            assert_nothing_left(engine)

    run_virtual(main())


def test_the_first_outcome_stands() -> None:
    async def main() -> None:
        async with virtual_engine(graph_of(Forever)) as engine:
            item = engine.begin(1)
            item.cancel()
            item.resolve("late")
            item.expire()
            assert isinstance(item.error, Cancelled) and item.value is None
            await asyncio.sleep(0.1)
            assert_nothing_left(engine)

    run_virtual(main())


# -- the door -------------------------------------------------------------------------------------------


def test_the_surplus_is_refused_at_once_with_a_time_to_wait() -> None:
    async def main() -> None:
        graph = graph_of(Slow)
        lanes = SimulatedLanes(lambda op, hook, size: 1.0, width=4)
        async with virtual_engine(graph, lanes, settings_for(graph, max_in_flight=4)) as engine:
            calls = [asyncio.create_task(engine.submit(n)) for n in range(7)]
            await asyncio.sleep(0)
            refused = [call for call in calls if call.done()]
            assert len(refused) == 3
            for call in refused:
                error = call.exception()
                assert isinstance(error, Overloaded) and 1 <= error.retry_after_s <= 30
            assert sorted([await call for call in calls if call not in refused]) == [0, 1, 2, 3]
            assert await engine.submit(9) == 9
            assert_nothing_left(engine)

    run_virtual(main())


def test_bytes_have_a_budget_that_a_lone_request_may_exceed() -> None:
    async def main() -> None:
        graph = graph_of(Slow)
        async with virtual_engine(graph, settings=settings_for(graph, max_in_flight_mb=1)) as engine:
            door = engine.admission
            door.reserve(5_000_000)
            with pytest.raises(Overloaded):
                door.reserve(1)
            door.release(5_000_000)
            door.reserve(600_000)
            with pytest.raises(Overloaded):
                door.reserve(600_000)
            door.release(600_000)

    run_virtual(main())


def test_a_small_channel_lowers_what_the_door_lets_in() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 1.0, width=1)
        async with virtual_engine(graph_of(Slow, channel_size=3), lanes) as engine:
            got = await asyncio.gather(*(engine.submit(n) for n in range(5)), return_exceptions=True)
            assert [type(error) for error in got[3:]] == [Overloaded, Overloaded]

    run_virtual(main())


def test_dead_items_do_not_fill_a_channel() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 1000.0, width=1)
        graph = graph_of(Slow, channel_size=4)
        async with virtual_engine(graph, lanes, settings_for(graph, timeout_ms=100)) as engine:
            for _ in range(20):
                got = await asyncio.gather(*(engine.submit(n) for n in range(4)), return_exceptions=True)
                assert all(isinstance(error, DeadlineExceeded) for error in got)
            assert engine.statistics().channels["slow"].depth <= 4

    run_virtual(main())


def test_a_drain_finishes_what_is_in_flight_and_refuses_the_rest() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 1.0)
        engine = virtual_engine(graph_of(Slow), lanes)
        await engine.start()
        call = asyncio.create_task(engine.submit("mine"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(engine.close(drain_s=20))
        await asyncio.sleep(0)
        assert engine.problem() == "draining"
        with pytest.raises(Unavailable):
            await engine.submit("late")
        assert await call == "mine"
        assert await closing is True
        assert engine.problem() == "closed"

    run_virtual(main())


def test_a_drain_has_an_end() -> None:
    async def main() -> None:
        engine = virtual_engine(graph_of(Forever))
        await engine.start()
        call = asyncio.create_task(engine.submit(1, timeout=9))
        await asyncio.sleep(0)
        assert await engine.close(drain_s=3) is False
        with pytest.raises(Unavailable, match="the server is stopping"):
            await call
        assert_nothing_left(engine)

    run_virtual(main())


def test_a_request_before_the_start_is_refused() -> None:
    async def main() -> None:
        engine = virtual_engine(graph_of(Slow))
        with pytest.raises(Unavailable, match="the server is new"):
            await engine.submit(1)

    run_virtual(main())


@pytest.mark.parametrize("hook", ["init_op", "load_model"])
def test_an_op_that_cannot_start_is_named_and_nothing_is_left_running(hook: str) -> None:
    def fail(self: Op, *_: Any) -> None:
        raise FileNotFoundError("no /models/det.onnx")

    async def main() -> None:
        kind = type("Broken", (Square,), {hook: fail})
        engine = virtual_engine(graph_of(kind))
        with pytest.raises(LoadError, match=f"op 'broken' {hook}: FileNotFoundError: no /models/det.onnx"):
            await engine.start()
        assert engine.state == "closed"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main())


def test_wide_and_deep_graphs_need_no_recursion() -> None:
    request = Request()
    value: Any = request
    for n in range(3000):
        value = double(value, name=f"d{n}")
    graph = Graph("test", value)
    assert submit(graph, 0) == 0


def test_many_requests_with_random_faults_each_get_their_own_outcome() -> None:
    """Every nonce comes back to its caller, whatever happens to its neighbours."""
    import random

    async def main() -> None:
        rng = random.Random(7)
        lanes = SimulatedLanes(lambda op, hook, size: rng.uniform(0, 0.05), width=3)

        class Mixed(Op):
            def preprocess(self, x: int) -> Any:
                if x % 11 == 0:
                    raise ValueError("eleven")
                return Each([x] * (x % 4))

            def bucket(self, sample: int) -> int:
                return sample % 3

            def process(self, batch: list[int]) -> list[Any]:
                return [ValueError("thirteen") if x % 13 == 0 else x for x in batch]

            def postprocess(self, results: list[int], x: int) -> int:
                assert results == [x] * (x % 4)
                return x

        request = Request()
        first = Mixed(request, batch_size=4, concurrency=2)
        graph = Graph("test", add(first, Slow(request)))
        async with virtual_engine(graph, lanes, settings_for(graph, max_in_flight=100)) as engine:

            async def one(n: int) -> None:
                await asyncio.sleep(rng.uniform(0, 10))
                timeout = rng.choice([0.02, 0.2, 5.0])
                try:
                    async with asyncio.timeout(rng.choice([0.05, 10.0])):
                        assert await engine.submit(n, timeout=timeout) == 2 * n
                except (DeadlineExceeded, Overloaded, TimeoutError):
                    pass
                except OpError:
                    assert n % 11 == 0 or n % 13 == 0

            await asyncio.gather(*(one(n) for n in range(3000)))
            await asyncio.sleep(20)
            assert_nothing_left(engine)

    run_virtual(main())


def test_an_each_of_too_many_samples_is_the_ops_fault() -> None:
    with pytest.raises(OpError, match="op 'split' preprocess: Each of 10001 samples, more than 10000"):
        submit(graph_of(Split), [0] * 10_001)


def test_an_engine_that_ends_by_a_defect_says_so() -> None:
    async def main() -> None:
        async with virtual_engine(graph_of(Slow)) as engine:
            assert engine._live_task is not None

            async def defect() -> None:
                raise RuntimeError("defect")

            engine.works.lanes["loop"]._tasks.create_task(defect())  # type: ignore[attr-defined]  # a LoopLane has it
            with pytest.raises(ExceptionGroup):
                await engine.wait_closed()
            assert engine.problem() == "closed"
            with pytest.raises(Unavailable):
                await engine.submit(1)

    run_virtual(main())


def test_an_async_hook_runs_for_as_many_requests_as_its_concurrency_says_and_no_more() -> None:
    async def main() -> None:
        for settings, most in (({"concurrency": 3}, 3), ({}, 64)):
            waiting = Forever(Request(), **settings)
            async with virtual_engine(Graph("test", waiting)) as engine:
                calls = [asyncio.create_task(engine.submit(n, timeout=1)) for n in range(100)]
                await asyncio.sleep(0.5)
                assert len(waiting.entered) == most
                await asyncio.gather(*calls, return_exceptions=True)

    run_virtual(main())


def test_an_op_does_not_starve_beside_a_free_replica_when_what_it_prepared_has_expired() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 1.0)
        async with virtual_engine(graph_of(Square), lanes) as engine:
            first = asyncio.create_task(engine.submit(1))
            await asyncio.sleep(0)
            dying = [asyncio.create_task(engine.submit(n, timeout=0.5)) for n in range(2, 7)]
            await asyncio.sleep(0)
            last = asyncio.create_task(engine.submit(7, timeout=8))
            assert await first == 1 and await last == 49
            await asyncio.gather(*dying, return_exceptions=True)
            assert_nothing_left(engine)

    run_virtual(main())


def test_a_generator_that_raises_among_its_results_fails_the_batch() -> None:
    class Lazy(Op):
        cpu = "inline"

        def process(self, batch: list[int]) -> Any:
            return (1 // n for n in batch)

    assert submit(graph_of(Lazy), 1) == 1
    with pytest.raises(OpError, match="op 'lazy' process: ZeroDivisionError"):
        submit(graph_of(Lazy), 0)


def test_a_field_that_unpack_forgets_is_an_error_and_no_token_is_lost() -> None:
    class Forgetful(Request):
        def unpack(self, payload: Any) -> Any:
            return {}

    with pytest.raises(OpError, match="op 'request' unpack: KeyError: 'text'"):
        submit(Graph("test", Slow(Forgetful(text=Text()).text)), {"text": "x"})


@pytest.mark.parametrize("timeout", ["2", float("nan"), -1, 0])
def test_a_timeout_that_is_none_takes_no_token(timeout: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        submit(graph_of(Slow), 1, timeout=timeout)


def test_times_are_never_negative_however_an_item_ends() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 1.0, width=1)
        async with virtual_engine(graph_of(Slow), lanes) as engine:
            await asyncio.sleep(1000)
            items = [engine.begin(n, timeout_s=0.5) for n in range(5)]
            await asyncio.sleep(10)
            assert all(0 <= seconds < 2 for item in items for seconds in item.times[:STARTED_AT])

    run_virtual(main())


@pytest.mark.parametrize("is_async", [False, True])
def test_a_hook_that_exits_does_not_end_the_server(is_async: bool) -> None:
    class Exiting(Op):
        cpu = "inline"

        def preprocess(self, x: Any) -> Any:
            raise SystemExit(3)

    class ExitingAsync(Op):
        async def preprocess(self, x: Any) -> Any:
            raise SystemExit(3)

    with pytest.raises(OpError, match="SystemExit: 3"):
        submit(graph_of(ExitingAsync if is_async else Exiting), 1)


def test_concurrency_bounds_postprocess_too_where_there_is_no_process() -> None:
    running: list[int] = []
    most: list[int] = []

    class After(Op):
        async def postprocess(self, x: int, same: int) -> int:
            running.append(x)
            most.append(len(running))
            await asyncio.sleep(1)
            running.remove(x)
            return x

    async def main() -> None:
        async with virtual_engine(graph_of(After, concurrency=2)) as engine:
            assert await asyncio.gather(*(engine.submit(n) for n in range(9))) == list(range(9))
            assert max(most) == 2
            assert_nothing_left(engine)

    run_virtual(main())


def test_outside_of_hooks_there_is_no_context() -> None:
    async def main() -> None:
        async with virtual_engine(Graph("test", double(Request()))) as engine:
            assert await engine.submit(1) == 2
            with pytest.raises(LookupError):
                context()

    run_virtual(main())


def test_an_inline_op_with_a_time_limit_notes_what_it_is_shown_with() -> None:
    class Inline(Op):
        cpu = "inline"

        def preprocess(self, x: int) -> int:
            return x + 1

    async def main() -> None:
        async with virtual_engine(graph_of(Inline, timeout_ms=1000)) as engine:
            item = engine.begin(1)
            await item.wait()
            assert item.result() == 2
            assert engine.plan.stage_slots == ({"wait": 0, "pre": 1},)
            assert sum(item.times[:TOTAL]) == item.times[TOTAL]

    run_virtual(main())
