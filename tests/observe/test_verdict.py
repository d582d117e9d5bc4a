"""The verdict, on a running graph in which one thing is made slow, and on figures made up."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from asyncline import Engine, Graph, Op, Request, RequestError, op
from asyncline.graph.plan import Plan, plan
from asyncline.observe.cpu import CpuTimes
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
            statistics = Statistics(engine)
            engine.hooks.add(statistics)
            # Of virtual seconds, nobody knows the CPU time.
            windows = Windows(engine, statistics, lambda pids: CpuTimes(0.0, 0.0, {}, 0.0, 0.0))
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
    op, hook, kind = expected
    says = f"op {op!r} {hook} is {kind}: " if load > 0.5 else f"none yet: op {op!r} {hook} will be {kind} first, "
    assert str(judged).startswith(f"bottleneck: {says}")


@pytest.mark.parametrize("load", [1.0, 1.5], ids=["full", "over"])
def test_a_small_door_is_named(load: float) -> None:
    judged = judge({}, load * 350, max_in_flight=4)
    assert judged.kind == "queue-bound"
    assert "set service.max_in_flight=8" in str(judged)


def test_at_light_load_the_door_is_named_where_it_will_be_full_first() -> None:
    judged = judge({}, 35, max_in_flight=4)
    assert (judged.op, judged.kind, judged.limits) == ("", "queue-bound", False)
    assert str(judged).startswith("bottleneck: none yet: the door will be queue-bound first, at about ")
    assert "then set service.max_in_flight=8 for up to " in judged.knob


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
    # 100 requests/s take 0.3 s of the two threads a second; with the 0.9 s that kept the loop, 1.2 s of 2.
    assert judged.knob == (
        "set op.merged.cpu=thread or process for up to 167 requests/s (then merged.preprocess limits the threads)"
    )


def test_a_loop_that_is_busy_with_the_server_names_no_op() -> None:
    uses = tuple(replace(use, busy=0.95) if use.kind == "loop" else use for use in QUIET.uses)
    judged = verdict(replace(QUIET, uses=uses), PLAN)
    assert (judged.op, judged.kind) == ("", "loop-bound")
    assert str(judged).startswith("bottleneck: the server itself is loop-bound: ")


def with_batches(batch_size: float, figures: Figures) -> Figures:
    ops = tuple(replace(op, batch_size=batch_size) if op.name == "net" else op for op in figures.ops)
    return replace(figures, ops=ops)


def test_full_batches_are_to_be_larger() -> None:
    judged = verdict(with_net(busy("device", 1.0), batches=250, batch_size=4.0, batch_ms=40.0), PLAN)
    assert judged.knob == (
        "set op.net.batch_size=8 for up to 200 requests/s, if they take no longer"
        ": batches of 4 are as large as they may be now"
    )


def with_net(figures: Figures, **changes: Any) -> Figures:
    return replace(figures, ops=tuple(replace(op, **changes) if op.name == "net" else op for op in figures.ops))


def test_what_larger_batches_bring_is_known_from_batches_of_other_sizes() -> None:
    full = with_net(busy("device", 1.0), batches=250, batch_size=4.0, batch_ms=40.0)
    # 20 ms and 5 for each sample: 8 of them in 60 ms, for 4 in 40.
    judged = verdict(with_net(full, fixed_ms=20.0), PLAN)
    assert judged.knob.startswith("set op.net.batch_size=8 for up to 133 requests/s: ")
    # They would take nearly twice as long: that is no gain.
    judged = verdict(with_net(full, fixed_ms=2.0), PLAN)
    assert judged.knob.startswith("set op.net.concurrency=2 for up to 200 requests/s")


def test_a_device_with_room_in_its_batches_is_not_the_first_to_be_full() -> None:
    figures = replace(busy("device", 0.3), uses=tuple(
        replace(use, busy=0.2) if use.kind == "thread" else use for use in busy("device", 0.3).uses
    ))  # fmt: skip
    lone = with_net(figures, batches=1000, batch_size=1.0, batch_ms=3.0, fixed_ms=2.5)
    assert (verdict(lone, PLAN).op, verdict(lone, PLAN).limits) == ("prepare", False)
    assert verdict(with_net(lone, fixed_ms=0.0), PLAN).op == "net"


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


def test_cores_that_other_programs_have_are_not_there_for_more_workers() -> None:
    judged = verdict(busy("thread", 0.98, cores=2.0, cores_idle=0.1), PLAN)
    assert "all 4 cores are busy" in judged.knob
    judged = verdict(busy("thread", 0.98, cores=2.0, cores_idle=0.5), PLAN)
    assert judged.knob == "set dag.cpu_threads=3 for up to 125 requests/s (then the cores do)"


def test_a_lane_whose_hooks_wait_gets_more_workers_though_all_cores_are_busy() -> None:
    figures = busy("thread", 1.0, cores=3.9)
    uses = tuple(replace(use, cpu=0.1) if use.kind == "thread" else use for use in figures.uses)
    judged = verdict(replace(figures, uses=uses), PLAN)
    assert (judged.kind, judged.knob) == ("I/O-bound", "set dag.cpu_threads=4 for up to 200 requests/s")


def test_a_lane_without_a_core_does_not_seem_to_wait_for_others() -> None:
    figures = busy("thread", 1.0, cores=1.0, cores_idle=0.0)
    uses = tuple(replace(use, cpu=0.1) if use.kind == "thread" else use for use in figures.uses)
    judged = verdict(replace(figures, uses=uses), PLAN)
    assert judged.kind == "CPU-bound" and "all 4 cores are busy" in judged.knob


def test_at_light_load_a_loop_that_waits_for_a_core_is_not_the_first_to_be_full() -> None:
    uses = tuple(replace(use, busy=0.4, cpu=0.2) if use.kind == "loop" else use for use in QUIET.uses)
    assert verdict(replace(QUIET, uses=uses), PLAN).op == "net"
    uses = tuple(replace(use, busy=0.4, cpu=0.9) if use.kind == "loop" else use for use in QUIET.uses)
    judged = verdict(replace(QUIET, uses=uses), PLAN)
    assert str(judged).startswith("bottleneck: none yet: the server itself will be loop-bound first, at about 278 ")


def test_a_hook_that_kept_the_loop_is_named_though_no_request_was_finished() -> None:
    judged = verdict(replace(QUIET, outcomes={}, in_flight=0, blocked={"merged.preprocess": 8.0}), PLAN)
    assert (judged.op, judged.kind) == ("merged", "loop-bound")
    assert judged.knob == "set op.merged.cpu=thread or process"


def test_an_async_hook_that_blocks_the_loop_is_to_await() -> None:
    judged = verdict(replace(QUIET, blocked={"get.preprocess": 3.0}), PLAN)
    assert (judged.op, judged.kind) == ("get", "loop-bound")
    assert judged.knob.startswith("await what takes so long")


def test_more_at_once_is_advised_for_an_op_that_waits_for_others() -> None:
    judged = verdict(busy("io", 0.97), PLAN)
    assert judged.kind == "I/O-bound"
    assert "set op.get.concurrency=128" in judged.knob


def test_refusals_with_room_to_spare_mean_a_small_door() -> None:
    judged = verdict(replace(QUIET, rejected={"overloaded": 5000}, latency=Latency(1000, 1000.0, {})), PLAN)
    # Little's law: 600 requests/s of 1 s each, and half as many again. The replica allows 500.
    assert (judged.kind, judged.knob) == ("queue-bound", "set service.max_in_flight=1024 for up to 500 requests/s")
    judged = verdict(replace(QUIET, rejected={"overloaded": 9000}, latency=Latency(1000, 1000.0, {})), PLAN)
    assert judged.knob == "set service.max_in_flight=1500 for up to 500 requests/s"


def test_the_channel_that_bounds_the_door_is_the_one_to_turn() -> None:
    judged = verdict(replace(QUIET, rejected={"overloaded": 5}, limit="op.net.channel_size"), PLAN)
    assert (judged.op, judged.knob) == ("net", "set op.net.channel_size=1024 for up to 100 requests/s")


def test_waiting_for_a_fuller_batch_is_named() -> None:
    made = Graph("g", Net(Request(), max_delay_ms=20))
    laid_out: Plan = plan(made, merge("g", {op.name: op.code_settings for op in made.ops}))
    ops = (OpFigures("net", count=10, in_ms=19.0, midp_ms=4.0),)
    judged = verdict(replace(QUIET, ops=ops), laid_out)
    assert (judged.kind, judged.knob) == ("queue-bound", "set op.net.max_delay_ms=0")


def test_a_wait_of_microseconds_is_no_bottleneck() -> None:
    ops = tuple(replace(op, in_ms=0.005, prep_ms=0.001, midp_ms=0.0) for op in QUIET.ops)
    quick = replace(QUIET, ops=ops, latency=Latency(1000, 0.009, {}))
    assert not verdict(quick, PLAN).limits
    slow = replace(QUIET, ops=tuple(replace(op, in_ms=6.0) for op in ops))
    assert verdict(slow, PLAN).kind == "queue-bound"


def test_requests_that_all_fail_before_an_op_name_none() -> None:
    ops = tuple(OpFigures(op.name) for op in QUIET.ops)
    judged = verdict(replace(QUIET, ops=ops, outcomes={"bad_request": 5}, in_flight=0), PLAN)
    assert str(judged) == "bottleneck: none: every request failed before it reached an op"
