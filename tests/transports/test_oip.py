"""The Open Inference Protocol without a wire: a graph as models, tensors in, tensors out, and what is counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncline import (
    BadRequest,
    Engine,
    Graph,
    Image,
    Json,
    Op,
    OpError,
    ProductError,
    Reply,
    Request,
    Response,
    Rows,
    Stack,
    Tensor,
    Text,
    op,
)
from asyncline.errors import NotFound
from asyncline.observe.statistics import Statistics
from asyncline.observe.usage import Usages
from asyncline.transports.oip import Models
from asyncline.wire.oip import InferRequest, InferTensor, RequestedOutput, TensorMetadata
from asyncline.wire.oip.models import Duration, ModelIndex, Usage


@op(cpu="inline")
def same(*values: Any) -> Any:
    return values[0] if len(values) == 1 else values


class Double(Op):
    """Doubles batches of arrays, in one replica."""

    cpu = "inline"

    def process(self, batch: list[Any]) -> list[Any]:
        return [2 * each for each in batch]


class Rowwise(Op):
    """A row out for each row in."""

    cpu = "inline"
    takes_rows = True
    collate = Stack()
    returns = {"y": Tensor("FP32", [-1, 2])}  # noqa: RUF012  # read only

    def preprocess(self, x: Any) -> Any:
        return Rows(x)

    def process(self, batch: Any) -> Any:
        return batch + 1


def models(graph: Graph) -> Models:
    engine = Engine(graph)
    return Models(engine, Usages(engine, Statistics(engine)))


def asking(*tensors: InferTensor, **kwargs: Any) -> InferRequest:
    return InferRequest(tensors, model_name="g", **kwargs)


def text(name: str, value: str | bytes, shape: tuple[int, ...] = (1,)) -> InferTensor:
    array = np.empty(1, object)
    array[0] = value.encode() if isinstance(value, str) else value
    return InferTensor(name, "BYTES", array.reshape(shape))


def fp32(name: str, *shape: int) -> InferTensor:
    return InferTensor(name, "FP32", np.ones(shape, np.float32))


# -- what is said


def test_a_graph_is_an_ensemble_of_its_ops() -> None:
    request = Request(x=Tensor("FP32", [4]), top=Json(int, default=1))
    found = models(Graph("g", labels=same(Double(request.x, batch_size=8, max_delay_ms=2), request.top)))
    assert found.names == ("g", "double", "same")
    metadata = found.metadata("g")
    assert metadata.inputs == (TensorMetadata("x", "FP32", (4,)), TensorMetadata("top", "BYTES", (1,)))
    assert [output.name for output in metadata.outputs] == ["labels"]
    assert (metadata.versions, metadata.platform) == (("1",), "ensemble")
    config = found.config("g")
    assert (config.max_batch_size, config.optional) == (0, {"top"})
    assert [(step.model_name, step.input_map, step.output_map) for step in config.steps] == [
        ("double", {"x": "x"}, {"output": "double"}),
        ("same", {"double": "double", "top": "top"}, {"output": "labels"}),
    ]
    step = found.config("double", "1")
    assert (step.max_batch_size, step.dynamic_batching, step.max_queue_delay_us) == (8, True, 2000)
    assert step.inputs == (TensorMetadata("x", "FP32", (4,)),)
    assert found.metadata("double").inputs == (TensorMetadata("x", "FP32", (-1, 4)),)


def test_an_op_named_as_its_graph_is_a_model_of_another_name() -> None:
    assert models(Graph("same", same(Request()))).names == ("same", "same.same")


@pytest.mark.parametrize(("name", "version"), [("nope", ""), ("g", "2"), ("same", "latest")])
def test_an_unknown_model_or_version_is_not_found(name: str, version: str) -> None:
    found = models(Graph("g", same(Request())))
    for ask in (found.metadata, found.config, found.is_ready, found.statistics):
        with pytest.raises(NotFound, match=r"no model|no version"):
            ask(name, version)
    with pytest.raises(NotFound):
        found.payload(InferRequest((), model_name=name, model_version=version))


async def test_models_are_ready_when_the_engine_is() -> None:
    engine = Engine(Graph("g", same(Request())))
    found = Models(engine, dict)
    assert not found.is_ready("g") and found.index(ready=True) == ()
    assert found.index()[0] == ModelIndex("g", "1", "UNAVAILABLE", "new")
    async with engine:
        assert found.is_ready("same", "1")
        assert found.index(ready=True) == (ModelIndex("g", "1", "READY"), ModelIndex("same", "1", "READY"))


def test_an_op_is_not_run_alone() -> None:
    with pytest.raises(BadRequest, match="'same' is an op of graph 'g'"):
        models(Graph("g", same(Request()))).payload(InferRequest((), model_name="same"))


# -- in


EVERY = Request(
    x=Tensor("FP32", [-1, 2]), words=Tensor("BYTES", [-1], default=None), t=Text(default=""), j=Json(default=None),
    i=Image(url=True, default=b""),
)  # fmt: skip
every = models(Graph("g", same(EVERY.x, EVERY.words, EVERY.t, EVERY.j, EVERY.i)))


def test_tensors_become_the_values_of_fields() -> None:
    words = InferTensor("words", "BYTES", np.array(["é".encode(), b"b"], object))
    payload = every.payload(asking(fp32("x", 3, 2), words, text("t", "é"), text("j", '{"a": [1]}', (1, 1))))
    values = EVERY.unpack(payload)
    assert values["x"].shape == (3, 2) and values["words"].tolist() == ["é", "b"]
    assert (values["t"], values["j"], values["i"]) == ("é", {"a": [1]}, b"")


@pytest.mark.parametrize(
    ("sent", "got"),
    [(b"\xff\xd8\xff", b"\xff\xd8\xff"), (b"/9j/", b"\xff\xd8\xff"), (b"http://h/a.jpg", "http://h/a.jpg")],
)
def test_an_image_is_a_files_bytes_or_base64_or_a_url(sent: bytes, got: bytes | str) -> None:
    assert EVERY.unpack(every.payload(asking(fp32("x", 1, 2), text("i", sent))))["i"] == got


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ([], "input 'x' is missing"),
        ([fp32("x", 1, 2), fp32("z", 1)], "no input 'z' (there are: x, words, t, j, i)"),
        ([InferTensor("x", "FP64", np.ones((1, 2)))], "input 'x': expected FP32, got FP64"),
        ([fp32("x", 2)], "input 'x': expected shape [-1, 2], got [2]"),
        ([fp32("x", 1, 3)], "input 'x': expected shape [-1, 2], got [1, 3]"),
        ([fp32("x", 1, 2), fp32("t", 1)], "input 't': expected BYTES, got FP32"),
        ([fp32("x", 1, 2), InferTensor("t", "BYTES", np.array([b"a", b"b"], object))], "input 't': expected one"),
        ([fp32("x", 1, 2), text("j", "{")], "input 'j': the element is no JSON"),
        ([fp32("x", 1, 2), text("j", "[" * 100_000)], "input 'j': the element is no JSON"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tensors: list[InferTensor], says: str) -> None:
    with pytest.raises(BadRequest) as refused:
        every.payload(asking(*tensors))
    assert says in refused.value.message


def test_a_bare_request_takes_json_or_an_array() -> None:
    bare = models(Graph("g", same(Request())))
    assert bare.metadata("g").inputs == (TensorMetadata("input", "BYTES", (1,)),)
    assert bare.payload(asking(text("input", '{"a": 1}'))) == {"a": 1}
    assert bare.payload(asking(fp32("input", 2, 3))).shape == (2, 3)
    bits = InferTensor("input", "BF16", np.array([0x3F80], np.uint16))
    assert bare.payload(asking(bits)).tolist() == [1.0]


def test_timeout_and_priority_are_read_and_sequences_are_refused() -> None:
    options = every.options(asking(parameters={"timeout": 1500, "priority": 3, "triton_x": True}))
    assert (options.timeout_s, options.priority) == (0.0015, 1)  # there is one class only
    assert every.options(asking(parameters={"timeout": 0, "priority": 0})).timeout_s is None
    for wrong in ({"timeout": -1}, {"timeout": True}, {"timeout": 2**64}, {"priority": "high"}, {"timeout": 1.5}):
        with pytest.raises(BadRequest, match="expected a whole number"):
            every.options(asking(parameters=wrong))
    with pytest.raises(BadRequest, match="sequences are not served"):
        every.payload(asking(fp32("x", 1, 2), parameters={"sequence_id": 5}))


# -- out


def encoded(value: Any, graph: Graph | None = None, *names: str) -> list[tuple[str, str, list[Any]]]:
    request = asking(outputs=tuple(map(RequestedOutput, names)))
    outputs = models(graph or Graph("g", same(Request()))).response(request, value).outputs
    return [(each.name, each.datatype, each.array.tolist()) for each in outputs]


@pytest.mark.parametrize(
    ("value", "datatype", "elements"),
    [
        (np.ones((1, 2), np.float16), "FP16", [[1.0, 1.0]]),
        (np.float32(2), "FP32", [2.0]),
        (np.array(["a"]), "BYTES", ["a"]),
        ("é", "BYTES", ["é"]),
        (b"\xff", "BYTES", [b"\xff"]),
        (True, "BOOL", [True]),
        (7, "INT64", [7]),
        (2**70, None, None),
        (0.5, "FP64", [0.5]),
        (None, "BYTES", [b"null"]),
        ([1, "a"], "BYTES", [b'[1,"a"]']),
        ({"a": np.ones(2)}, "BYTES", [b'{"a":[1.0,1.0]}']),
    ],
)
def test_any_answer_becomes_a_tensor(value: Any, datatype: str | None, elements: Any) -> None:
    if datatype is None:
        with pytest.raises(OpError, match="output 'output': the answer cannot be written as JSON"):
            encoded(value)
    else:
        assert encoded(value) == [("output", datatype, elements)]


def test_outputs_are_those_that_the_graph_names_and_a_request_may_choose() -> None:
    request = Request(x=Tensor("FP32", [2]))
    graph = Graph("g", a=same(request.x), x=request.x)
    assert models(graph).metadata("g").outputs == (TensorMetadata("a", "", ()), TensorMetadata("x", "FP32", (2,)))
    answer = {"a": 1, "x": np.zeros(2, np.float32)}
    assert [name for name, _, _ in encoded(answer, graph)] == ["a", "x"]
    assert encoded(answer, graph, "x") == [("x", "FP32", [0.0, 0.0])]
    with pytest.raises(OpError, match="the answer has no output 'a'"):
        encoded("an early reply", graph)


def test_what_an_op_returns_names_the_outputs_and_makes_tensors_of_lists() -> None:
    class Classify(Op):
        cpu = "inline"
        returns = {"label": Tensor("INT64", []), "scores": Tensor("FP32", [2])}  # noqa: RUF012

        def preprocess(self, x: Any) -> Any:
            return x

    graph = Graph("g", Classify(Request()))
    answer = {"label": 1, "scores": [0.5, 0.5]}
    assert encoded(answer, graph) == [("label", "INT64", 1), ("scores", "FP32", [0.5, 0.5])]
    with pytest.raises(OpError, match="output 'scores': expected shape"):
        encoded({"label": 1, "scores": [0.5]}, graph)


def test_a_response_of_ones_own_is_one_output() -> None:
    class Mine(Response):
        def pack(self, outputs: Any) -> Any:
            return {"packed": list(outputs)}

    assert encoded({"packed": ["a"]}, Graph("g", Mine(a=same(Request())))) == [
        ("output", "BYTES", [b'{"packed":["a"]}'])
    ]


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (RequestedOutput("nope"), "no output 'nope' (there are: output)"),
        (RequestedOutput("output", parameters={"classification": 3}), "classification is not served"),
    ],
)
def test_an_output_that_cannot_be_given_is_refused_before_anything_runs(output: RequestedOutput, says: str) -> None:
    with pytest.raises(BadRequest) as refused:
        models(Graph("g", same(Request()))).payload(asking(text("input", "1"), outputs=(output,)))
    assert says in refused.value.message


def test_a_dtype_that_the_protocol_lacks_is_the_graphs_fault() -> None:
    with pytest.raises(OpError, match="output 'output': dtype complex128"):
        encoded(np.ones(2, complex))


# -- batches


def test_an_open_length_alone_is_no_batch() -> None:
    request = Request(x=Tensor("FP32", [-1, 2]))
    assert models(Graph("g", Double(request.x))).config("g").max_batch_size == 0


def test_a_graph_that_takes_rows_takes_batches() -> None:
    request = Request(x=Tensor("FP32", [-1, 2]))
    found = models(Graph("g", Rowwise(request.x)))
    config = found.config("g")
    assert config.max_batch_size == 10_000  # batches of one row
    request = Request(x=Tensor("FP32", [-1, 2]))
    wide = models(Graph("g", Rowwise(request.x, batch_size=1024)))
    assert wide.config("g").max_batch_size == 2_000_000  # of 8 bytes in 16 MB
    assert config.inputs == (TensorMetadata("x", "FP32", (2,)),)
    assert config.outputs == (TensorMetadata("y", "FP32", (2,)),)
    assert found.metadata("g").inputs == (TensorMetadata("x", "FP32", (-1, 2)),)
    for count in (0, 10_001):
        with pytest.raises(BadRequest, match=f"a batch of {count} rows; expected 1 to 10000"):
            found.payload(asking(fp32("x", count, 2)))


def test_inputs_of_a_batch_have_equally_many_rows() -> None:
    class Both(Rowwise):
        def preprocess(self, x: Any, y: Any) -> Any:
            return Rows((x, y))

    request = Request(x=Tensor("FP32", [-1, 2]), y=Tensor("FP32", [-1, 2]))
    with pytest.raises(BadRequest, match="x 1, y 2"):
        models(Graph("g", Both(request.x, request.y))).payload(asking(fp32("x", 1, 2), fp32("y", 2, 2)))


# -- counts


async def counted(graph: Graph, *payloads: Any) -> dict[str, Usage]:
    engine = Engine(graph)
    statistics = Statistics(engine)
    engine.hooks.add(statistics)
    found = Models(engine, Usages(engine, statistics))
    async with engine:
        for item in [engine.begin(payload) for payload in payloads]:
            await item.wait()
        return {each.name: each.usage for each in found.statistics()}


@op(cpu="inline")
def choosy(value: int) -> Any:
    if value < 0:
        raise ProductError(1, "negative")
    return value if value else Reply("none")


async def test_requests_batches_and_failures_are_counted_exactly() -> None:
    usage = await counted(Graph("g", Double(choosy(Request()), batch_size=4)), 1, 2, 3, 4, 5, -1, 0)
    graph, first, second = usage["g"], usage["choosy"], usage["double"]
    assert (graph.success.count, graph.fail.count, graph.inference_count) == (6, 1, 6)
    assert (first.success.count, first.fail.count) == (5, 1)  # the early reply is no result of it
    assert (second.success.count, second.inference_count) == (5, 5)
    assert second.execution_count == sum(batch.compute_infer.count for batch in second.batches) < 5
    assert second.inference_count == sum(each.batch_size * each.compute_infer.count for each in second.batches)
    for each in (graph, first, second):
        parts = (each.queue, each.compute_input, each.compute_infer, each.compute_output)
        assert {part.count for part in parts} == {each.success.count}
        assert each.success.ns > 0 and each.last_inference_ms > 0
    assert first.success.ns + second.success.ns == sum(
        part.ns for part in (graph.queue, graph.compute_input, graph.compute_infer, graph.compute_output)
    )
    assert second.compute_infer.ns > 0 and second.compute_input.ns == 0


async def test_of_a_graph_that_takes_rows_rows_are_counted() -> None:
    request = Request(x=Tensor("FP32", [-1, 2]))
    ones = {"x": np.ones((3, 2), np.float32)}
    usage = await counted(Graph("g", Rowwise(request.x, batch_size=2)), ones, ones)
    assert (usage["g"].inference_count, usage["g"].execution_count) == (6, 2)
    assert usage["rowwise"].inference_count == 6 and usage["rowwise"].execution_count >= 3


async def test_before_the_first_request_all_is_zero() -> None:
    usage = await counted(Graph("g", Double(Request())))
    assert usage["double"].success == Duration() and usage["double"].batches == ()
    assert usage["g"].last_inference_ms == 0
