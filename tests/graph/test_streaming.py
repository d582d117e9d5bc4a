"""Which Ops may be async generators, and what is said of those that may not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from asyncline import Graph, GraphError, Op, Request, op
from asyncline.graph.plan import plan
from asyncline.settings import merge


class Count(Op):
    async def preprocess(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i


@op(cpu="inline")
def same(value: Any) -> Any:
    return value


def test_an_async_generator_as_last_hook_streams() -> None:
    graph = Graph("test", Count(same(Request())))
    assert graph.streams
    laid_out = plan(graph, merge("test", {o.name: {} for o in graph.ops}))
    assert laid_out.streams
    assert [node.stream_hook for node in laid_out.nodes] == [None, "preprocess"]
    assert laid_out.nodes[1].lanes == {"preprocess": "loop"}


def test_a_graph_without_one_does_not() -> None:
    assert not Graph("test", same(Request())).streams


def test_a_function_may_stream() -> None:
    @op()
    async def count(n: int) -> AsyncIterator[int]:
        yield n

    assert Graph("test", count(Request())).streams


def test_the_one_output_may_have_a_name() -> None:
    assert Graph("test", numbers=Count(Request())).streams


def test_an_op_that_streams_feeds_no_other() -> None:
    with pytest.raises(GraphError, match="op 'count' streams its answer, but op 'same' takes its value"):
        Graph("test", same(Count(Request())))


def test_an_op_that_streams_is_the_only_output() -> None:
    request = Request()
    with pytest.raises(GraphError, match="op 'count' streams its answer, but graph 'test' has 2 outputs"):
        Graph("test", numbers=Count(request), value=same(request))


def test_preprocess_streams_only_where_it_is_the_last_hook() -> None:
    class Both(Count):
        def postprocess(self, result: Any, n: int) -> Any:
            return result

    with pytest.raises(GraphError, match="op 'both': preprocess is an async generator, but postprocess comes after it"):
        Both(Request())


def test_process_does_not_stream() -> None:
    class Batches(Op):
        async def process(self, batch: list[Any]) -> AsyncIterator[Any]:
            yield batch

    with pytest.raises(GraphError, match="op 'batches': process cannot be an async generator"):
        Batches(Request())


def test_init_op_does_not_stream() -> None:
    class Starts(Count):
        async def init_op(self) -> AsyncIterator[Any]:
            yield 1

    with pytest.raises(GraphError, match="op 'starts': init_op cannot be an async generator"):
        Starts(Request())


@pytest.mark.parametrize("hook", ["preprocess", "postprocess"])
def test_a_plain_generator_is_refused_with_the_cure(hook: str) -> None:
    def generator(self: Op, *values: Any) -> Iterator[Any]:
        yield values

    kind = type("Plain", (Op,), {hook: generator})
    with pytest.raises(GraphError, match=f"op 'plain': {hook} is a generator: to stream the answer write it as `async"):
        kind(Request())


def test_a_plain_generator_function_is_refused() -> None:
    def count(n: int) -> Iterator[int]:
        yield n

    with pytest.raises(GraphError, match="op 'count': preprocess is a generator"):
        op()(count)
