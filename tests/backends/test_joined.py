"""A Model whose samples differ in length: padded, with their true lengths, and cut back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncline import BadRequest, Engine, Graph, GraphError, Pad, Request, Stack, Tensor
from asyncline.backends import FakeSession, Model, ModelInfo, TensorInfo

from . import onnx_models

pytest.importorskip("onnxruntime")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return onnx_models.tokens(tmp_path / "tokens.onnx")


def padded(file: Path, **options: Any) -> Model:
    return Model(file, **{"collate": Pad(to=4), "lengths": "count", "batch_size": 8, **options})


def of(length: int, weight: float = 1.0) -> dict[str, Any]:
    return {"tokens": np.arange(1, length + 1, dtype=np.float32), "weights": np.full(length, weight, np.float32)}


def submit(model: Model, *payloads: Any) -> tuple[list[Any], list[tuple[int, ...]]]:
    """The outcomes, and the shapes of `tokens` that the model ran."""
    shapes = []
    load = model.load_model

    def watched(device: str) -> Any:
        session = load(device)
        run = session.run_named

        def run_named(feeds: Any) -> Any:
            shapes.append(next(iter(feeds.values())).shape)
            return run(feeds)

        session.run_named = run_named  # type: ignore[method-assign]
        return session

    model.load_model = watched  # type: ignore[method-assign]

    async def main() -> list[Any]:
        async with Engine(Graph("tokens", model)) as engine:
            return await asyncio.gather(*(engine.submit(payload) for payload in payloads), return_exceptions=True)

    return asyncio.run(main()), shapes


def test_samples_that_differ_in_length_share_a_batch_and_get_what_is_theirs(file: Path) -> None:
    results, shapes = submit(padded(file), *(of(length, weight=2.0) for length in (1, 3, 4)))
    assert shapes == [(3, 4)]
    assert [result["twice"].tolist() for result in results] == [[2], [2, 4, 6], [2, 4, 6, 8]]
    assert [float(result["mean"]) for result in results] == [2, 4, 5]


def test_only_those_of_one_padded_length_share_a_batch(file: Path) -> None:
    _, shapes = submit(padded(file), *map(of, (1, 5, 4, 8)))
    assert sorted(shapes) == [(2, 4), (2, 8)]


def test_the_lengths_come_from_no_request(file: Path) -> None:
    assert list(padded(file).request.fields) == ["tokens", "weights"]


def test_inputs_of_different_lengths_are_refused(file: Path) -> None:
    payload = {"tokens": [1, 2, 3], "weights": [1, 1]}
    (bad, good), _ = submit(padded(file), payload, of(2))
    assert isinstance(bad, BadRequest) and "different lengths: tokens 3, weights 2" in str(bad)
    assert good["twice"].tolist() == [2, 4]


def test_it_is_warm_before_it_is_ready_where_it_has_an_example(file: Path) -> None:
    ran: list[tuple[int, ...]] = []
    info = ModelInfo((TensorInfo("x", "FP32", (-1, -1)),), (TensorInfo("y", "FP32", (-1, -1)),))

    class Watched(FakeSession):
        def run_named(self, inputs: Any) -> Any:
            ran.append(inputs["x"].shape)
            return {"y": inputs["x"]}

    def make(device: str) -> FakeSession:
        return Watched(inputs=info.inputs, outputs=info.outputs)

    async def main() -> None:
        model = Model(make, info=info, collate=Pad(to=4), batch_size=3, example=np.ones(5, np.float32))
        async with Engine(Graph("net", model)) as engine:
            assert ran == [(1, 8), (3, 8)]
            assert (await engine.submit({"x": [1, 2]})).tolist() == [1, 2]

    asyncio.run(main())


def test_an_output_of_another_length_than_the_padded_one_is_left_as_it_is() -> None:
    info = ModelInfo((TensorInfo("x", "FP32", (-1, -1)),), (TensorInfo("y", "FP32", (-1, -1)),))

    class Half(FakeSession):
        def run_named(self, inputs: Any) -> Any:
            return {"y": inputs["x"][:, ::2]}

    model = Model(lambda device: Half(inputs=info.inputs, outputs=info.outputs), info=info, collate=Pad(to=4))
    assert submit(model, {"x": [1, 2, 3]})[0][0].tolist() == [1, 3]


def test_a_class_may_say_how_batches_are_padded(file: Path) -> None:
    class Tokens(Model):
        collate = Pad(to=4)

    results, shapes = submit(Tokens(file, lengths="count", batch_size=8), of(1), of(3))
    assert shapes == [(2, 4)] and [result["twice"].tolist() for result in results] == [[2], [2, 4, 6]]


def test_a_process_of_ones_own_gets_what_the_collate_of_its_class_makes() -> None:
    info = ModelInfo((TensorInfo("x", "FP32", (-1, 2)),), (TensorInfo("y", "FP32", (-1, 2)),))

    class Own(Model):
        collate = Stack()

        def process(self, batch: Any) -> Any:
            assert batch.shape[1:] == (2,)
            return -batch

    model = Own(lambda device: FakeSession(inputs=info.inputs, outputs=info.outputs), info=info)
    assert submit(model, {"x": [1, 2]})[0][0].tolist() == [-1, -2]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lengths": "nothing"}, "lengths 'nothing' is no input of integers"),
        ({"lengths": "tokens"}, "lengths 'tokens' is no input of integers"),
        ({"collate": Pad(to=4, axis=1)}, "no input has an open length at axis 1 of a sample"),
        ({"collate": Stack()}, "a Model takes rows, or Pad"),
        ({"rows": True}, "a Model takes rows, or Pad"),
        ({"collate": None}, "a Model takes rows, or Pad"),
    ],
)
def test_what_cannot_be_padded_is_refused_when_the_graph_is_made(
    file: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(GraphError, match="op 'tokens': ") as refused:
        padded(file, **options)
    assert says in str(refused.value)


def test_strings_and_outputs_that_are_not_known_are_refused(tmp_path: Path) -> None:
    texts = ModelInfo((TensorInfo("x", "BYTES", (-1, -1)),), (TensorInfo("y", "FP32", (-1,)),))
    unknown = ModelInfo((TensorInfo("x", "FP32", (-1, -1)),))
    for info, says in ((texts, "strings cannot be padded"), (unknown, "the shapes of the outputs are not known")):
        with pytest.raises(GraphError, match=says):
            Model(lambda device: FakeSession(), Request(x=Tensor("FP32")).x, info=info, collate=Pad(to=4))
