"""Fused hooks: whatever comes of a request is the same with and without."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from asyncline import (
    Cancelled,
    DeadlineExceeded,
    Each,
    Engine,
    Graph,
    Observer,
    Op,
    OpError,
    Reply,
    Request,
    RequestError,
    Skip,
    WorkerCrashed,
    context,
)
from asyncline.engine.hooks import Hooks
from asyncline.engine.item import TOTAL, Item
from asyncline.engine.lanes.base import Job, Lane
from asyncline.graph.plan import Node, Plan
from asyncline.settings import Settings, Source, merge
from asyncline.testing import SimulatedLane, SimulatedLanes, run_virtual, virtual_engine

from .test_engine import assert_nothing_left

# -- any graph, with and without


@dataclass(frozen=True)
class Made:
    """An Op of a random graph: what each hook returns, None where the Op lacks it."""

    name: str
    inputs: tuple[int, ...]
    """Places of earlier Ops; -1 is the request."""
    pre: str | None
    process: str | None
    post: str | None
    settings: tuple[tuple[str, Any], ...]
    output: bool


@st.composite
def pipelines(draw: st.DrawFn, lanes: tuple[str, ...]) -> tuple[Made, ...]:
    """Up to seven Ops. One at most ends a request early, so that the outcome does not hang on who is first."""
    count = draw(st.integers(1, 7))
    ends_at = draw(st.integers(-2, count - 1))
    usual = draw(st.sampled_from(lanes))
    made = []
    for place in range(count):
        # Mostly the Op before, so that there are chains; fan-outs and joins come of the rest.
        earlier = st.integers(-1, place - 1)
        inputs = draw(st.sampled_from([[place - 1]] * 5 + [[]])) + draw(
            st.sampled_from([[], [], [-1], [draw(earlier)]])
        )
        values = ["plain", "plain", "none", "each", "empty", "skip"]
        pre = draw(st.sampled_from(values + [None, "async"] * bool(place)))
        process = draw(st.sampled_from([None, None, None, "plain", "async"]))
        post = draw(st.sampled_from([None, None, "plain", "none", "skip", "async"]))
        if pre is process is post is None:
            post = "plain"
        if place == ends_at:
            ending = draw(st.sampled_from(["reply", "raise"]))
            pre, post = (ending, post) if draw(st.booleans()) or post is None else (pre, ending)
        settings = {"cpu": draw(st.sampled_from([usual] * 6 + list(lanes)))}
        settings |= draw(st.sampled_from([{}] * 6 + [{"timeout_ms": 60_000}, {"concurrency": 2}]))
        inputs = tuple(inputs or [draw(earlier)])
        output = draw(st.sampled_from([False, False, False, True]))
        made.append(Made(f"op_{place}", inputs, pre, process, post, tuple(settings.items()), output))
    return tuple(made)


def hash_of(*values: Any) -> int:
    return crc32(repr(values).encode())


def returned(kind: str, name: str, hook: str, values: tuple[Any, ...]) -> Any:
    number = hash_of(name, hook, values)
    match kind:
        case "none":
            return None
        case "each":
            return Each([number, number + 1])
        case "empty":
            return Each([])
        case "skip":
            return Skip(number)
        case "reply":
            return Reply(number)
        case "raise":
            raise ValueError(number)
    return number


def op_class(made: Made) -> type[Op]:
    hooks: dict[str, Any] = {}

    def one(hook: str, kind: str) -> None:
        def run(self: Op, *values: Any) -> Any:
            return returned(kind, made.name, hook, values)

        async def run_async(self: Op, *values: Any) -> Any:
            return returned(kind, made.name, hook, values)

        hooks[hook] = run_async if kind == "async" else run

    def process(self: Op, batch: list[Any]) -> list[Any]:
        return [hash_of(made.name, sample) for sample in batch]

    async def process_async(self: Op, batch: list[Any]) -> list[Any]:
        return process(self, batch)

    if made.pre is not None:
        one("preprocess", made.pre)
    if made.process is not None:
        hooks["process"] = process_async if made.process == "async" else process
    if made.post is not None:
        one("postprocess", made.post)
    return type("Anything", (Op,), hooks)


def graph_of(pipeline: tuple[Made, ...]) -> Graph:
    request = Request()
    ops: list[Op] = []
    for made in pipeline:
        inputs = [request if place < 0 else ops[place] for place in made.inputs]
        ops.append(op_class(made)(*inputs, name=made.name, **dict(made.settings)))
    taken = {place for made in pipeline for place in made.inputs}
    outputs = {made.name: op for place, (made, op) in enumerate(zip(pipeline, ops, strict=True))
               if made.output or place not in taken}  # fmt: skip
    return Graph("any", **outputs)


def settings_of(graph: Graph, fuse: bool, **service: Any) -> Settings:
    written = {"dag": {"fuse": fuse, "cpu_threads": 2}, "service": service}
    return merge(graph.name, {op.name: op.code_settings for op in graph.ops}, Source("test", written))


class Watching(Observer):
    """Keeps what it saw, in an order of its own where Ops run side by side."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failed: list[tuple[str, str]] = []

    def op_done(self, node: Node, item: Item) -> None:
        self.done.append(node.name)

    def op_failed(self, node: Node, item: Item, error: RequestError) -> None:
        self.failed.append((node.name, str(error)))


def outcome(item: Item) -> Any:
    return repr(item.value) if item.error is None else (type(item.error), str(item.error))


def eighths(op: str, hook: str, size: int) -> float:
    """Seconds of any hook, in parts that floats add up exactly."""
    return hash_of(op, hook) % 4 / 8


async def simulated(pipeline: tuple[Made, ...], fuse: bool) -> Any:
    graph, watching = graph_of(pipeline), Watching()
    lanes = SimulatedLanes(eighths, width=50)
    async with virtual_engine(graph, lanes, settings_of(graph, fuse), [watching]) as engine:
        item = engine.begin(7)
        await item.wait()
        await asyncio.sleep(100)
        assert_nothing_left(engine)
    is_whole = len(watching.done) == len(pipeline)
    return outcome(item), watching.failed, is_whole and (sorted(watching.done), item.times)


@given(pipelines(("process", "thread", "inline")))
def test_outcomes_times_and_what_observers_see_are_the_same_with_and_without(pipeline: tuple[Made, ...]) -> None:
    assert run_virtual(simulated(pipeline, fuse=True)) == run_virtual(simulated(pipeline, fuse=False))


async def threaded(pipeline: tuple[Made, ...], fuse: bool) -> list[Any]:
    graph = graph_of(pipeline)
    async with Engine(graph, settings_of(graph, fuse), blocked_s=None) as engine:
        items = [engine.begin(payload) for payload in range(5)]
        for item in items:
            await item.wait()
    return [outcome(item) for item in items]


@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(pipelines(("thread",)))
def test_outcomes_of_real_threads_are_the_same_with_and_without(pipeline: tuple[Made, ...]) -> None:
    assert asyncio.run(threaded(pipeline, fuse=True)) == asyncio.run(threaded(pipeline, fuse=False))


# -- one task


class First(Op):
    cpu = "thread"

    def preprocess(self, x: Any) -> Any:
        return x + 1


class Second(Op):
    cpu = "thread"

    def preprocess(self, x: Any) -> Any:
        if x == 0:
            raise ValueError("zero")
        if x == -1:
            return Reply("early")
        return 2 * x


class Model(Second):
    def process(self, batch: list[Any]) -> list[Any]:
        return batch


def pair() -> Graph:
    return Graph("pair", Second(First(Request())))


class Unfused(SimulatedLanes):
    """Its lanes cannot run several steps."""

    def make(self, plan: Plan, tasks: asyncio.TaskGroup, hooks: Hooks, clock: Any) -> dict[str, Lane]:
        lanes = super().make(plan, tasks, hooks, clock)
        lanes["thread"].fuses = False
        return lanes


@pytest.mark.parametrize(("kind", "order"), [(SimulatedLanes, "1 1 2 2"), (Unfused, "1 2 1 2")])
def test_a_worker_does_all_steps_of_a_request_in_one_go_where_its_lane_can(
    kind: type[SimulatedLanes], order: str
) -> None:
    async def main() -> None:
        lanes = kind(lambda op, hook, size: 1.0, width=1)
        async with virtual_engine(pair(), lanes) as engine:
            assert await asyncio.gather(engine.submit(1), engine.submit(2)) == [4, 6]
        assert " ".join(str(data_id) for _, _, data_id in lanes.ran) == order

    run_virtual(main())


@pytest.mark.parametrize("fuse", [True, False])
def test_an_error_of_a_later_step_is_of_its_op_and_hook(fuse: bool) -> None:
    async def main() -> None:
        graph, watching = pair(), Watching()
        async with virtual_engine(graph, settings=settings_of(graph, fuse), observers=[watching]) as engine:
            with pytest.raises(OpError, match="op 'second' preprocess: ValueError: zero"):
                await engine.submit(-1)
            assert await engine.submit(-2) == "early"
        assert watching.done == ["first", "first"]
        assert watching.failed == [("second", "op 'second' preprocess: ValueError: zero")]

    run_virtual(main())


def test_the_deadline_passes_between_two_steps_and_the_second_never_runs() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 1.0)
        async with virtual_engine(pair(), lanes) as engine:
            with pytest.raises(DeadlineExceeded, match="in op 'first'"):
                await engine.submit(1, timeout=0.5)
            await asyncio.sleep(10)
            assert lanes.ran == [("first", "preprocess", 1)]
            assert_nothing_left(engine)

    run_virtual(main())


@pytest.mark.parametrize("after", [0.5, 1.5])
def test_a_cancel_in_the_midst_of_a_task_leaves_nothing_behind(after: float) -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 1.0, width=1)
        async with virtual_engine(pair(), lanes) as engine:
            item = engine.begin(1)
            await asyncio.sleep(after)
            item.cancel()
            assert await engine.submit(5) == 12
            assert lanes.ran.count(("second", "preprocess", 1)) == (after > 1)
            assert isinstance(item.error, Cancelled) and not item.jobs and item.ahead is None
            assert_nothing_left(engine)

    run_virtual(main())


def test_a_worker_that_dies_in_a_later_step_costs_its_request_only() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 1.0, width=1)
        async with virtual_engine(pair(), lanes) as engine:
            dying, living = engine.begin(1), engine.begin(2)
            await asyncio.sleep(1.5)
            lane = engine.works.lanes["thread"]
            assert isinstance(lane, SimulatedLane)
            lane.crash()
            await living.wait()
            assert isinstance(dying.error, WorkerCrashed) and dying.times[1] == 1.5
            assert living.result() == 6
            assert_nothing_left(engine)

    run_virtual(main())


# -- what an Item holds


class Values(Observer):
    """Keeps the values of the Items that are done."""

    def __init__(self) -> None:
        self.values: list[list[Any]] = []

    def item_done(self, item: Item) -> None:
        self.values.append(item.values)


@pytest.mark.parametrize(("fuse", "between"), [(True, None), (False, 2)])
def test_a_value_that_nobody_needs_outside_of_the_task_does_not_leave_it(fuse: bool, between: int | None) -> None:
    async def main() -> None:
        graph, seen = pair(), Values()
        async with virtual_engine(graph, settings=settings_of(graph, fuse), observers=[seen]) as engine:
            assert await engine.submit(1) == 4
        assert seen.values == [[1, between, 4]]

    run_virtual(main())


def test_what_ran_ahead_is_let_go_with_its_item() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 10.0 if hook == "process" else 0.5, width=20)
        async with virtual_engine(Graph("g", Model(First(Request()))), lanes) as engine:
            items = [engine.begin(n, timeout_s=5) for n in range(1, 20)]
            await asyncio.sleep(2)
            # The others, whose first hook ran alone, were there before: these wait in the Channel.
            assert any(item.ahead for item in items)
            await asyncio.sleep(5)
            assert all(item.done and item.ahead is None for item in items)
            await asyncio.sleep(10)
            assert_nothing_left(engine)

    run_virtual(main())


@pytest.mark.parametrize(("fuse", "most"), [(False, 5), (True, 9)])
def test_no_more_is_prepared_than_replicas_can_take_soon(fuse: bool, most: int) -> None:
    """Without: one batch runs and BATCHES_AHEAD lie ready. With: in the worst case as many come from tasks."""

    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 10.0 if hook == "process" else 0.5, width=20)
        graph = Graph("g", Model(First(Request())))
        async with virtual_engine(graph, lanes, settings_of(graph, fuse)) as engine:
            items = [engine.begin(n) for n in range(1, 20)]
            await asyncio.sleep(5)
            assert sum(op == "model" for op, _, _ in lanes.ran) <= most
            for item in items:
                item.cancel()
            await asyncio.sleep(10)
            assert_nothing_left(engine)

    run_virtual(main())


def test_a_free_replica_is_fed_by_tasks_that_go_all_the_way() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 0.0 if hook == "process" else 0.125, width=1)
        async with virtual_engine(Graph("g", Model(First(Request()))), lanes) as engine:
            await asyncio.gather(*(engine.submit(n) for n in range(1, 20)))
            hooks = [(op, data_id) for op, hook, data_id in lanes.ran if hook == "preprocess"]
            assert hooks == [(op, n) for n in range(1, 20) for op in ("first", "model")]

    run_virtual(main())


def test_the_stages_of_an_item_add_up_to_its_time_wherever_it_waits() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 0.5 if hook == "process" else 0.125, width=20)
        async with virtual_engine(Graph("g", Model(First(Request()))), lanes) as engine:
            items = [engine.begin(n) for n in range(1, 13)]
            await asyncio.gather(*(item.wait() for item in items))
        assert sorted(item.times[TOTAL] for item in items) == [0.25 + 0.5 * (place + 1) for place in range(12)]
        for item in items:
            assert sum(item.times[:TOTAL]) == item.times[TOTAL]
            places = [("first", "wait"), ("first", "pre"), ("model", "pre"), ("model", "mid")]
            assert [item.times[engine.plan.time_slots[place]] for place in places] == [0, 0.125, 0.125, 0.5]

    run_virtual(main())


def test_several_tasks_of_one_item_may_wait_to_be_taken_further() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 0.5 if hook == "process" else 0.0, width=50)
        request = Request()
        left = Model(First(request, name="first_left"), name="left")
        right = Model(First(request, name="first_right"), name="right")
        async with virtual_engine(Graph("g", left=left, right=right), lanes) as engine:
            got = await asyncio.gather(*(engine.submit(n) for n in range(1, 13)))
        assert got == [{"left": 2 * (n + 1), "right": 2 * (n + 1)} for n in range(1, 13)]

    run_virtual(main())


# -- real threads


async def test_every_step_in_a_thread_knows_its_request() -> None:
    class Seeing(Op):
        cpu = "thread"

        def preprocess(self, x: Any) -> Any:
            return [*x, (context().log_id, threading.get_ident())]

        def postprocess(self, result: Any, x: Any) -> Any:
            return self.preprocess(result)

    async with Engine(Graph("g", Seeing(Request()))) as engine:
        (first, thread), second = await engine.submit([], log_id="mine")
        assert first == "mine" and thread != threading.get_ident()
        assert second == (first, thread)


async def test_a_thread_runs_no_further_step_of_a_dead_item() -> None:
    entered, go_on, ran = asyncio.Event(), threading.Event(), []
    loop = asyncio.get_running_loop()

    class Holding(Op):
        cpu = "thread"

        def preprocess(self, x: Any) -> Any:
            loop.call_soon_threadsafe(entered.set)
            assert go_on.wait(20)
            return x

        def postprocess(self, result: Any, x: Any) -> Any:
            ran.append(x)

    async with Engine(Graph("g", Holding(Request()))) as engine:
        item = engine.begin(1)
        await entered.wait()
        item.cancel()
        go_on.set()
        second = engine.begin(2)
        await second.wait()
    assert ran == [2]


def test_waiting_for_a_lane_is_waiting() -> None:
    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 0.5, width=1)
        async with virtual_engine(Graph("g", First(Request())), lanes) as engine:
            items = [engine.begin(n) for n in range(1, 5)]
            await asyncio.gather(*(item.wait() for item in items))
        assert [item.times[:2] for item in items] == [[0.0, 0.5], [0.5, 0.5], [1.0, 0.5], [1.5, 0.5]]

    run_virtual(main())


def test_an_observer_sees_each_hook_of_a_fused_task() -> None:
    class Watching(Observer):
        def __init__(self) -> None:
            self.seen: list[tuple[str, str, float, float]] = []

        def job_done(self, job: Job) -> None:
            self.seen.append((job.node.name, job.hook, job.started_at, job.ended_at))

    async def main() -> None:
        watching = Watching()
        lanes = SimulatedLanes(lambda op, hook, size: 0.5, width=1)
        async with virtual_engine(pair(), lanes) as engine:
            engine.hooks.add(watching)
            await engine.submit(1)
        assert watching.seen == [("first", "preprocess", 0.0, 0.5), ("second", "preprocess", 0.5, 1.0)]

    run_virtual(main())
