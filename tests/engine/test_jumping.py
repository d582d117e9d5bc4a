"""Ops that jump: loops, parts that are left out, and what becomes of times, deadlines and cancels there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from asyncline import DeadlineExceeded, Engine, Graph, Observer, Op, OpError, Request
from asyncline.engine.item import TOTAL, Item
from asyncline.graph.plan import Node
from asyncline.graph.request import Input
from asyncline.settings import Source, merge
from asyncline.testing import run_virtual, virtual_engine


class Step(Op):
    """Notes its name behind what it gets; jumps while the notes are short."""

    cpu = "inline"

    def __init__(self, *inputs: Input, until: int = 0, **settings: Any) -> None:
        super().__init__(*inputs, **settings)
        self.until = until

    def preprocess(self, *notes: str) -> str:
        return f"{notes[0] if len(notes) == 1 else '(' + '|'.join(notes) + ')'}{self.name}"

    def jumps(self, result: str) -> bool:
        return len(result) < self.until and "!" not in result


class Threaded(Step):
    """With a `process` in between."""

    cpu = "thread"

    def process(self, batch: list[str]) -> list[str]:
        return batch

    def postprocess(self, result: str, *notes: str) -> str:
        return result


def wired(wiring: str, jumps: dict[str, tuple[str, int]], kind: Callable[..., Op] = Step) -> Graph:
    """Of `a: request; b: a`, and who jumps where until how many characters are there."""
    made: dict[str, Any] = {"request": Request()}
    for line in wiring.split(";"):
        name, _, inputs = line.partition(":")
        name = name.strip()
        made[name] = kind(*(made[each] for each in inputs.split()), name=name, until=jumps.get(name, ("", 0))[1])
    for name, (target, _) in jumps.items():
        made[name].jumps_to = made[target]
    return Graph("test", list(made.values())[-1])


CASES = [
    ("a: request; b: a", {"b": ("a", 5)}, "abbbb"),
    ("a: request; b: a; c: b", {"b": ("request", 6)}, "abababc"),
    ("a: request; b: a; c: a; d: b c; e: d", {"d": ("a", 20)}, "((ab|ac)db|(ab|ac)dc)de"),
    ("x: request; a: request; b: a x; c: b; d: c x", {"c": ("a", 8)}, "(((a|x)bc|x)bc|x)d"),
    ("a: request; b: a; c: b; d: c", {"a": ("c", 5)}, "ad"),
    ("a: request; b: a; c: b", {"a": ("c", 5)}, "a"),
    ("a: request; b: a; c: a; d: b c; e: d", {"a": ("d", 5)}, "ae"),
    # Left out at first, and the second time not.
    ("a: request; b: a; c: b; d: c; e: d", {"b": ("c", 3), "d": ("a", 6)}, "abdbcde"),
]


@pytest.mark.parametrize("kind", [Step, Threaded])
@pytest.mark.parametrize("wiring, jumps, answer", CASES)
async def test_a_result_goes_where_its_op_jumps(
    wiring: str, jumps: dict[str, tuple[str, int]], answer: str, kind: type[Step]
) -> None:
    async with Engine(wired(wiring, jumps, kind)) as engine:
        assert await engine.submit("") == answer
        assert await asyncio.gather(*(engine.submit("") for _ in range(20))) == [answer] * 20
        assert not engine.jumped


async def test_a_loop_without_end_ends_by_its_deadline_and_leaves_the_others_their_turn() -> None:
    async with Engine(wired("a: request; b: a", {"b": ("a", 10**9)})) as engine:
        forever = asyncio.create_task(engine.submit("", timeout=0.05))
        await asyncio.sleep(0)
        assert await engine.submit("!") == "!ab"
        with pytest.raises(DeadlineExceeded):
            await forever
        assert not engine.jumped


async def test_a_cancelled_loop_goes_no_further() -> None:
    class Counts(Step):
        rounds = 0

        def jumps(self, result: str) -> bool:
            Counts.rounds += 1
            if Counts.rounds == 3:
                asking.cancel()
            return True

    first = Step(Request(), name="a")
    last = Counts(first, name="b")
    last.jumps_to = first
    async with Engine(Graph("test", last)) as engine:
        asking = asyncio.create_task(engine.submit(""))
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (engine.admission.in_flight, engine.jumped) == (0, {})
        assert Counts.rounds <= 4


async def test_a_hook_that_cannot_say_whether_it_jumps_fails_its_request() -> None:
    class Broken(Step):
        def jumps(self, result: str) -> bool:
            raise KeyError("score")

    first = Step(Request(), name="a")
    last = Broken(first, name="b")
    last.jumps_to = first
    async with Engine(Graph("test", last)) as engine:
        with pytest.raises(OpError, match="op 'b' jumps: KeyError: 'score'"):
            await engine.submit("")


class Times(Observer):
    def __init__(self) -> None:
        self.done: list[str] = []
        self.times: list[float] = []

    def op_done(self, node: Node, item: Item) -> None:
        self.done.append(node.name)

    def item_done(self, item: Item) -> None:
        self.times = item.times


def test_the_times_of_all_rounds_are_added_up() -> None:
    class Slow(Step):
        async def preprocess(self, note: str) -> str:  # type: ignore[override]
            await asyncio.sleep(2)
            return f"{note}{self.name}"

    first = Slow(Request(), name="a")
    last = Slow(first, name="b", until=4)
    last.jumps_to = first
    watching = Times()

    async def main() -> dict[tuple[str, str], int]:
        async with virtual_engine(Graph("test", last), observers=[watching]) as engine:
            await engine.submit("")
            return engine.plan.time_slots

    slots = run_virtual(main())
    assert [watching.times[slots[name, "pre"]] for name in "ab"] == pytest.approx([2, 6], abs=0.01)
    assert watching.times[TOTAL] == pytest.approx(8, abs=0.01)
    assert watching.done == ["a", "b", "b", "b"]


async def test_a_round_that_waits_when_its_deadline_passes_is_counted_with_those_before() -> None:
    class Stuck(Step):
        async def preprocess(self, note: str) -> str:  # type: ignore[override]
            if len(note) > 2:
                await asyncio.Event().wait()
            return f"{note}{self.name}"

    first = Step(Request(), name="a")
    last = Stuck(first, name="b", until=9)
    last.jumps_to = first
    watching = Times()
    settings = merge("test", {"a": {}, "b": {}}, Source("test", {}))
    async with Engine(Graph("test", last), settings, observers=[watching]) as engine:
        with pytest.raises(DeadlineExceeded, match="in op 'b'"):
            await engine.submit("", timeout=0.05)
    assert watching.done == ["a", "b", "b"]
    assert all(seconds >= 0 for seconds in watching.times)
