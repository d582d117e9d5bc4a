"""jump_to_ops: loops, and Ops that are left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncline import DeadlineExceeded, GraphError
from asyncline.paddle import ChannelData, Op, ResponseOp

from .pipelines import ask, ask_all, entry, prepared, refused, request, running


class Append(Op):
    """The name of the Op that it gets something from, and its own."""

    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        joined = "+".join(f"{data['x']} {name}" for name, data in sorted(input_dicts.items()))
        return {"x": f"({joined})>{self.name}"}, False, None, ""


class While(Append):
    """Jumps until the text is long enough."""

    def check_jumping(self, input_data: dict[int, ChannelData]) -> bool:
        ((data_id, result),) = input_data.items()
        assert (data_id, result.error_code) == (result.id, 0)
        return len(result.parse()["x"]) < int(result.parse()["x"].strip("(").split()[0])


async def test_a_loop_runs_what_comes_after_its_target_again() -> None:
    first = Append("first", entry())
    body = Append("body", first)
    last = Append("last", While("while", body, jump_to_ops=[first]))
    async with running(last) as engine:
        once = "((((1 @DAGExecutor)>first first)>body body)>while while)>last"
        twice = "((((((60 @DAGExecutor)>first first)>body body)>while while)>body body)>while while)>last"
        assert await ask(engine, x="1") == {"x": once}
        assert await ask(engine, x="60") == {"x": twice}
        assert await ask_all(engine, *["1", "60"] * 10) == [{"x": once}, {"x": twice}] * 10


async def test_a_loop_may_go_back_to_the_request() -> None:
    read = entry()
    async with running(While("while", read, jump_to_ops=read)) as engine:
        assert await ask(engine, x="25") == {"x": "((25 @DAGExecutor)>while while)>while"}


async def test_branches_of_a_loop_all_run_again() -> None:
    first = Append("first", entry())
    both = While("both", [Append("a", first), Append("b", first)], jump_to_ops=[first])
    async with running(both) as engine:
        found = (await ask(engine, x="120"))["x"]
    assert found.count("both)>a") == found.count("both)>b") == 1
    assert found.count(">first first)>a") == 2


class Goes(Append):
    """Jumps where the request says so."""

    def check_jumping(self, input_data: Any) -> Any:
        (result,) = input_data.values()
        return "jump" in result.parse()["x"]


async def test_a_jump_ahead_leaves_out_what_is_in_between() -> None:
    goes = Goes("goes", entry())
    between = Append("c", Append("b", goes))
    goes.set_jump_to_ops([between])
    async with running(Append("last", between)) as engine:
        assert await ask(engine, x="stay") == {"x": "((((stay @DAGExecutor)>goes goes)>b b)>c c)>last"}
        assert await ask(engine, x="jump") == {"x": "((jump @DAGExecutor)>goes goes)>last"}


class Packs(ResponseOp):
    inits = 0

    def init_op(self) -> None:
        type(self).inits += 1

    def pack_response_package(self, channeldata: ChannelData) -> Any:
        answer = super().pack_response_package(channeldata)
        answer.value[0] += "!"
        return answer


async def test_a_jump_to_the_last_op_is_the_answer() -> None:
    goes = Goes("goes", entry())
    last = Append("last", goes)
    goes.set_jump_to_ops(last)
    Packs.inits = 0
    async with running(last, response=Packs) as engine:
        assert await ask(engine, x="stay") == {"x": "((stay @DAGExecutor)>goes goes)>last!"}
        assert await ask(engine, x="jump") == {"x": "(jump @DAGExecutor)>goes!"}
    assert Packs.inits == 1


class Halves(Op):
    """A model of sorts, in batches: halves a number until it is small."""

    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        ((self.source, data),) = input_dicts.items()
        return {"x": np.array([float(data["x"])])}, False, None, ""

    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        return {"x": feed_batch[0]["x"] / 2}, 0, ""

    def postprocess(self, input_data: Any, fetch_data: Any, data_id: int, log_id: int) -> Any:
        self.left = float(fetch_data["x"][0])
        return {"x": str(self.left), "from": self.source}, None, ""

    def check_jumping(self, input_data: Any) -> bool:
        return self.left > 1


@pytest.mark.parametrize("is_thread_op", [True, False])
async def test_an_op_with_a_process_goes_round_each_request_by_itself(is_thread_op: bool) -> None:
    read = entry()
    halves = Halves("halves", read, jump_to_ops=[read], batch_size=4, concurrency=2)
    async with running(halves, dag={"is_thread_op": is_thread_op}) as engine:
        assert await ask_all(engine, "1", "5", "100", "2", "1000") == [
            {"x": "0.5", "from": "@DAGExecutor"},
            {"x": "0.625", "from": "halves"},
            {"x": "0.78125", "from": "halves"},
            {"x": "1.0", "from": "@DAGExecutor"},
            {"x": "0.9765625", "from": "halves"},
        ]


class Endless(Append):
    def check_jumping(self, input_data: Any) -> bool:
        return True


async def test_a_loop_without_end_ends_by_its_deadline() -> None:
    read = entry()
    async with running(Endless("endless", read, jump_to_ops=[read])) as engine:
        with pytest.raises(DeadlineExceeded):
            await engine.submit(request(x="1"), timeout=0.05)


class Fails(Append):
    def check_jumping(self, input_data: Any) -> bool:
        raise ValueError("no score")


async def test_a_check_that_raises_ends_its_request() -> None:
    read = entry()
    async with running(Fails("fails", read, jump_to_ops=[read])) as engine:
        err_no, message = await refused(engine, x="1")
    assert err_no == 10000
    assert "Raise_msg: ValueError: no score  ClassName: Fails  FunctionName: check_jumping" in message


class Words(Append):
    def check_jumping(self, input_data: Any) -> Any:
        return "yes"


async def test_only_true_jumps() -> None:
    read = entry()
    async with running(Words("words", read, jump_to_ops=[read])) as engine:
        assert await ask(engine, x="1") == {"x": "(1 @DAGExecutor)>words"}


# -- what cannot be


def test_a_jump_has_one_target() -> None:
    read = entry()
    first = Append("first", read)
    with pytest.raises(GraphError, match="op 'b': jump_to_ops: a request cannot go on in 2 places; name one"):
        prepared(Append("b", first, jump_to_ops=[read, first]))


def test_a_target_is_part_of_the_pipeline() -> None:
    with pytest.raises(GraphError, match="op 'b': jump_to_ops: op 'z' is no part of the pipeline"):
        prepared(Append("b", entry(), jump_to_ops=[Append("z", entry())]))


def test_a_jump_out_of_a_branch_is_refused_by_name() -> None:
    read = entry()
    branch = Append("a", read, jump_to_ops=[read])
    with pytest.raises(GraphError, match="op 'a' cannot jump to 'request': op 'b' runs beside it"):
        prepared(Append("both", [branch, Append("b", read)]))
