"""Arrays as printed text: what numpy prints is read, what is written is what Paddle's clients evaluate."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from numpy import array, bool_, float16, float32, int64, uint8  # noqa: F401  # for what is evaluated below

from asyncline.errors import BadRequest, OpError
from asyncline.wire.paddle import printed

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3) / 8,
    np.arange(5000) / 4,
    np.array(3.0),
    np.array([], np.float32),
    np.zeros((0, 4), np.int64),
    np.array([1, -2], np.int64),
    np.array([255], np.uint8),
    np.array([[True], [False]]),
    np.array([np.nan, -np.inf, 1e-20, 3e30]),
    np.array([0.5, 2], np.float16),
    np.array(["it's", 'a "b"', "(c) [d], é\n", "\\"]),
    np.array([["a"], ["b"]]),
]


@pytest.mark.parametrize("given", ARRAYS, ids=range(len(ARRAYS)))
def test_what_numpy_prints_is_read(given: Any) -> None:
    with np.printoptions(threshold=sys.maxsize):
        read = printed.parse(repr(given))
    assert read.shape == given.shape and np.array_equal(read, given, equal_nan=given.dtype.kind == "f")
    assert read.dtype == (object if given.dtype.kind == "U" else given.dtype)


@pytest.mark.parametrize("given", ARRAYS, ids=range(len(ARRAYS)))
def test_what_is_written_is_what_clients_evaluate(given: Any) -> None:
    known = {"nan": np.nan, "inf": np.inf, "shape": None, **globals()}
    text = printed.write(given)
    assert printed.parse(text).shape == given.shape
    if given.ndim == 1 or given.size:
        evaluated = eval(text, known)
        assert evaluated.dtype == given.dtype and np.array_equal(evaluated, given, equal_nan=given.dtype.kind == "f")


@pytest.mark.parametrize("given", [np.array([object()]), np.array([1j]), np.array(["2026-01-01"], "M8[D]")])
def test_an_array_of_anything_else_has_no_text(given: Any) -> None:
    with pytest.raises(OpError):
        printed.write(given)


@pytest.mark.parametrize(
    ("text", "values"),
    [("[[1, 2], [3, 4]]", [[1, 2], [3, 4]]), ("0.0137, -0.1136", [0.0137, -0.1136]), ("[\"a\", 'b']", ["a", "b"])],
)
def test_lists_without_a_name_are_read(text: str, values: Any) -> None:
    assert printed.parse(text).tolist() == values


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').abort()",
        "array(open(0))",
        "array([1]) + 1",
        "array([1, ..., 2])",
        "array([1, 2], dtype=object)",
        "array([300], dtype=uint8)",
        "array([1.5], dtype=int64)",
        "array([nan], dtype=int64)",
        "array([0], shape=(99999999999, 99999999999), dtype=float32)",
        "array([], shape=(900000000,), dtype=float32)",
        "array([[]], shape=(1,))",
        "[[1], [2, 3]]",
        "[['a'], ['b', 'c']]",
        "['a', 1]",
        "'\\N{BULLET}'",
        '[{"a": 1}]',
        "[null]",
        "[1e999]",
        "[" * 100_000,
        "array(" + "[" * 100_000,
        "array([1]" + " " * 1_000_000,
        "nan" + "[" * 100_000,
        "['a'" + ", 'a'" * 2**18 + "]",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        printed.parse(text)
