"""Hooks of Paddle's Ops: their arguments, what they may return, and what becomes of their errors."""

from __future__ import annotations

import enum
import threading
from typing import Any

import numpy as np
import pytest

from asyncline import GraphError, ProductError
from asyncline.paddle import CustomException, CustomExceptionCode, Op, ProductErrCode, RequestOp, ResponseOp
from asyncline.wire.paddle import PaddleTensor, PipelineRequest, PipelineResponse

from .pipelines import ask, ask_all, entry, prepared, refused, running


class Codes(ProductErrCode):
    TOO_SHORT = 51
    COMMA = (52,)


class Three(Op):
    """All three hooks, as releases from 0.7 on have them; says what it got."""

    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        ((name, data),) = input_dicts.items()
        assert name == "@DAGExecutor"
        return {"x": np.array([[float(data["x"])]])}, False, None, ""

    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        (feed,) = feed_batch
        return {"y": feed["x"] * 2, "rows": np.full(len(feed["x"]), len(feed["x"]))}, 0, ""

    def postprocess(self, input_data: Any, fetch_data: Any, data_id: int, log_id: int) -> Any:
        said = {"y": str(fetch_data["y"].tolist()), "rows": str(fetch_data["rows"].tolist()), "log": str(log_id)}
        return {**said, "x": input_data["@DAGExecutor"]["x"], "data_is_id": str(data_id > 0)}, None, ""


async def test_the_three_hooks_get_the_request_its_feed_and_its_result() -> None:
    async with running(Three("op", entry())) as engine:
        found = await ask(engine, logid=7, x="3")
    assert found == {"y": "[[6.0]]", "rows": "[1]", "log": "7", "x": "3", "data_is_id": "True"}


class Returns(Op):
    """Returns from a hook what the test says."""

    def __init__(self, hook: str, value: Any) -> None:
        super().__init__("op", entry())
        self.hook = hook
        self.value = value

    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        return self.value if self.hook == "preprocess" else ({"x": "pre"}, False, None, "")

    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        return self.value if self.hook == "process" else ({"x": f"{feed_batch[0]['x']} mid"}, 0, "")

    def postprocess(self, input_data: Any, fetch_data: Any, data_id: int, log_id: int) -> Any:
        return self.value if self.hook == "postprocess" else (fetch_data, None, "")


@pytest.mark.parametrize(
    "hook, value, answer",
    [
        ("preprocess", {"x": "a"}, "a mid"),
        ("preprocess", ({"x": "a"},), "a mid"),
        ("preprocess", ({"x": "a"}, True), "a"),
        ("preprocess", ({"x": "a"}, False, None), "a mid"),
        ("preprocess", ({"x": "a"}, True, None, ""), "a"),
        ("preprocess", ({"x": "a"}, False, 0, ""), "a mid"),
        ("process", {"x": "b"}, "b"),
        ("process", ({"x": "b"}, 0), "b"),
        ("process", ({"x": "b"}, 0, ""), "b"),
        ("process", ({"x": "b"}, None, None), "b"),
        ("postprocess", {"x": "c"}, "c"),
        ("postprocess", ({"x": "c"}, None), "c"),
        ("postprocess", ({"x": "c"}, None, ""), "c"),
    ],
)
async def test_a_hook_may_leave_out_the_last_values(hook: str, value: Any, answer: str) -> None:
    async with running(Returns(hook, value)) as engine:
        assert await ask(engine, x="1") == {"x": answer}


@pytest.mark.parametrize(
    "hook, value, err_no, words",
    [
        ("preprocess", ({}, False, 51, "too short"), 51, "too short"),
        ("preprocess", ({}, False, Codes.TOO_SHORT, "too short"), 51, "too short"),
        ("preprocess", ({}, False, Codes.COMMA, "comma"), 52, "comma"),
        ("preprocess", ({}, False, "51", ""), 8000, "expected an error number"),
        ("preprocess", "text", 7000, "expect input type is dict or list, but get str"),
        ("preprocess", ({}, False, None, "", 5), 10000, "at most 4 values"),
        ("process", (None, 5000, "invalid arg list: ['x']"), 5000, "invalid arg list"),
        ("process", (None, CustomExceptionCode.TIMEOUT, "slow"), 6000, "slow"),
        ("process", (None, 0, ""), 10000, "[op] failed to predict"),
        ("process", ([1], 0, ""), 7000, "process should return dict"),
        ("process", ({}, "no number", ""), 10000, "expected an error number"),
        ("postprocess", ({}, 53, "no text"), 53, "no text"),
        ("postprocess", "text", 7000, "postprocess should return dict"),
        ("postprocess", (None, None, ""), 7000, "postprocess should return dict"),
        ("postprocess", ({"x": 5}, None, ""), 7000, "fetch var type must be str(int)"),
    ],
)
async def test_what_a_hook_returns_becomes_an_error_of_that_number(
    hook: str, value: Any, err_no: int, words: str
) -> None:
    async with running(Returns(hook, value)) as engine:
        found, message = await refused(engine, x="1")
    assert found == err_no
    assert words in message


class Raises(Op):
    def __init__(self, hook: str, error: Exception) -> None:
        super().__init__("op", entry())
        self.hook = hook
        self.error = error

    def _raise(self, hook: str) -> None:
        if self.hook == hook:
            raise self.error

    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        self._raise("preprocess")
        return {"x": "1"}, False, None, ""

    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        self._raise("process")
        return feed_batch[0], 0, ""

    def postprocess(self, input_data: Any, fetch_data: Any, data_id: int, log_id: int) -> Any:
        self._raise("postprocess")
        return fetch_data, None, ""


@pytest.mark.parametrize("hook", ["preprocess", "postprocess"])
async def test_an_exception_of_a_hook_is_10000_in_paddles_words(hook: str) -> None:
    async with running(Raises(hook, ValueError("no boxes"))) as engine:
        err_no, message = await refused(engine, logid=9, x="1")
        assert await refused(engine, x="1")  # and the next one is served
    assert err_no == 10000
    assert message == f"Log_id: 9  Raise_msg: ValueError: no boxes  ClassName: Raises  FunctionName: {hook}"


async def test_an_exception_of_process_is_10000_and_names_its_requests() -> None:
    async with running(Raises("process", ValueError("no memory"))) as engine:
        err_no, message = await refused(engine, logid=9, x="1")
    assert err_no == 10000
    assert message == (
        "[op] failed to predict. (data_id=1 log_id=9) [op] Failed to process(batch: [1]): ValueError: no memory. "
        "Please check the input dict."
    )


@pytest.mark.parametrize("hook", ["preprocess", "process", "postprocess"])
@pytest.mark.parametrize(
    "error, err_no",
    [
        (CustomException(CustomExceptionCode.INPUT_PARAMS_ERROR, "bad width", True), 5000),
        (CustomException(Codes.TOO_SHORT, "bad width", True), 51),
        (ProductError(77, "bad width"), 77),
    ],
)
async def test_an_exception_with_a_number_is_answered_with_it(hook: str, error: Exception, err_no: int) -> None:
    async with running(Raises(hook, error)) as engine:
        found, message = await refused(engine, x="1")
    assert found == err_no
    assert "bad width" in message


@pytest.mark.parametrize("hook", ["preprocess", "process", "postprocess"])
async def test_an_exception_that_is_not_for_the_user_keeps_its_words_and_ends_nothing_else(hook: str) -> None:
    async with running(Raises(hook, CustomException(CustomExceptionCode.INIT_ERROR, "the password"))) as engine:
        err_no, message = await refused(engine, x="1")
        assert (await refused(engine, x="1"))[0] == 3003
    assert err_no == 3003
    assert "password" not in message


# -- signatures of earlier releases


class Oldest(Op):
    def preprocess(self, input_dicts: Any) -> Any:
        return {"x": "old"}

    def postprocess(self, input_dicts: Any, fetch_dict: Any) -> Any:
        return fetch_dict


class LogIdOnly(Op):
    def postprocess(self, input_dicts: Any, fetch_dict: Any, log_id: int) -> Any:
        return {"log": str(log_id)}, None, ""


class Unnamed(Op):
    def postprocess(self, a: Any, b: Any, c: Any) -> Any:
        return {"log": str(c)}, None, ""


class Open(Op):
    def postprocess(self, *args: Any, **ids: Any) -> Any:
        return {"log": str(args[-1])}, None, ""


@pytest.mark.parametrize(
    "cls, answer",
    [(Oldest, {"x": "old"}), (LogIdOnly, {"log": "5"}), (Unnamed, {"log": "5"}), (Open, {"log": "5"})],
)
async def test_hooks_of_earlier_releases_take_fewer_arguments(cls: type[Op], answer: dict[str, str]) -> None:
    async with running(cls("op", entry())) as engine:
        assert await ask(engine, logid=5, x="1") == answer


class WantsMore(Op):
    def postprocess(self, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any: ...


class WantsLess(Op):
    def preprocess(self) -> Any: ...


class Async(Op):
    async def preprocess(self, input_dicts: Any) -> Any: ...


@pytest.mark.parametrize("cls, hook", [(WantsMore, "postprocess"), (WantsLess, "preprocess"), (Async, "preprocess")])
def test_a_hook_that_does_not_fit_is_refused_by_name(cls: type[Op], hook: str) -> None:
    with pytest.raises(GraphError, match=f"op 'op': {hook}"):
        prepared(cls("op", entry()))


# -- what is on self


class Remembers(Op):
    """As PaddleOCR's Ops do: what one hook knows of a request lies on `self` for the next."""

    def init_op(self) -> None:
        self.shared: list[str] = []
        self.meet = threading.Barrier(2, timeout=5)

    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        self.mine = input_dicts["@DAGExecutor"]["x"]
        self.shared.append(self.mine)
        return {"x": np.zeros((1, 1))}, False, None, ""

    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        self.meet.wait()  # until the other request is in process too
        self.seen = self.mine
        return {"y": feed_batch[0]["x"]}, 0, ""

    def postprocess(self, input_data: Any, fetch_data: Any, data_id: int, log_id: int) -> Any:
        return {"mine": self.mine, "seen": self.seen, "count": str(len(self.shared))}, None, ""


async def test_what_a_hook_sets_on_self_belongs_to_its_request() -> None:
    async with running(Remembers("op", entry(), concurrency=2)) as engine:
        found = await ask_all(engine, "a", "b")
    assert [(each["mine"], each["seen"]) for each in found] == [("a", "a"), ("b", "b")]
    assert {each["count"] for each in found} == {"2"}


class Chooses(Op):
    """Sets what is set already, by a request that came before."""

    how = "no"
    meet = threading.Barrier(2, timeout=5)

    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        self.how = input_dicts["@DAGExecutor"]["x"]
        self.meet.wait()
        return {"x": np.zeros(1)}, False, None, ""

    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        return feed_batch[0], 0, ""

    def postprocess(self, input_data: Any, fetch_data: Any, data_id: int, log_id: int) -> Any:
        self.meet.wait()
        return {"how": self.how}, None, ""


async def test_what_is_set_to_what_it_was_belongs_to_its_request_too() -> None:
    yes, no = "yes", "no"
    async with running(Chooses("op", entry(), concurrency=2)) as engine:
        for _ in range(3):
            assert await ask_all(engine, yes, no) == [{"how": "yes"}, {"how": "no"}]


class Loads(Op):
    """Loads something when it is first needed."""

    loaded = 0

    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        if not self.loaded:
            self.loaded = data_id
        return {"by": str(self.loaded)}, False, None, ""


async def test_what_is_loaded_when_first_needed_stays() -> None:
    async with running(Loads("op", entry())) as engine:
        assert [await ask(engine, x="1") for _ in range(3)] == [{"by": "1"}] * 3


class Alone(Op):
    """Fails where two requests are in its hooks at once."""

    inside = 0

    def init_op(self) -> None:
        self.lock = threading.Lock()

    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        return self._enter({"x": "1"}, False, None, "")

    def process(self, feed_batch: Any, typical_logid: int) -> Any:
        return feed_batch[0], 0, ""

    def postprocess(self, input_data: Any, fetch_data: Any, data_id: int, log_id: int) -> Any:
        return self._enter(fetch_data, None, "")

    def _enter(self, *values: Any) -> Any:
        if not self.lock.acquire(blocking=False):
            raise RuntimeError("two at once")
        try:
            threading.Event().wait(0.001)
        finally:
            self.lock.release()
        return values


async def test_hooks_of_an_op_run_no_more_at_once_than_its_concurrency() -> None:
    async with running(Alone("op", entry()), op={"op": {"concurrency": 1}}) as engine:
        assert await ask_all(engine, *"1" * 20) == [{"x": "1"}] * 20


# -- entry and exit


class Words(RequestOp):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def init_op(self) -> None:
        self.ready = True

    def unpack_request_package(self, request: PipelineRequest) -> Any:
        assert self.ready
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class Says(Op):
    def postprocess(self, input_data: Any, fetch_data: Any, data_id: int, log_id: int) -> Any:
        return {**fetch_data, "log": str(log_id)}, None, ""


@pytest.mark.parametrize(
    "value, log",
    [({"x": "1"}, "3"), (({"x": "1"}, 8, None, ""), "8"), (({"x": "1"}, None, None, ""), "None")],
)
async def test_a_request_op_of_ones_own_unpacks(value: Any, log: str) -> None:
    async with running(Says("op", Words(value))) as engine:
        assert await ask(engine, logid=3, y="0") == {"x": "1", "log": log}


@pytest.mark.parametrize(
    "value, err_no",
    [
        (ValueError("no image"), 8000),
        ("text", 8000),
        (({}, 0, 60, "no image"), 60),
        (({}, 0, None, "", 1), 8000),
    ],
)
async def test_a_request_that_cannot_be_unpacked_is_refused(value: Any, err_no: int) -> None:
    async with running(Says("op", Words(value))) as engine:
        assert (await refused(engine, x="1"))[0] == err_no


async def test_keys_without_values_are_8000() -> None:
    async with running(Says("op", entry())) as engine:
        with pytest.raises(Exception, match="1 keys, but 0 values"):
            await engine.submit(PipelineRequest(key=["x"]))


async def test_tensors_come_as_arrays_with_their_offsets() -> None:
    class Shapes(Op):
        def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
            data = input_dicts["@DAGExecutor"]
            return {name: str(value.shape) for name, value in data.items()}, False, None, ""

    async with running(Shapes("op", entry())) as engine:
        tensor = PaddleTensor("x", np.zeros((4, 1), np.int64), lod=[0, 4])
        answer = await engine.submit(PipelineRequest(tensors=[tensor]))
    assert answer == PipelineResponse(key=["x", "x.lod"], value=["(4, 1)", "(2, 1)"])


class Arrays(Op):
    def preprocess(self, input_dicts: Any, data_id: int, log_id: int) -> Any:
        return {"y": np.array([[0.5, 2.0]], np.float32), "names": ["a", "b"]}, False, None, ""


async def test_arrays_are_answered_as_python_prints_them() -> None:
    async with running(Arrays("op", entry())) as engine:
        found = await ask(engine, x="1")
    assert found == {"y": "array([[0.5, 2.0]], dtype=float32)", "names": "['a', 'b']"}


async def test_arrays_are_answered_as_tensors_where_the_response_op_says_so() -> None:
    def tensors(ops: list[Op]) -> ResponseOp:
        made = ResponseOp(ops)
        made.set_pack_format(True)
        return made

    async with running(Arrays("op", entry()), response=tensors) as engine:
        answer = await engine.submit(PipelineRequest())
    assert [(each.name, each.array.tolist()) for each in answer.tensors] == [
        ("y", [[0.5, 2.0]]),
        ("names", ["a", "b"]),
    ]


class Packs(ResponseOp):
    def init_op(self) -> None:
        self.unit = "EUR"

    def pack_response_package(self, channeldata: Any) -> Any:
        response = PipelineResponse()
        response.err_no = channeldata.error_code
        for name, value in channeldata.parse().items():
            response.key.append(name)
            response.value.append(f"{value} {self.unit} {channeldata.log_id}")
        return response


async def test_a_response_op_of_ones_own_packs() -> None:
    async with running(Three("op", entry()), response=Packs) as engine:
        assert (await ask(engine, logid=4, x="1"))["x"] == "1 EUR 4"


def test_error_codes_are_paddles() -> None:
    assert {code.name: code.value for code in CustomExceptionCode} == {
        "OK": 0, "PRODUCT_ERROR": 50, "NOT_IMPLEMENTED": 3000, "CLOSED_ERROR": 3001, "NO_SERVICE": 3002,
        "INIT_ERROR": 3003, "CONF_ERROR": 4000, "INPUT_PARAMS_ERROR": 5000, "TIMEOUT": 6000, "TYPE_ERROR": 7000,
        "RPC_PACKAGE_ERROR": 8000, "CLIENT_ERROR": 9000, "UNKNOW": 10000,
    }  # fmt: skip
    assert issubclass(ProductErrCode, enum.Enum)
