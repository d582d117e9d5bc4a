"""Which hooks run in one task, and what they hand each other there."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from asyncline import Graph, Op, Request, Text
from asyncline.graph.fusion import Chain
from asyncline.graph.plan import Plan, plan
from asyncline.settings import Source, merge

from .ops import Copy, Join, Model


class Around(Op):
    """Has no `process`."""

    def preprocess(self, value: Any) -> Any:
        return value

    def postprocess(self, result: Any, value: Any) -> Any:
        return result


class After(Op):
    def postprocess(self, result: Any, value: Any) -> Any:
        return result


class Full(Around):
    def process(self, batch: list[Any]) -> list[Any]:
        return batch


class AsyncModel(Around):
    async def process(self, batch: list[Any]) -> list[Any]:
        return batch


class AsyncAfter(Op):
    def preprocess(self, value: Any) -> Any:
        return value

    async def postprocess(self, result: Any, value: Any) -> Any:
        return result


class AsyncCopy(Op):
    async def preprocess(self, value: Any) -> Any:
        return value


class JoinAround(Op):
    def preprocess(self, left: Any, right: Any) -> Any:
        return left, right

    def postprocess(self, result: Any, left: Any, right: Any) -> Any:
        return result


def plan_of(graph: Graph, **sections: Any) -> Plan:
    return plan(graph, merge(graph.name, {o.name: o.code_settings for o in graph.ops}, Source("test", sections)))


def chains(laid_out: Plan) -> list[Chain]:
    return [chain for node in laid_out.nodes for chain in node.chains.values()]


def tasks(graph: Graph, **sections: Any) -> list[str]:
    """The fused tasks of a graph: `a.preprocess b.preprocess`."""
    return sorted(
        " ".join(f"{step.op}.{step.hook}" for step in chain.steps) for chain in chains(plan_of(graph, **sections))
    )


def chain_of(graph: Graph) -> Chain:
    """The only fused task of a graph."""
    (chain,) = chains(plan_of(graph))
    return chain


def frames(chain: Chain) -> list[tuple[int, ...]]:
    return [step.args for step in chain.steps]


def kept(chain: Chain) -> list[bool]:
    return [step.keeps for step in chain.steps]


# -- which


def test_the_hooks_of_an_op_without_process_are_one_task() -> None:
    assert tasks(Graph("g", Around(Request()))) == ["around.preprocess around.postprocess"]


def test_the_hooks_around_a_process_are_two() -> None:
    assert tasks(Graph("g", Full(Request()))) == []


def test_an_op_and_its_only_consumer_are_one_task() -> None:
    assert tasks(Graph("g", Copy(Copy(Request(), name="a"), name="b"))) == ["a.preprocess b.preprocess"]


def test_a_task_goes_from_one_model_to_the_next() -> None:
    value = Around(Full(Copy(Request(), name="in"), name="first"), name="between")
    assert tasks(Graph("g", Full(value, name="second"))) == [
        "first.postprocess between.preprocess between.postprocess second.preprocess",
        "in.preprocess first.preprocess",
    ]


def test_an_op_of_only_a_postprocess_begins_a_task() -> None:
    assert tasks(Graph("g", Copy(After(Request())))) == ["after.postprocess copy.preprocess"]


def test_a_result_of_process_itself_begins_no_task() -> None:
    assert tasks(Graph("g", Copy(Model(Request())))) == []


def test_an_op_without_preprocess_joins_no_task() -> None:
    assert tasks(Graph("g", Model(Copy(Request())))) == []
    assert tasks(Graph("g", After(Copy(Request())))) == []


def test_an_async_process_makes_no_difference() -> None:
    assert tasks(Graph("g", AsyncModel(Copy(Request())))) == ["copy.preprocess async_model.preprocess"]


def test_async_hooks_are_in_no_task() -> None:
    assert tasks(Graph("g", AsyncCopy(Copy(Request())))) == []
    assert tasks(Graph("g", Copy(AsyncCopy(Request())))) == []
    assert tasks(Graph("g", AsyncAfter(Request()))) == []


@pytest.mark.parametrize(("left", "right", "fused"), [
    ("process", "process", True), ("thread", "thread", True), ("inline", "inline", False),
    ("process", "thread", False), ("thread", "process", False), ("inline", "thread", False),
])  # fmt: skip
def test_a_task_is_of_one_lane_and_hooks_on_the_loop_need_none(left: str, right: str, fused: bool) -> None:
    graph = Graph("g", Copy(Copy(Request(), name="a", cpu=left), name="b", cpu=right))
    assert bool(tasks(graph)) is fused


def test_a_fan_out_ends_a_task() -> None:
    top = Copy(Request(), name="top")
    assert tasks(Graph("g", Join(Copy(top, name="left", cpu="inline"), Copy(top, name="right")))) == []


def test_an_op_that_takes_a_value_twice_is_still_its_only_consumer() -> None:
    copy = Copy(Request())
    chain = chain_of(Graph("g", Join(copy, copy)))
    assert frames(chain) == [(0,), (1, 1)]


def test_a_join_of_two_branches_begins_when_both_are_there() -> None:
    request = Request()
    assert tasks(Graph("g", Join(Copy(request, name="left"), Copy(request, name="right")))) == []


def test_a_join_with_an_ancestor_need_not_wait() -> None:
    ancestor = AsyncCopy(Request())
    assert tasks(Graph("g", Join(ancestor, Copy(ancestor)))) == ["copy.preprocess join.preprocess"]


def test_an_ancestor_may_be_far_away() -> None:
    far = AsyncCopy(Request(), name="far")
    assert tasks(Graph("g", Join(Copy(AsyncCopy(far)), far))) == ["copy.preprocess join.preprocess"]


def test_a_join_with_a_field_need_not_wait() -> None:
    request = Request(text=Text(), word=Text())
    assert tasks(Graph("g", Join(Copy(request.text), request.word))) == ["copy.preprocess join.preprocess"]


def test_a_join_with_an_ancestor_of_a_later_step_only_is_not_begun_before_it_is_there() -> None:
    request = Request()
    other = AsyncCopy(request, name="other")
    middle = Join(Copy(request, name="first"), other, name="middle")
    assert tasks(Graph("g", Join(middle, other, name="last"))) == ["middle.preprocess last.preprocess"]


@pytest.mark.parametrize("name", ["a", "b"])
def test_an_op_with_a_timeout_of_its_own_shares_no_task_with_another(name: str) -> None:
    graph = Graph("g", Copy(Copy(Request(), name="a"), name="b"))
    assert tasks(graph, op={name: {"timeout_ms": 5}}) == []


def test_a_timeout_holds_for_both_hooks_of_an_op_so_they_are_one_task() -> None:
    assert tasks(Graph("g", Around(Request(), timeout_ms=5))) == ["around.preprocess around.postprocess"]


@pytest.mark.parametrize("name", ["a", "b"])
def test_an_op_whose_concurrency_bounds_its_hooks_shares_no_task_with_another(name: str) -> None:
    graph = Graph("g", Copy(Copy(Request(), name="a"), name="b"))
    assert tasks(graph, op={name: {"concurrency": 2}}) == []


def test_the_number_of_replicas_is_no_bound_on_hooks() -> None:
    graph = Graph("g", Copy(Full(Copy(Request(), name="a"), concurrency=2), name="b"))
    assert tasks(graph) == ["a.preprocess full.preprocess", "full.postprocess b.preprocess"]


def test_the_setting_switches_it_off() -> None:
    graph = Graph("g", Copy(Copy(Request(), name="a"), name="b"))
    assert tasks(graph, dag={"fuse": False}) == []
    assert tasks(graph, dag={"fuse": True}) == ["a.preprocess b.preprocess"]


def test_every_hook_is_in_one_task_at_most() -> None:
    value: Any = Request()
    for place in range(6):
        value = (Copy, Around, Full)[place % 3](value, name=f"op_{place}")
    laid_out = plan_of(Graph("g", value))
    steps = [(step.index, step.hook) for chain in chains(laid_out) for step in chain.steps]
    assert len(steps) == len(set(steps)) == 9
    assert laid_out.fused == {
        (step.index, step.hook): (chain.steps[0].index, chain.steps[0].hook)
        for chain in chains(laid_out)
        for step in chain.steps[1:]
    }


# -- what they hand each other


def test_a_postprocess_gets_the_result_and_the_inputs_once_more() -> None:
    request = Request(left=Text(), right=Text())
    assert frames(chain_of(Graph("g", JoinAround(request.left, request.right)))) == [(0, 1), (2, 0, 1)]


def test_a_task_that_begins_with_a_postprocess_has_the_result_first_in_its_frame() -> None:
    full = Full(Request(), cpu="thread")
    assert frames(chain_of(Graph("g", Around(full, cpu="thread")))) == [(0, 1), (2,), (3, 2)]


def test_values_that_only_later_steps_take_lie_behind_the_arguments() -> None:
    request = Request(text=Text(), word=Text())
    chain = chain_of(Graph("g", JoinAround(request.word, Copy(request.text))))
    assert chain.extra_slots == (1,)
    assert frames(chain) == [(0,), (1, 2), (3, 1, 2)]


def test_an_input_of_the_first_hook_is_not_handed_in_again() -> None:
    request = Request()
    chain = chain_of(Graph("g", Join(request, Copy(request))))
    assert chain.extra_slots == ()
    assert frames(chain) == [(0,), (0, 1)]


# -- what is kept


def test_only_the_last_value_leaves_a_task_where_nobody_needs_the_others() -> None:
    value = Around(Copy(Request(), name="a"), name="b")
    assert kept(chain_of(Graph("g", Copy(value, name="c")))) == [False, False, False, True]


def test_a_value_that_is_an_output_is_kept() -> None:
    first = Copy(Request(), name="a")
    second = Copy(first, name="b")
    assert kept(chain_of(Graph("g", a=first, b=second))) == [True, True]


def test_a_value_that_a_postprocess_after_the_model_gets_once_more_is_kept() -> None:
    assert kept(chain_of(Graph("g", Full(Copy(Request()))))) == [True, True]
    assert kept(chain_of(Graph("g", AsyncAfter(Copy(Request()))))) == [True, True]


def test_a_model_without_postprocess_needs_its_input_once() -> None:
    class Before(Model):
        def preprocess(self, value: Any) -> Any:
            return value

    assert kept(chain_of(Graph("g", Before(Copy(Request()))))) == [False, True]


def test_a_chain_says_for_whose_process_it_prepares() -> None:
    assert chain_of(Graph("g", Full(Copy(Request())))).feeds == 1
    assert chain_of(Graph("g", Copy(Copy(Request(), name="a"), name="b"))).feeds is None
    assert chain_of(Graph("g", Around(Request()))).feeds is None


def test_a_chain_crosses_to_a_worker() -> None:
    chain = chain_of(Graph("g", Around(Request())))
    assert pickle.loads(pickle.dumps(chain)) == chain


def test_a_long_graph_is_fused_at_once() -> None:
    value: Any = Request()
    for place in range(2000):
        value = Copy(value, name=f"op_{place}")
    assert len(chain_of(Graph("g", value)).steps) == 2000
