"""Graph: wiring that works, and what a Graph that cannot run says."""

from __future__ import annotations

import pytest

from asyncline import Graph, GraphError, Op, Request, Response, Text
from asyncline.graph.graph import RESERVED

from .ops import Copy, Join, Model


def names(graph: Graph) -> list[str]:
    return [op.name for op in graph.ops]


def test_a_chain_runs_in_order() -> None:
    a = Copy(Request(), name="a")
    b = Copy(a, name="b")
    c = Copy(b, name="c")
    assert names(Graph("g", c)) == ["a", "b", "c"]


def test_every_op_comes_after_its_inputs_in_a_fan_out_that_joins_again() -> None:
    request = Request()
    top = Copy(request, name="top")
    left, right = Copy(top, name="left"), Copy(top, name="right")
    deep = Copy(left, name="deep")
    order = names(Graph("g", Join(deep, right, name="join")))
    assert sorted(order) == ["deep", "join", "left", "right", "top"]
    assert order[0] == "top"
    assert order[-1] == "join"
    assert order.index("left") < order.index("deep")


def test_an_edge_may_skip_levels() -> None:
    first = Copy(Request(), name="first")
    second = Copy(first, name="second")
    third = Join(second, first, name="third")
    fourth = Join(third, first, name="fourth")
    assert names(Graph("g", fourth)) == ["first", "second", "third", "fourth"]


def test_an_op_may_be_taken_twice_by_one_consumer() -> None:
    shared = Copy(Request(), name="shared")
    graph = Graph("g", Join(shared, shared, name="join"))
    assert names(graph) == ["shared", "join"]
    assert graph["join"].inputs == (shared, shared)


def test_an_op_may_take_a_field_and_an_op() -> None:
    request = Request(text=Text(), other=Text())
    graph = Graph("g", Join(Copy(request.text), request.other))
    assert names(graph) == ["copy", "join"]
    assert graph.request is request


def test_several_outputs_are_named() -> None:
    a = Copy(Request(), name="a")
    b = Copy(a, name="b")
    graph = Graph("g", first=a, second=b)
    assert graph.response.outputs == {"first": a, "second": b}
    assert graph.response.pack({"first": 1, "second": 2}) == {"first": 1, "second": 2}


def test_a_single_output_is_the_answer_itself() -> None:
    graph = Graph("g", Copy(Request()))
    assert graph.response.pack({None: 5}) == 5


def test_a_response_of_ones_own_packs_the_answer() -> None:
    class Count(Response):
        def pack(self, outputs: dict[str | None, object]) -> object:
            return len(outputs)

    a = Copy(Request(), name="a")
    graph = Graph("g", Count(one=a, two=Copy(a, name="b")))
    assert graph.response.pack({"one": 1, "two": 2}) == 2


def test_an_output_may_be_a_field_beside_an_op() -> None:
    request = Request(text=Text())
    graph = Graph("g", answer=Copy(request.text), question=request.text)
    assert names(graph) == ["copy"]


def test_an_op_is_found_by_name() -> None:
    op = Copy(Request())
    graph = Graph("g", op)
    assert graph["copy"] is op
    with pytest.raises(KeyError, match="other"):
        graph["other"]


def test_a_graph_shows_its_order() -> None:
    a = Copy(Request(), name="a")
    assert repr(Graph("ocr", Copy(a, name="b"))) == "<Graph 'ocr': a -> b>"


def test_an_op_made_and_thrown_away_is_no_part_of_the_graph() -> None:
    request = Request()
    Copy(request, name="thrown_away")
    assert names(Graph("g", Copy(request, name="kept"))) == ["kept"]


def test_a_deep_chain_needs_no_recursion() -> None:
    op: Op = Copy(Request(), name="op_0")
    for n in range(1, 3000):
        op = Copy(op, name=f"op_{n}")
    assert len(Graph("g", op).ops) == 3000


def test_a_cycle_names_its_ops_and_only_them() -> None:
    first = Copy(Request(), name="first")
    a = Join(first, first, name="a")
    b = Copy(a, name="b")
    after = Copy(b, name="after")
    a.inputs = (first, b)
    with pytest.raises(GraphError, match=r"graph 'g' has a cycle, .*: an Op cannot depend on its own result") as caught:
        Graph("g", after)
    message = str(caught.value)
    assert " a " in message
    assert " b " in message
    assert "first" not in message
    assert "after" not in message


def test_an_op_that_takes_itself_is_a_cycle() -> None:
    op = Copy(Request(), name="loop")
    op.inputs = (op,)
    with pytest.raises(GraphError, match="cycle, loop -> loop"):
        Graph("g", op)


def test_two_ops_of_one_name_are_refused() -> None:
    with pytest.raises(GraphError, match=r"two ops are named 'copy': give one of them another, name='...'"):
        Graph("g", Copy(Copy(Request())))


def test_an_op_that_no_output_needs_is_named() -> None:
    request = Request()
    unused = Copy(request, name="forgotten")
    with pytest.raises(GraphError, match=r"op 'forgotten' is wired to the request but no output needs it: .*'g'"):
        Graph("g", Copy(request, name="used"))
    assert unused.name == "forgotten"


def test_an_unused_op_behind_another_is_found_too() -> None:
    kept = Copy(Request(), name="kept")
    unused = Copy(kept, name="unused")
    with pytest.raises(GraphError, match="op 'unused'"):
        Graph("g", kept)
    assert unused.inputs == (kept,)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_name_of_a_route_is_refused(name: str) -> None:
    with pytest.raises(GraphError, match=f"graph '{name}': that name is a route of the server; choose another"):
        Graph(name, Copy(Request()))


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a.b", "ä", "-a", "_a", "a\n", "a?b", None, 3])
def test_a_name_that_is_no_path_is_refused(name: str) -> None:
    with pytest.raises(GraphError, match="a name has letters, digits, '_' and '-' only: it becomes a path"):
        Graph(name, Copy(Request()))


@pytest.mark.parametrize("name", ["ocr", "ocr-2", "my_graph", "2fast", "A"])
def test_a_name_may_have_letters_digits_and_signs(name: str) -> None:
    assert Graph(name, Copy(Request())).name == name


def test_a_graph_without_output_is_refused() -> None:
    with pytest.raises(GraphError, match=r"a graph needs an output: Graph\('name', last_op\)"):
        Graph("g")


def test_several_outputs_without_names_are_refused() -> None:
    a = Copy(Request(), name="a")
    with pytest.raises(GraphError, match="name the outputs where there are several"):
        Graph("g", a, Copy(a, name="b"))


def test_an_output_that_is_no_op_is_refused() -> None:
    with pytest.raises(GraphError, match="output 'texts': expected an Op, got 'nonsense'"):
        Graph("g", texts="nonsense")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(GraphError, match="output 1: expected an Op, got <class"):
        Graph("g", Copy)  # type: ignore[arg-type]  # that is the point


def test_a_graph_that_answers_with_its_request_only_is_refused() -> None:
    with pytest.raises(GraphError, match="graph 'g' has no Op: its output is the request itself"):
        Graph("g", Request(text=Text()).text)


def test_outputs_of_two_requests_are_refused() -> None:
    with pytest.raises(GraphError, match="graph 'g': its outputs come from different Requests"):
        Graph("g", a=Copy(Request(), name="a"), b=Copy(Request(), name="b"))


def test_a_whole_request_with_fields_is_no_output() -> None:
    request = Request(text=Text())
    with pytest.raises(GraphError, match=r"graph 'g' answers with the whole Request.*: take request\.field"):
        Graph("g", answer=Model(request.text), all=request)


def test_a_bare_request_may_be_an_output_beside_an_op() -> None:
    request = Request()
    assert Graph("g", answer=Copy(request), all=request).response.outputs["all"] is request
