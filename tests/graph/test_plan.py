"""Plan: slots, edges, lanes and the door of a Graph with its settings in force."""

from __future__ import annotations

from typing import Any

import pytest

from asyncline import Graph, GraphError, Op, Request, Text, op
from asyncline.graph.plan import Plan, plan
from asyncline.settings import Settings, Source, merge

from .ops import Copy, Join, Model


class Full(Op):
    """Has all three hooks."""

    def preprocess(self, value: Any) -> Any:
        return value

    def process(self, batch: list[Any]) -> list[Any]:
        return batch

    def postprocess(self, result: Any, value: Any) -> Any:
        return result


class Async(Op):
    async def preprocess(self, value: Any) -> Any:
        return value

    async def process(self, batch: list[Any]) -> list[Any]:
        return batch

    async def postprocess(self, result: Any, value: Any) -> Any:
        return result


def settings_of(graph: Graph, **sections: Any) -> Settings:
    return merge(graph.name, {op.name: op.code_settings for op in graph.ops}, Source("test", sections))


def plan_of(graph: Graph, **sections: Any) -> Plan:
    return plan(graph, settings_of(graph, **sections))


def test_values_lie_in_slots_first_the_fields_then_the_ops() -> None:
    request = Request(left=Text(), right=Text())
    first = Copy(request.right, name="first")
    laid_out = plan_of(Graph("g", Join(first, request.left, name="second")))
    assert [node.slot for node in laid_out.nodes] == [2, 3]
    assert [node.input_slots for node in laid_out.nodes] == [(1,), (2, 0)]
    assert laid_out.outputs == ((None, 3),)


def test_a_bare_request_has_one_slot() -> None:
    laid_out = plan_of(Graph("g", Copy(Request())))
    assert laid_out.nodes[0].input_slots == (0,)
    assert laid_out.nodes[0].slot == 1


def test_an_op_waits_for_the_ops_it_takes_and_not_for_fields() -> None:
    request = Request(text=Text())
    first = Copy(request.text, name="first")
    laid_out = plan_of(Graph("g", Join(first, request.text, name="second")))
    assert [node.waits_for for node in laid_out.nodes] == [0, 1]
    assert laid_out.entry == (0,)


def test_an_op_taken_twice_counts_as_two_edges() -> None:
    shared = Copy(Request(), name="shared")
    laid_out = plan_of(Graph("g", Join(shared, shared)))
    assert laid_out.nodes[0].consumers == (1, 1)
    assert laid_out.nodes[1].waits_for == 2
    assert laid_out.nodes[1].input_slots == (1, 1)


def test_a_fan_out_lists_every_consumer() -> None:
    top = Copy(Request(), name="top")
    left, right = Copy(top, name="left"), Copy(top, name="right")
    laid_out = plan_of(Graph("g", Join(left, right)))
    nodes = {node.name: node for node in laid_out.nodes}
    assert {laid_out.nodes[n].name for n in nodes["top"].consumers} == {"left", "right"}
    assert [laid_out.nodes[n].name for n in nodes["left"].consumers] == ["join"]
    assert nodes["join"].consumers == ()


def test_several_ops_may_start_at_once() -> None:
    request = Request()
    left, right = Copy(request, name="left"), Copy(request, name="right")
    assert len(plan_of(Graph("g", Join(left, right))).entry) == 2


def test_outputs_are_marked_and_named() -> None:
    request = Request(text=Text())
    a = Copy(request.text, name="a")
    b = Copy(a, name="b")
    laid_out = plan_of(Graph("g", first=a, second=b, question=request.text))
    assert laid_out.outputs == (("first", 1), ("second", 2), ("question", 0))
    assert [node.output for node in laid_out.nodes] == [True, True]
    assert [node.output for node in plan_of(Graph("g", b)).nodes] == [False, True]


@pytest.mark.parametrize("cpu", ["process", "thread", "inline"])
def test_pre_and_postprocess_run_where_cpu_says_and_process_on_its_device(cpu: str) -> None:
    laid_out = plan_of(Graph("g", Full(Request(), cpu=cpu)))
    assert laid_out.nodes[0].lanes == {"preprocess": cpu, "process": "device", "postprocess": cpu}


@pytest.mark.parametrize("cpu", ["process", "thread", "inline"])
def test_async_hooks_run_on_the_loop_whatever_cpu_says(cpu: str) -> None:
    laid_out = plan_of(Graph("g", Async(Request(), cpu=cpu)))
    assert laid_out.nodes[0].lanes == dict.fromkeys(("preprocess", "process", "postprocess"), "loop")


def test_the_cpu_setting_of_a_file_moves_the_hooks() -> None:
    laid_out = plan_of(Graph("g", Full(Request())), op={"full": {"cpu": "inline"}})
    assert laid_out.nodes[0].lane("preprocess") == "inline"


def test_an_absent_hook_has_no_lane() -> None:
    node = plan_of(Graph("g", Model(Request()))).nodes[0]
    assert node.lanes == {"process": "device"}
    assert node.lane("preprocess") is None


def test_a_function_may_be_an_async_op() -> None:
    @op(cpu="process")
    async def download(address: str) -> str:
        return address

    assert plan_of(Graph("g", download(Request()))).nodes[0].lanes == {"preprocess": "loop"}


def test_times_have_a_place_for_the_stages_that_an_op_has() -> None:
    first = Full(Request())
    laid_out = plan_of(Graph("g", Model(first)))
    assert laid_out.time_slots == {
        ("full", "wait"): 0,
        ("full", "pre"): 1,
        ("full", "mid"): 2,
        ("full", "post"): 3,
        ("full", "out"): 4,
        ("model", "wait"): 5,
        ("model", "mid"): 6,
        ("model", "out"): 7,
    }
    assert laid_out.stage_slots == (
        {"wait": 0, "pre": 1, "mid": 2, "post": 3, "out": 4},
        {"wait": 5, "mid": 6, "out": 7},
    )


def test_a_channel_has_the_size_of_the_dag_or_of_the_op() -> None:
    first = Copy(Request(), name="first")
    graph = Graph("g", Copy(first, name="second"))
    laid_out = plan_of(graph, dag={"channel_size": 7}, op={"second": {"channel_size": 3}})
    assert [node.channel_size for node in laid_out.nodes] == [7, 3]


@pytest.mark.parametrize(("asked", "channel", "door"), [(512, 1024, 512), (512, 100, 100), (1, 1024, 1), (9, 9, 9)])
def test_no_more_items_come_in_than_any_channel_holds(asked: int, channel: int, door: int) -> None:
    first = Copy(Request(), name="first")
    graph = Graph("g", Copy(first, name="second"))
    laid_out = plan_of(graph, service={"max_in_flight": asked}, op={"second": {"channel_size": channel}})
    assert laid_out.max_in_flight == door


def test_a_batch_size_of_a_file_without_process_names_the_op() -> None:
    with pytest.raises(GraphError, match="op 'copy': batch_size without `process`: only `process` takes batches"):
        plan_of(Graph("g", Copy(Request())), op={"copy": {"batch_size": 8}})


def test_a_plan_is_frozen() -> None:
    laid_out = plan_of(Graph("g", Copy(Request())))
    with pytest.raises(AttributeError):
        laid_out.entry = ()  # type: ignore[misc]  # that is the point
