"""The verdict, on a running graph in which one thing is made slow, and on figures made up."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from asyncline import Engine, Graph, Op, Request, RequestError, op
from asyncline.graph.plan import Plan, plan
from asyncline.observe.figures import Figures, Latency, OpFigures, Use
from asyncline.observe.statistics import Statistics
from asyncline.observe.verdict import Verdict, verdict
from asyncline.observe.windows import Windows
from asyncline.settings import Source, merge
from asyncline.testing import SimulatedLanes, run_virtual, virtual_engine

SECONDS = 8


class Get(Op):
    seconds = 0.002

    async def preprocess(self, x: Any) -> Any:
        await asyncio.sleep(self.seconds)
        return x


class SlowGet(Get):
    seconds = 0.2


class Prepare(Op):
    cpu = "thread"

    def preprocess(self, x: Any) -> Any:
        return x


class Net(Op):
    batch_size = 4

    def process(self, batch: list[Any]) -> list[Any]:
        return batch


@op(cpu="inline")
def merged(x: Any) -> Any:
    return x


def graph(get: type[Get] = Get) -> Graph:
    return Graph("g", merged(Net(Prepare(get(Request(), name="get")))))


def judge(slow: dict[str, float], rate: float, get: type[Get] = Get, **service: Any) -> Verdict:
    """The verdict on SECONDS of Poisson load, where a hook takes 2 ms or what `slow` says by Op."""

    async def main() -> Verdict:
        lanes = SimulatedLanes(lambda op, hook, size: slow.get(op, 0.002))
        made = graph(get)
        code = {op.name: op.code_settings for op in made.ops}
        async with virtual_engine(made, lanes, merge("g", code, Source("test", {"service": service}))) as engine:
            statistics = Statistics(engine.plan)
            engine.hooks.add(statistics)
            windows = Windows(engine, statistics)
            windows.start()
            await load(engine, rate)
            judged = verdict(windows.figures(SECONDS), engine.plan)
            windows.close()
        return judged

    return run_virtual(main())


async def load(engine: Engine, rate: float) -> None:
    chance = random.Random(7)
    loop = asyncio.get_running_loop()

    async def one() -> None:
        try:
            await engine.submit(1, timeout=3)
        except RequestError:
            pass

    until = loop.time() + SECONDS + 0.5
    async with asyncio.TaskGroup() as tasks:
        while loop.time() < until:
            tasks.create_task(one())
            await asyncio.sleep(chance.expovariate(rate))


@pytest.mark.parametrize("load", [0.1, 1.0, 1.5], ids=["light", "full", "over"])
@pytest.mark.parametrize(
    ("slow", "get", "capacity", "expected"),
    [
        ({"prepare": 0.02}, Get, 100, ("prepare", "preprocess", "CPU-bound")),
        ({"net": 0.04}, Get, 100, ("net", "process", "device-bound")),
        ({}, SlowGet, 320, ("get", "preprocess", "I/O-bound")),
    ],
    ids=["a slow preprocess", "a slow model", "a slow download"],
)
def test_what_is_slow_is_named(
    slow: dict[str, float], get: type[Get], capacity: float, expected: tuple[str, str, str], load: float
) -> None:
    judged = judge(slow, load * capacity, get)
    assert (judged.op, judged.hook, judged.kind) == expected
    assert str(judged).startswith(f"bottleneck: op {expected[0]!r} {expected[1]} is {expected[2]}: ")


@pytest.mark.parametrize("load", [1.0, 1.5], ids=["full", "over"])
def test_a_small_queue_is_named(load: float) -> None:
    judged = judge({}, load * 350, max_in_flight=4)
    assert judged.kind == "queue-bound"
    assert "set service.max_in_flight=8" in str(judged)


# -- figures made up ----------------------------------------------------------------------------------

PLAN = plan(graph(), merge("g", {op.name: op.code_settings for op in graph().ops}))

QUIET = Figures(
    seconds=10.0,
    at=0.0,
    latency=Latency(1000, 10.0, {}),
    ops=(
        OpFigures("get", count=1000, prep_ms=2.0),
        OpFigures("prepare", count=1000, prep_ms=3.0),
        OpFigures("net", count=1000, midp_ms=4.0, batches=500, batch_size=2.0),
        OpFigures("merged", count=1000, prep_ms=0.01),
    ),
    outcomes={"ok": 1000},
    rejected={},
    uses=(
        Use("io", 64, 0.1, {"get.preprocess": 2.0}),
        Use("thread", 2, 0.15, {"prepare.preprocess": 3.0}),
        Use("device", 1, 0.2, {"net.process": 2.0}),
        Use("loop", 1, 0.1, {"merged.preprocess": 0.01}),
    ),
    in_flight=1,
    in_flight_max=512,
    in_flight_mean=1.0,
    cores=0.5,
    cores_there=4,
)


def busy(kind: str, share: float, figures: Figures = QUIET, **changes: Any) -> Figures:
    uses = tuple(
        replace(use, busy=share, work=dict.fromkeys(use.work, share * 10 * use.servers)) if use.kind == kind else use
        for use in figures.uses
    )
    return replace(figures, uses=uses, **changes)


def test_nothing_to_judge_is_said() -> None:
    nothing = replace(QUIET, outcomes={}, in_flight=0)
    assert str(verdict(nothing, PLAN)) == "bottleneck: none: no requests in the last 10 s"


def test_a_hook_that_keeps_the_loop_is_named_before_all_else() -> None:
    judged = verdict(busy("device", 0.99, blocked={"merged.preprocess": 3.0}), PLAN)
    assert (judged.op, judged.hook, judged.kind) == ("merged", "preprocess", "loop-bound")
    assert "30% of the time" in judged.why


def test_a_loop_that_is_late_now_and_then_is_not_the_bottleneck() -> None:
    assert verdict(replace(QUIET, blocked={"merged.preprocess": 0.3}), PLAN).op == "net"


def test_a_busy_inline_op_is_named() -> None:
    judged = verdict(busy("loop", 0.9), PLAN)
    assert (judged.op, judged.kind) == ("merged", "loop-bound")
    assert "op.merged.cpu=thread or process" in judged.knob


def test_a_loop_that_is_busy_with_the_server_names_no_op() -> None:
    uses = tuple(replace(use, busy=0.95) if use.kind == "loop" else use for use in QUIET.uses)
    judged = verdict(replace(QUIET, uses=uses), PLAN)
    assert (judged.op, judged.kind) == ("", "loop-bound")
    assert str(judged).startswith("bottleneck: the server itself is loop-bound: ")


def with_batches(batch_size: float, figures: Figures) -> Figures:
    ops = tuple(replace(op, batch_size=batch_size) if op.name == "net" else op for op in figures.ops)
    return replace(figures, ops=ops)


def test_full_batches_are_to_be_larger() -> None:
    judged = verdict(with_batches(3.9, busy("device", 0.98)), PLAN)
    assert "set op.net.batch_size=8" in judged.knob


def test_a_replica_with_room_in_its_batches_gets_a_second_one() -> None:
    judged = verdict(with_batches(1.5, busy("device", 1.0)), PLAN)
    assert judged.knob.startswith("set op.net.concurrency=2 for up to 200 requests/s")


def test_what_limits_next_bounds_what_is_promised() -> None:
    uses = tuple(replace(use, busy=0.8) if use.kind == "thread" else use for use in QUIET.uses)
    judged = verdict(with_batches(1.5, busy("device", 1.0, replace(QUIET, uses=uses))), PLAN)
    assert judged.knob == "set op.net.concurrency=2 for up to 125 requests/s (then prepare.preprocess limits)"


@pytest.mark.parametrize(("kind", "hook"), [("thread", "preprocess"), ("device", "process")])
def test_more_workers_are_not_advised_where_all_cores_are_busy(kind: str, hook: str) -> None:
    judged = verdict(with_batches(1.5, busy(kind, 0.98, cores=3.9)), PLAN)
    assert judged.hook == hook
    assert "all 4 cores are busy" in judged.knob


def test_more_at_once_is_advised_for_an_op_that_waits_for_others() -> None:
    judged = verdict(busy("io", 0.97), PLAN)
    assert judged.kind == "I/O-bound"
    assert "set op.get.concurrency=128" in judged.knob


def test_refusals_with_room_to_spare_mean_a_small_door() -> None:
    judged = verdict(replace(QUIET, rejected={"overloaded": 5000}, latency=Latency(1000, 1000.0, {})), PLAN)
    # Little's law: 600 requests/s of 1 s each, and half as many again.
    assert (judged.kind, judged.knob) == ("queue-bound", "set service.max_in_flight=1024")
    judged = verdict(replace(QUIET, rejected={"overloaded": 9000}, latency=Latency(1000, 1000.0, {})), PLAN)
    assert judged.knob == "set service.max_in_flight=1500"


def test_the_channel_that_bounds_the_door_is_the_one_to_turn() -> None:
    judged = verdict(replace(QUIET, rejected={"overloaded": 5}, limit="op.net.channel_size"), PLAN)
    assert (judged.op, judged.knob) == ("net", "set op.net.channel_size=1024")


def test_waiting_for_a_fuller_batch_is_named() -> None:
    made = Graph("g", Net(Request(), max_delay_ms=20))
    laid_out: Plan = plan(made, merge("g", {op.name: op.code_settings for op in made.ops}))
    ops = (OpFigures("net", count=10, in_ms=19.0, midp_ms=4.0),)
    judged = verdict(replace(QUIET, ops=ops), laid_out)
    assert (judged.kind, judged.knob) == ("queue-bound", "set op.net.max_delay_ms=0")


def test_requests_that_all_fail_before_an_op_name_none() -> None:
    ops = tuple(OpFigures(op.name) for op in QUIET.ops)
    judged = verdict(replace(QUIET, ops=ops, outcomes={"bad_request": 5}, in_flight=0), PLAN)
    assert str(judged) == "bottleneck: none: every request failed before it reached an op"
