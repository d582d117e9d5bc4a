"""Model: a file as an Op. Its types come from the file, a wrong sample fails alone, results are split back."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncline import BadRequest, Engine, Graph, GraphError, LoadError, OpError, Request, Tensor, op
from asyncline.backends import FakeSession, Model, ModelInfo, TensorInfo, describe, request_for
from asyncline.engine.lanes.accelerator import DeviceOp
from tests.serving import serving

from . import onnx_models

pytest.importorskip("onnxruntime")

PAIR = ModelInfo((TensorInfo("x", "FP32", (-1, 2)),), (TensorInfo("y", "FP32", (-1, 2)),))


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return onnx_models.linear(tmp_path / "iris-net.v2.onnx")


def fake(**options: Any) -> tuple[Any, list[FakeSession]]:
    """A function that makes FakeSessions, and those it has made."""
    made: list[FakeSession] = []

    def fake_net(device: str) -> FakeSession:
        made.append(FakeSession(inputs=PAIR.inputs, outputs=PAIR.outputs, **options))
        return made[-1]

    return fake_net, made


def submit(graph: Graph, *payloads: Any) -> list[Any]:
    """The outcomes of requests that are sent at once. The graph is made outside of the loop: that reads files."""

    async def main() -> list[Any]:
        async with Engine(graph) as engine:
            return await asyncio.gather(*(engine.submit(payload) for payload in payloads), return_exceptions=True)

    return asyncio.run(main())


# -- requests that are batches


def test_a_request_may_bring_a_batch_of_its_own() -> None:
    make, made = fake()
    graph = Graph("net", Model(make, info=PAIR, rows=True, batch_size=4))
    assert graph.request.fields["x"].shape == (-1, 2)  # type: ignore[attr-defined]  # a Tensor
    whole = np.arange(18, dtype=np.float32).reshape(9, 2)
    alone = np.ones((1, 2), np.float32)
    outcomes = submit(graph, {"x": whole}, {"x": alone}, {"x": np.zeros((0, 2), np.float32)})
    assert outcomes[0].shape == (9, 2) and outcomes[1].shape == (1, 2) and len(outcomes[2]) == 0
    assert np.array_equal(outcomes[0][:1] / outcomes[0][0, 1], whole[:1] / whole[0, 1])
    assert len(made) == 1


def test_inputs_with_different_numbers_of_rows_are_refused() -> None:
    info = ModelInfo((TensorInfo("a", "FP32", (-1, 2)), TensorInfo("b", "FP32", (-1, 1))))

    def make(device: str) -> FakeSession:
        return FakeSession(inputs=info.inputs, outputs=PAIR.outputs)

    (outcome,) = submit(Graph("net", Model(make, info=info, rows=True)), {"a": [[1, 2], [3, 4]], "b": [[1]]})
    assert isinstance(outcome, BadRequest) and "different numbers of rows: a 2, b 1" in str(outcome)


# -- types from the file


def test_a_model_alone_is_an_app_with_the_fields_of_the_file(linear: Path) -> None:
    graph = Graph("iris", Model(linear))
    assert list(graph.request.fields) == ["x"]
    field = graph.request.fields["x"]
    assert isinstance(field, Tensor)
    assert (field.dtype, field.shape) == ("FP32", (4,))


def test_it_answers_with_the_row_of_the_output(linear: Path) -> None:
    (result,) = submit(Graph("iris", Model(linear)), {"x": [1, 2, 3, 4]})
    np.testing.assert_allclose(result, np.array([1, 2, 3, 4]) @ onnx_models.WEIGHTS)


def test_several_outputs_are_a_dict_by_name_and_several_inputs_are_in_the_models_order(tmp_path: Path) -> None:
    graph = Graph("two", Model(onnx_models.two(tmp_path / "two.onnx")))
    assert list(graph.request.fields) == ["left", "right"]
    (result,) = submit(graph, {"right": [10], "left": [1, 2, 3]})
    assert {name: value.tolist() for name, value in result.items()} == {"sum": [11, 12, 13], "product": [10, 20, 30]}


def test_inputs_may_be_other_ops(linear: Path) -> None:
    @op(cpu="inline")
    def half(x: Any) -> Any:
        return x / 2

    request = request_for(linear)
    (result,) = submit(Graph("iris", Model(linear, half(request.x))), {"x": [2, 2, 2, 2]})
    np.testing.assert_allclose(result, np.ones(4) @ onnx_models.WEIGHTS)


def test_strings_go_through(tmp_path: Path) -> None:
    results = submit(
        Graph("texts", Model(onnx_models.texts(tmp_path / "texts.onnx"), batch_size=4)), {"text": "gut"}, {"text": "ja"}
    )
    assert results == ["gut", "ja"]


def test_a_name_comes_from_the_file(linear: Path) -> None:
    assert Model(linear).name == "iris_net_v2"
    assert Model(linear, name="iris").name == "iris"
    assert Model(linear.rename(linear.with_name("3d.onnx"))).name == "model_3d"


def test_two_models_stand_in_one_graph(linear: Path, tmp_path: Path) -> None:
    request = request_for(linear)
    other = onnx_models.linear(tmp_path / "other.onnx")
    assert len(Graph("both", a=Model(linear, request.x), b=Model(other, request.x)).ops) == 2


def test_describing_a_file_imports_no_runtime(linear: Path) -> None:
    code = f"import sys; from asyncline.backends import Model; Model({str(linear)!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert {"onnxruntime", "onnx", "torch", "tensorrt"}.isdisjoint(done.stdout.split())


def test_describe_tells_it_of_a_file(linear: Path) -> None:
    assert describe(linear).outputs == (TensorInfo("y", "FP32", (-1, 2)),)


def test_a_torch_module_and_its_info_are_a_model() -> None:
    torch_models = pytest.importorskip("tests.backends.torch_models")
    info = ModelInfo((TensorInfo("x", "FP32", (-1, 4)),))
    for source in (torch_models.linear, "tests.backends.torch_models:Linear"):
        (result,) = submit(Graph("net", Model(source, info=info)), {"x": [1, 1, 1, 1]})
        assert result.tolist() == [6, 22]


def test_an_exported_program_is_a_model(tmp_path: Path) -> None:
    torch_models = pytest.importorskip("tests.backends.torch_models")
    path = torch_models.export(tmp_path / "net.pt2")
    (result,) = submit(Graph("net", Model(path, batch_size=8)), {"x": [1, 1, 1, 1]})
    assert result.tolist() == [6, 22]


def test_a_function_that_makes_sessions_is_a_model() -> None:
    make, made = fake(compute=lambda x: 3 * x)
    graph = Graph("net", Model(make, info=PAIR, batch_size=4, concurrency=2))
    assert graph.ops[0].name == "fake_net"
    (result,) = submit(graph, {"x": [1, 2]})
    assert result.tolist() == [3, 6]
    assert len(made) == 2


def test_threads_of_a_session_are_those_of_its_op(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def session(path: Path, device: str, *, threads: int, precision: Any) -> FakeSession:
        seen.append(threads)
        return FakeSession(inputs=describe(path).inputs)

    monkeypatch.setattr("asyncline.backends.source.OnnxSession", session)
    Model(linear, threads=3).load_model("cpu")
    assert seen == [3]


# -- batches


def test_every_request_gets_its_own_row(linear: Path) -> None:
    rows = np.random.default_rng(0).random((100, 4), np.float32)
    results = submit(Graph("iris", Model(linear, batch_size=16)), *({"x": row} for row in rows))
    np.testing.assert_allclose(results, rows @ onnx_models.WEIGHTS, rtol=1e-5)


def test_a_file_of_one_batch_size_runs_full_or_filled_up(tmp_path: Path) -> None:
    model = Model(onnx_models.linear(tmp_path / "net.onnx", batch=8))
    assert model.settings.batch_size == 8
    rows = np.random.default_rng(0).random((21, 4), np.float32)
    results = submit(Graph("net", model), *({"x": row} for row in rows))
    np.testing.assert_allclose(results, rows @ onnx_models.WEIGHTS, rtol=1e-5)


def test_what_its_request_has_checked_is_not_checked_again(linear: Path) -> None:
    assert Model(linear).hook("preprocess") is None
    assert Model(linear, Request(x=Tensor("FP32", [4])).x).hook("preprocess") is None


class Raw(Request):
    def unpack(self, payload: Any) -> Any:
        return payload


@pytest.mark.parametrize(
    "request_",
    [
        Request(x=Tensor("FP32", [-1])),
        Request(x=Tensor("FP64", [4])),
        Request(x=Tensor("FP32", [4], default=None)),
        Raw(x=Tensor("FP32", [4])),
    ],
)
def test_what_its_request_checks_otherwise_is_checked_again(linear: Path, request_: Request) -> None:
    bad, good = submit(Graph("iris", Model(linear, request_.x)), {"x": None}, {"x": np.ones(4, np.float32)})
    assert isinstance(bad, BadRequest) and isinstance(good, np.ndarray)


def test_what_another_op_hands_on_is_checked(linear: Path) -> None:
    @op(cpu="inline")
    def first(x: Any) -> Any:
        return x[:3]

    (bad,) = submit(Graph("iris", Model(linear, first(Request(x=Tensor("FP32", [4])).x))), {"x": [1, 2, 3, 4]})
    assert isinstance(bad, BadRequest) and "expected shape [4], got [3]" in str(bad)


def test_only_samples_of_one_shape_share_a_batch(tmp_path: Path) -> None:
    model = Model(onnx_models.image(tmp_path / "net.onnx"), batch_size=8)
    shapes = [(3, 4, 5), (3, 5, 4), (3, 4, 5), (3, 1, 1)]
    results = submit(Graph("net", model), *({"image": np.ones(shape, np.float32)} for shape in shapes))
    assert [result.shape for result in results] == shapes


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.zeros(5, np.float32), "expected shape [4], got [5]"),
        (np.zeros((4, 1), np.float32), "expected shape [4], got [4, 1]"),
        (np.zeros(4, complex), "expected FP32, got complex128"),
        (None, "expected nested lists of numbers, got null"),
    ],
)
def test_a_value_that_the_model_does_not_take_fails_alone_before_it_is_in_a_batch(
    linear: Path, value: Any, says: str
) -> None:
    model = Model(linear, Request(), batch_size=8, max_delay_ms=20)
    good, bad, last = submit(Graph("iris", model), np.ones(4, np.float32), value, [1, 1, 1, 1])
    assert isinstance(bad, BadRequest)
    assert bad.message == f"op 'iris_net_v2' preprocess: tensor 'x': {says}"
    assert good.tolist() == last.tolist() == [12, 16]


@pytest.mark.parametrize("extra_rows", [-1, 1])
async def test_a_wrong_number_of_rows_fails_the_batch_and_gives_nobody_anothers(extra_rows: int) -> None:
    make, made = fake()
    graph = Graph("net", Model(make, info=PAIR, batch_size=4))
    async with Engine(graph) as engine:
        made[0]._extra_rows = extra_rows
        results = await asyncio.gather(*(engine.submit({"x": [1, 2]}) for _ in range(4)), return_exceptions=True)
    assert all(isinstance(result, OpError) for result in results)
    assert "rows for a batch of" in str(results[0])


def test_the_lane_may_fill_and_read_batches_itself(tmp_path: Path) -> None:
    model = Model(onnx_models.two(tmp_path / "two.onnx"))
    assert isinstance(model, DeviceOp)
    sample = np.arange(1, 4), np.array([10])
    assert [array.tolist() for array in model.arrays(sample)] == [[1, 2, 3], [10]]
    outputs = {"sum": np.arange(12).reshape(4, 3), "product": np.arange(12).reshape(4, 3)}
    assert [row["sum"].tolist() for row in model.results(outputs, 2)] == [[0, 1, 2], [3, 4, 5]]


# -- warming up


async def test_it_is_warm_before_it_is_ready() -> None:
    make, made = fake()
    async with Engine(Graph("net", Model(make, info=PAIR, batch_size=4))):
        assert made[0].runs == [1, 4]


def test_open_lengths_are_warmed_up_with_the_example(tmp_path: Path) -> None:
    path = onnx_models.image(tmp_path / "net.onnx")
    model = Model(path, example=np.ones((3, 8, 8), np.float32))
    assert model.load_model("cpu").inputs[0].name == "image"
    with pytest.raises(LoadError, match="tensor 'image' has open lengths"):
        Model(path).example()
    assert Model(path).load_model("cpu").inputs[0].name == "image"


def test_an_example_that_does_not_fit_is_found_at_load(tmp_path: Path) -> None:
    model = Model(onnx_models.image(tmp_path / "net.onnx"), example=np.ones((4, 8, 8), np.float32))
    with pytest.raises(BadRequest, match="tensor 'image'"):
        model.load_model("cpu")


# -- what is refused


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_nothing_is_refused(linear: Path, batch_size: int) -> None:
    with pytest.raises(GraphError, match=r"op 'iris_net_v2': batch_size: .*greater than or equal to 1"):
        Model(linear, batch_size=batch_size)


def test_a_batch_larger_than_the_files_is_refused(tmp_path: Path) -> None:
    path = onnx_models.linear(tmp_path / "net.onnx", batch=8)
    with pytest.raises(GraphError, match=r"^op 'net': batch_size 9 is more than net\.onnx takes: at most 8$"):
        Model(path, batch_size=9)


def test_a_batch_larger_than_the_sessions_is_refused_at_start() -> None:
    make, _ = fake(max_batch_size=2)
    with pytest.raises(LoadError, match="batch_size 4 is more than fake_net takes: at most 2"):
        submit(Graph("net", Model(make, info=PAIR, batch_size=4)))


def test_too_few_or_too_many_inputs_are_refused_by_name(tmp_path: Path) -> None:
    path = onnx_models.two(tmp_path / "two.onnx")
    with pytest.raises(GraphError, match=r"^op 'two': two\.onnx has 2 inputs \(left, right\), got 1$"):
        Model(path, request_for(path).left)


def test_a_missing_or_broken_file_is_found_when_the_graph_is_made(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"^there is no model file .*gone\.onnx$"):
        Model(tmp_path / "gone.onnx")
    with pytest.raises(LoadError, match=r"^there is no model file .*gone\.pt$"):
        Model(tmp_path / "gone.pt")
    (tmp_path / "net.onnx").write_bytes(b"no model")
    with pytest.raises(LoadError, match=r"^net\.onnx is no ONNX model"):
        Model(tmp_path / "net.onnx")


def test_another_opset_is_found_at_start(tmp_path: Path) -> None:
    graph = Graph("net", Model(onnx_models.linear(tmp_path / "net.onnx", opset=99)))
    with pytest.raises(LoadError, match=r"op 'net' load_model: net\.onnx has opset 99, "):
        submit(graph)


def test_a_device_that_does_not_exist_is_found_at_start(linear: Path) -> None:
    with pytest.raises(LoadError, match=r"op 'iris_net_v2' load_model: .*(no CUDA|cannot use) .*cuda:99"):
        submit(Graph("iris", Model(linear, device="cuda:99")))


@pytest.mark.parametrize("number", [16, 17])
def test_an_input_that_no_request_can_carry_is_refused(tmp_path: Path, number: int) -> None:
    node = onnx_models.helper.make_node("Identity", ["x"], ["y"])
    values = [onnx_models.value(name, ["n"], number) for name in ("x", "y")]
    path = onnx_models.save(tmp_path / "net.onnx", [node], values[:1], values[1:])
    for inputs in ((), (Request(),)):
        with pytest.raises(LoadError, match=r"tensor 'x' is (BF16|OTHER), which no request can carry"):
            Model(path, *inputs)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("net.tflite", "'net.tflite' is no model that is known here: use a file (.onnx, .pt2, .pt) or module:attr"),
        (7, "7 is no model: use a file, an nn.Module, or a function that makes a Session"),
        ("app:net", "net does not say what its inputs are: info=ModelInfo((TensorInfo("),
        (FakeSession, "FakeSession does not say what its inputs are"),
        (functools.partial(FakeSession, most=2), "FakeSession does not say what its inputs are"),
    ],
)
def test_what_is_no_model_is_said(source: Any, says: str) -> None:
    with pytest.raises(LoadError) as caught:
        Model(source)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (7, "made a int, not a Session"),
        (FakeSession(inputs=(TensorInfo("z", "FP32", (-1, 2)),)), "made a Session of"),
    ],
)
def test_a_function_that_makes_something_else_is_found_at_start(made: Any, says: str) -> None:
    def strange(device: str) -> Any:
        return made

    with pytest.raises(LoadError, match=f"op 'strange' load_model: strange {says}"):
        submit(Graph("net", Model(strange, info=PAIR)))


# -- served


def test_a_few_lines_around_a_file_serve_it_with_the_types_of_the_file(tmp_path: Path) -> None:
    onnx_models.two(tmp_path / "two.onnx")
    app = (
        'from asyncline import Graph\nfrom asyncline.backends import Model\n\ngraph = Graph("two", Model("two.onnx"))\n'
    )
    (tmp_path / "app.py").write_text(app)
    with serving("app:graph", cwd=tmp_path) as server:
        assert server.post("/two", {"left": [1, 2, 3], "right": [10]}) == (
            200,
            {"sum": [11, 12, 13], "product": [10, 20, 30]},
        )
        status, answer = server.post("/two", {"left": [1, 2], "right": [10]})
        assert (status, answer["code"]) == (400, "bad_request")
        assert answer["message"] == "field 'left': expected shape [3], got [2]"
        schema = server.get("/openapi.json")[1]["paths"]["/two"]["post"]["requestBody"]["content"]
        left = schema["application/json"]["schema"]["properties"]["left"]
    assert left == {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}


# -- what it says of its result


def test_it_says_what_it_returns_and_whether_it_takes_rows(linear: Path, tmp_path: Path) -> None:
    row, rows = Model(linear), Model(linear, rows=True)
    assert {name: (field.dtype, field.shape) for name, field in row.returns.items() if field} == {"y": ("FP32", (2,))}
    assert rows.returns["y"].shape == (-1, 2)
    assert Model(onnx_models.two(tmp_path / "two.onnx")).returns.keys() == {"sum", "product"}
    assert not Graph("row", row).takes_rows and Graph("rows", rows).takes_rows


def test_of_an_output_without_a_shape_only_the_name_is_known(tmp_path: Path) -> None:
    assert Model(onnx_models.huge(tmp_path / "huge.onnx"), Request()).returns == {"zeros": None}


def test_a_model_whose_batch_comes_out_elsewhere_is_refused(tmp_path: Path) -> None:
    # With as many rows as the other length, everybody would get parts of everybody's results.
    with pytest.raises(GraphError, match=r"^op 'net': output 'y' has its batch at axis 1: the model has to give it"):
        Model(onnx_models.transposed(tmp_path / "net.onnx"))


def test_a_model_without_inputs_is_said_to_have_none(tmp_path: Path) -> None:
    constant = onnx_models.onnx.numpy_helper.from_array(np.ones((1, 2), np.float32))
    node = onnx_models.helper.make_node("Constant", [], ["y"], value=constant)
    path = onnx_models.save(tmp_path / "net.onnx", [node], [], [onnx_models.value("y", [1, 2])])
    with pytest.raises(LoadError, match=r"^net\.onnx has no inputs"):
        Model(path)
