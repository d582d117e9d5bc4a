"""Jumps: which are possible."""

from __future__ import annotations

from typing import Any

import pytest

from asyncline import Graph, GraphError, Op, Request
from asyncline.graph.plan import plan
from asyncline.settings import merge


class Step(Op):
    cpu = "inline"

    def preprocess(self, *values: Any) -> Any:
        return values

    def jumps(self, result: Any) -> bool:
        return False


def wired(wiring: str) -> dict[str, Any]:
    """Ops by name, of `a: request; b: a; c: a b`."""
    made: dict[str, Any] = {"request": Request()}
    for line in wiring.split(";"):
        name, _, inputs = line.partition(":")
        made[name.strip()] = Step(*(made[each] for each in inputs.split()), name=name.strip())
    return made


def graph_of(wiring: str, jumper: str, target: str, *outputs: str) -> Graph:
    made = wired(wiring)
    made[jumper].jumps_to = made[target]
    last = outputs or (list(made)[-1],)
    return Graph("test", **{name: made[name] for name in last})


@pytest.mark.parametrize(
    "wiring, jumper, target, again",
    [
        ("a: request; b: a", "b", "a", "b"),
        ("a: request; b: a", "b", "request", "a b"),
        ("a: request; b: a; c: b", "b", "a", "b c"),
        ("a: request; b: a; c: a; d: b c; e: d", "d", "a", "b c d e"),
        ("x: request; a: request; b: a x; c: b; d: c x a", "c", "a", "b c d"),
        ("a: request; b: a; c: b; d: c", "a", "c", ""),
        ("a: request; b: a; c: b", "a", "c", ""),
        ("a: request; b: a; c: a; d: b c; e: d", "a", "d", ""),
        ("x: request; a: request; b: a; c: b; d: c x", "a", "c", ""),
    ],
)
def test_a_jump_says_what_runs_again(wiring: str, jumper: str, target: str, again: str) -> None:
    graph = graph_of(wiring, jumper, target)
    assert {each.name for each in graph.jumps[graph[jumper]]} == set(again.split())


@pytest.mark.parametrize(
    "wiring, jumper, target, outputs, words",
    [
        ("a: request; b: a", "b", "b", (), "op 'b' cannot jump to 'b': it cannot jump to itself"),
        ("a: request; b: request; c: a b", "a", "b", (), "that one is neither before nor after it"),
        ("a: request; b: a; c: a; d: b c", "b", "a", (), "op 'c' runs beside it and would run again"),
        ("a: request; b: a; c: b", "b", "request", ("a", "c"), "'a' is an output, which would be there twice"),
        ("a: request; b: a; c: b", "c", "a", ("b", "c"), "'b' is an output, which would be there twice"),
        ("a: request; b: a; c: b", "c", "a", ("a", "c"), "'a' is an output, which would be there twice"),
        ("a: request; b: a; c: a; d: b c", "a", "b", (), "op 'c' would wait for it in vain"),
        ("a: request; b: a; c: b; d: c b", "a", "c", (), "op 'd' would wait for 'b' in vain"),
        ("a: request; b: a; c: b; d: c a", "a", "c", (), "op 'd' would wait for 'a' in vain"),
        ("a: request; b: a; c: b", "a", "c", ("a", "c"), "'a' is an output, which would not be there"),
        ("a: request; b: a; c: b", "a", "c", ("b", "c"), "'b' is an output, which would not be there"),
    ],
)
def test_a_jump_that_would_leave_an_op_waiting_is_refused(
    wiring: str, jumper: str, target: str, outputs: tuple[str, ...], words: str
) -> None:
    with pytest.raises(GraphError, match=f"op '{jumper}' cannot jump to '{target}': .*|{words}") as error:
        graph_of(wiring, jumper, target, *outputs)
    assert words in str(error.value)


def test_a_jump_to_an_op_of_no_output_is_refused() -> None:
    made = wired("a: request; b: a")
    made["b"].jumps_to = Step(Request(), name="z")
    with pytest.raises(GraphError, match="op 'b' cannot jump to 'z': no output needs that one"):
        Graph("test", made["b"])


def test_nothing_is_fused_where_an_op_jumps() -> None:
    class Thread(Step):
        cpu = "thread"

    first = Thread(Request(), name="first")
    last = Thread(first, name="last")
    assert plan(Graph("test", last), merge("test", {"first": {"cpu": "thread"}, "last": {"cpu": "thread"}})).fused
    last.jumps_to = first
    graph = Graph("test", last)
    assert not plan(graph, merge("test", {"first": {"cpu": "thread"}, "last": {"cpu": "thread"}})).fused
