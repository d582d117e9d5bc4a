"""Pipelines of Paddle's Ops: joins, edges that skip levels, batches, skips, mini-batches, limits."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from asyncline import Engine, GraphError, LoadError
from asyncline.paddle import Op, PipelineServer, RequestOp, ResponseOp

from .pipelines import ask, entry, prepared, refused, request, running


class Append(Op):
    """Its name behind every value, of one input or several."""

    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        joined = "+".join(f"{name}={data['x']}" for name, data in sorted(input_dicts.items()))
        return {"x": f"[{joined}]"}, False, None, ""


async def test_several_inputs_come_by_the_names_of_their_ops() -> None:
    read = entry()
    both = Append("both", [Append("a", read), Append("b", [read])])
    async with running(both) as engine:
        assert await ask(engine, x="1") == {"x": "[a=[@DAGExecutor=1]+b=[@DAGExecutor=1]]"}


async def test_an_edge_may_skip_levels() -> None:
    read = entry()
    first = Append("a", read)
    last = Append("d", [Append("b", first), first, read])
    async with running(last) as engine:
        assert await ask(engine, x="1") == {"x": "[@DAGExecutor=1+a=[@DAGExecutor=1]+b=[a=[@DAGExecutor=1]]]"}


class Spoils(Op):
    """Changes what it got in place, once the other branch is there too."""

    meet = threading.Barrier(2, timeout=5)

    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        data = input_dicts["source"]
        before = str(data["y"].tolist())
        self.meet.wait()
        data["y"] += 1
        self.meet.wait()
        return {"x": f"{before} {data['y'].tolist()}"}, False, None, ""


class Source(Op):
    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        return {"y": np.zeros(1)}, False, None, ""


async def test_branches_do_not_see_what_others_do_to_their_input() -> None:
    source = Source("source", entry())
    async with running(Append("both", [Spoils("a", source), Spoils("b", source)])) as engine:
        assert await ask(engine, x="1") == {"x": "[a=[0.0] [1.0]+b=[0.0] [1.0]]"}


async def test_names_may_have_any_sign() -> None:
    last = Append("2-nd.op", Append("2_nd_op", entry()))
    async with running(last) as engine:
        assert await ask(engine, x="1") == {"x": "[2_nd_op=[@DAGExecutor=1]]"}


async def test_an_op_without_preprocess_refuses_several_inputs() -> None:
    read = entry()
    async with running(Op("both", [Append("a", read), Append("b", read)])) as engine:
        err_no, message = await refused(engine, x="1")
    assert (err_no, "both has 2 input_ops: override preprocess" in message) == (10000, True)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Append("a"), "op 'a' has no input_ops"),
        (lambda: Append("a", [entry(), entry()]), "one RequestOp, got 2"),
        (lambda: entry(), "an Op between its RequestOp and its ResponseOp"),
        (lambda: Append("a", Append("a", entry())), "two Ops are named 'a'"),
    ],
)
def test_a_pipeline_that_cannot_run_is_refused_by_name(make: Any, words: str) -> None:
    with pytest.raises(GraphError, match=words):
        prepared(make())


def test_a_cycle_is_refused_by_name() -> None:
    first = Append("a", entry())
    second = Append("b", first)
    first.set_input_ops([entry(), second])
    with pytest.raises(GraphError, match="a cycle through op 'b'"):
        prepared(second)


@pytest.mark.parametrize("argument", ["input_ops", "jump_to_ops"])
def test_neighbours_have_to_be_ops(argument: str) -> None:
    with pytest.raises(GraphError, match=f"op 'a': {argument}: expected Ops, got 5"):
        Append("a", **{argument: [5]})  # type: ignore[arg-type]


def test_a_response_op_has_one_input() -> None:
    read = entry()
    with pytest.raises(GraphError, match="exactly one Op"):
        PipelineServer().set_response_op(ResponseOp([Append("a", read), Append("b", read)]))
    with pytest.raises(GraphError, match="expected a ResponseOp"):
        PipelineServer().set_response_op(Append("a", read))  # type: ignore[arg-type]


# -- process


class Double(Op):
    """Says how many rows it ran, and refuses negative numbers."""

    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        words = input_dicts["@DAGExecutor"]["x"].split()
        if words == ["skip"]:
            return {"y": np.array([-1.0]), "rows": np.array([0])}, True, None, ""
        if words[0] == "each":
            return [{"x": np.array([float(word)])} for word in words[1:]], False, None, ""
        return {"x": np.array([float(word) for word in words])}, False, None, ""

    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        (feed,) = feed_batch
        if (feed["x"] < 0).any():
            return None, 5000, "negative"
        return {"y": feed["x"] * 2, "rows": np.full(len(feed["x"]), len(feed["x"]))}, 0, ""

    def postprocess(self, input_data: Any, fetch_data: Any, data_id: int, log_id: int) -> Any:
        if isinstance(fetch_data, list):
            return {"y": str([each["y"].tolist() for each in fetch_data]), "rows": "list"}, None, ""
        return {"y": str(fetch_data["y"].tolist()), "rows": str(fetch_data["rows"].tolist())}, None, ""


class Hold(Double):
    """The first batch waits until the test lets it go on, so that what comes meanwhile makes the second."""

    gate = threading.Event()
    began = threading.Event()

    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        self.began.set()
        self.gate.wait(5)
        return super().process(feed_batch, typical_logid)


async def behind_a_held_one(engine: Engine, *values: str) -> list[Any]:
    """Outcomes of requests that wait together for a model that is busy."""
    Hold.gate.clear()
    Hold.began.clear()
    first = asyncio.create_task(ask(engine, x="100"))
    await asyncio.to_thread(Hold.began.wait, 5)
    rest = [asyncio.create_task(ask(engine, x=value)) for value in values]
    processing = engine.runners[-1].processing
    assert processing is not None
    while processing.batcher.count < len(values):  # noqa: ASYNC110  # nobody tells when a sample has come to wait
        await asyncio.sleep(0)
    Hold.gate.set()
    assert (await first)["y"] == "[200.0]"
    return await asyncio.gather(*rest, return_exceptions=True)


async def test_requests_share_a_batch_and_each_gets_its_rows() -> None:
    async with running(Hold("op", entry()), op={"op": {"batch_size": 8, "concurrency": 1}}) as engine:
        found = await behind_a_held_one(engine, "1 2", "3", "4 5 6")
    assert [each["y"] for each in found] == ["[2.0, 4.0]", "[6.0]", "[8.0, 10.0, 12.0]"]
    assert [each["rows"] for each in found] == ["[6, 6]", "[6]", "[6, 6, 6]"]


async def test_one_bad_request_of_a_batch_fails_alone() -> None:
    async with running(Hold("op", entry()), op={"op": {"batch_size": 8}}) as engine:
        found = await behind_a_held_one(engine, "1", "-3", "4")
    assert [each["y"] for each in (found[0], found[2])] == ["[2.0]", "[8.0]"]
    assert found[1].err_no == 5000


async def test_a_skip_gives_the_data_to_postprocess() -> None:
    async with running(Double("op", entry())) as engine:
        assert await ask(engine, x="skip") == {"y": "[-1.0]", "rows": "[0]"}


async def test_a_mini_batch_is_processed_one_by_one_and_gathered_in_order() -> None:
    async with running(Double("op", entry())) as engine:
        assert await ask(engine, x="each 3 1 2") == {"y": "[[6.0], [2.0], [4.0]]", "rows": "list"}


async def test_a_mini_batch_of_nothing_skips_process() -> None:
    async with running(Double("op", entry())) as engine:
        assert await ask(engine, x="each") == {"y": "[]", "rows": "list"}


async def test_one_bad_element_fails_its_mini_batch() -> None:
    async with running(Double("op", entry())) as engine:
        assert (await refused(engine, x="each 1 -1 2"))[0] == 5000


class Sleeps(Double):
    """Does not come back until the test ends."""

    gate = threading.Event()

    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        self.gate.wait(5)
        return super().process(feed_batch, typical_logid)


async def test_a_timeout_of_an_op_is_6000() -> None:
    Sleeps.gate.clear()
    async with running(Sleeps("op", entry()), op={"op": {"timeout": 20}}) as engine:
        assert (await refused(engine, x="1"))[0] == 6000
        Sleeps.gate.set()


class Fails(Double):
    """Raises as often as it is told to."""

    left = 0

    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        if type(self).left:
            type(self).left -= 1
            raise OSError("not now")
        return super().process(feed_batch, typical_logid)


async def test_process_is_tried_as_often_as_retry_says() -> None:
    async with running(Fails("op", entry()), op={"op": {"retry": 3}}) as engine:
        Fails.left = 2
        assert (await ask(engine, x="1"))["y"] == "[2.0]"
        Fails.left = 3
        assert (await refused(engine, x="1"))[0] == 10000


async def test_an_init_op_that_raises_stops_the_start_and_names_the_op() -> None:
    class Broken(Op):
        def init_op(self) -> None:
            raise ValueError("no vocabulary")

    server = prepared(Broken("words", entry()))
    with pytest.raises(LoadError, match="op 'words' init_op: ValueError: no vocabulary"):
        async with Engine(server.graph, server.settings):
            pass


async def test_a_payload_of_another_kind_is_refused() -> None:
    async with running(Append("a", entry())) as engine:
        with pytest.raises(Exception, match="expected a request of Paddle's"):
            await engine.submit({"x": "1"})


async def test_a_close_with_requests_in_flight_ends_them() -> None:
    Hold.gate.clear()
    Hold.began.clear()
    async with running(Hold("op", entry())) as engine:
        asking = asyncio.create_task(engine.submit(request(x="1")))
        await asyncio.to_thread(Hold.began.wait, 5)
        assert not await engine.close(drain_s=0)
        Hold.gate.set()
        with pytest.raises(Exception, match="stopping"):
            await asking


# -- process lane


class Placed(Op):
    """In a worker process: says which, and keeps a request's state between hooks."""

    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        self.kept = input_dicts["@DAGExecutor"]["x"]
        return {"y": np.arange(3)}, False, None, ""

    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        self.sum = int(feed_batch[0]["y"].sum())
        return feed_batch[0], 0, ""

    def postprocess(self, input_data: Any, fetch_data: Any, data_id: int, log_id: int) -> Any:
        where = threading.current_thread().name
        values = {"kept": self.kept, "sum": str(self.sum), "x": input_data["@DAGExecutor"]["x"]}
        return {**values, "place": str(self.concurrency_idx), "thread": where}, None, ""


async def test_hooks_run_in_worker_processes_where_ops_are_no_threads() -> None:
    async with running(Placed("op", entry()), dag={"is_thread_op": False}) as engine:
        found = await ask(engine, x="5")
    assert found.pop("thread") == "MainThread"
    assert found.pop("place") in {"0", "1", "2", "3"}
    assert found == {"kept": "5", "sum": "3", "x": "5"}


async def test_hooks_in_threads_have_no_place() -> None:
    async with running(Placed("op", entry())) as engine:
        assert (await ask(engine, x="5"))["place"] == "None"


def test_an_op_that_no_worker_can_import_stays_in_threads(caplog: pytest.LogCaptureFixture) -> None:
    class Local(Append):
        pass

    server = prepared(Local("op", entry()), dag={"is_thread_op": False})
    assert server.graph["op"].settings.cpu == "thread"
    assert "op 'op': its hooks run in threads" in caplog.text


def test_a_request_op_is_not_shared_by_name() -> None:
    assert RequestOp().name == "@DAGExecutor"
