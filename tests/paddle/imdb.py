"""The models of the IMDB example: those of `ops/ensemble.py`, with inputs and outputs as Paddle's have them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.serving import ROOT, SERVICES

onnx = pytest.importorskip("onnx")
helper = onnx.helper


def install(folder: Path) -> Path:
    """The example, ready to be run in `folder`."""
    shutil.copytree(SERVICES / "paddle_imdb", folder, dirs_exist_ok=True)
    for name in ("bow", "cnn"):
        model = onnx.load(ROOT / "ops" / f"ensemble_{name}.onnx")
        words = next(entry.value for entry in model.metadata_props if entry.key == "words")
        (folder / "imdb.vocab").write_text("\n".join(words.split()))
        onnx.save(_as_paddles(model), folder / f"imdb_{name}.onnx")
    return folder


def _as_paddles(model: Any) -> Any:
    """`prediction [1, 2]`, the probabilities of a bad and a good opinion, of `words [length, 1]`."""
    graph = model.graph
    for node in graph.node:
        node.input[:] = [f"inner_{name}" if name in ("words", "lengths") else name for name in node.input]
    one = onnx.numpy_helper.from_array(_array([1.0], "float32"), "paddle_one")
    axis = onnx.numpy_helper.from_array(_array([1], "int64"), "paddle_axis")
    shape = onnx.numpy_helper.from_array(_array([1, 2], "int64"), "paddle_shape")
    before = [
        helper.make_node("Transpose", ["words"], ["inner_words"], perm=[1, 0]),
        helper.make_node("Shape", ["inner_words"], ["paddle_sizes"]),
        helper.make_node("Gather", ["paddle_sizes", "paddle_axis"], ["inner_lengths"]),
    ]
    after = [
        helper.make_node("Sub", ["paddle_one", "positive"], ["paddle_negative"]),
        helper.make_node("Concat", ["paddle_negative", "positive"], ["paddle_both"], axis=0),
        helper.make_node("Reshape", ["paddle_both", "paddle_shape"], ["prediction"]),
    ]
    value, types = helper.make_tensor_value_info, onnx.TensorProto
    made = helper.make_graph(
        [*before, *graph.node, *after],
        graph.name,
        [value("words", types.INT64, ["length", 1])],
        [value("prediction", types.FLOAT, [1, 2])],
        [*graph.initializer, one, axis, shape],
    )
    return helper.make_model(made, opset_imports=model.opset_import, ir_version=model.ir_version)


def _array(values: list[Any], dtype: str) -> Any:
    import numpy as np

    return np.array(values, dtype)
