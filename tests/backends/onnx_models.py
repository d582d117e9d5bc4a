"""Small ONNX files, made when a test asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
helper, FLOAT, STRING = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.STRING

WEIGHTS = np.arange(8, dtype=np.float32).reshape(4, 2)


def value(name: str, shape: Sequence[int | str | None] | None, dtype: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    weights: Sequence[Any] = (),
    opset: int = 17,
    ir_version: int = 8,
) -> Path:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.save(made, path)
    return path


def linear(path: Path, batch: int | str = "n", **options: Any) -> Path:
    """`y [n, 2]` is `x [n, 4]` times WEIGHTS."""
    weights = onnx.numpy_helper.from_array(WEIGHTS, "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return save(path, [node], [value("x", [batch, 4])], [value("y", [batch, 2])], [weights], **options)


def two(path: Path) -> Path:
    """`sum [n, 3]` and `product [n, 3]` of `left [n, 3]` and `right [n, 1]`."""
    nodes = [
        helper.make_node("Add", ["left", "right"], ["sum"]),
        helper.make_node("Mul", ["left", "right"], ["product"]),
    ]
    inputs = [value("left", ["n", 3]), value("right", ["n", 1])]
    return save(path, nodes, inputs, [value("sum", ["n", 3]), value("product", ["n", 3])])


def image(path: Path) -> Path:
    """`y` is `image [n, 3, height, width]` where that is above zero, else zero."""
    shape = ["n", 3, "height", "width"]
    return save(path, [helper.make_node("Relu", ["image"], ["y"])], [value("image", shape)], [value("y", shape)])


def tokens(path: Path) -> Path:
    """`twice [n, length]` and `mean [n]` of `tokens [n, length]` and `weights [n, length]`, by `count [n]`."""
    nodes = [
        helper.make_node("Add", ["tokens", "tokens"], ["twice"]),
        helper.make_node("Mul", ["tokens", "weights"], ["weighed"]),
        helper.make_node("ReduceSum", ["weighed", "axes"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["count"], ["divisor"], to=FLOAT),
        helper.make_node("Div", ["sum", "divisor"], ["mean"]),
    ]
    inputs = [
        value("tokens", ["n", "length"]),
        value("weights", ["n", "length"]),
        value("count", ["n"], onnx.TensorProto.INT32),
    ]
    axes = helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1])
    return save(path, nodes, inputs, [value("twice", ["n", "length"]), value("mean", ["n"])], [axes])


def texts(path: Path) -> Path:
    """`same [n]` is `text [n]`, strings."""
    node = helper.make_node("Identity", ["text"], ["same"])
    return save(path, [node], [value("text", ["n"], STRING)], [value("same", ["n"], STRING)])


def found(path: Path) -> Path:
    """`boxes [count, 2]`: where `x [1, 4]` is not zero; as many rows as there are."""
    nodes = [helper.make_node("NonZero", ["x"], ["places"]), helper.make_node("Transpose", ["places"], ["boxes"])]
    return save(path, nodes, [value("x", [1, 4])], [value("boxes", ["count", 2], onnx.TensorProto.INT64)])


def one_for_all(path: Path) -> Path:
    """`total [1]`, whatever the rows of `x [n, 4]`."""
    node = helper.make_node("ReduceSum", ["x"], ["flat"], keepdims=0)
    shape = helper.make_tensor("shape", onnx.TensorProto.INT64, [1], [1])
    nodes = [node, helper.make_node("Reshape", ["flat", "shape"], ["total"])]
    return save(path, nodes, [value("x", ["n", 4])], [value("total", [1])], [shape])


def huge(path: Path) -> Path:
    """`zeros` of the shape `shape [dimensions]`."""
    node = helper.make_node("ConstantOfShape", ["shape"], ["zeros"])
    return save(path, [node], [value("shape", ["dimensions"], onnx.TensorProto.INT64)], [value("zeros", None)])


def transposed(path: Path, names: Sequence[str | None] = ("n", "length")) -> Path:
    """`y [length, n]` of `x [n, length]`."""
    node = helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])
    return save(path, [node], [value("x", names)], [value("y", names[::-1])])
