"""Msgpack bodies."""

from __future__ import annotations

import math
import re
from typing import Any

import msgpack as reference
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes

from asyncline import BadRequest, OpError
from asyncline.wire import msgpack
from asyncline.wire.frame.values import DTYPES

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def through(value: Any) -> Any:
    return msgpack.decode(msgpack.encode(value))


@given(VALUES)
def test_a_value_comes_back(value: Any) -> None:
    assert through(value) == value


# -- answers


@pytest.mark.parametrize("value", [b"\x00\xff", bytearray(b"\x00\xff"), memoryview(b"\x00\xff")])
def test_bytes_stay_bytes(value: Any) -> None:
    assert through({"image": value}) == {"image": b"\x00\xff"}


@pytest.mark.parametrize(
    "array",
    [
        np.array([[0, 1], [1, 0]], np.uint8),
        np.array([1.5, 0.25], np.float16),
        np.arange(24).reshape(4, 6)[::2, ::-3],
        np.arange(6).reshape(2, 3).T,
        np.array([1, 2], ">i4"),
        np.zeros((0, 4)),
        np.array(5),
        np.array([True, False]),
        np.array(["a", "bc"]),
        np.array([None, 1], object),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_an_array_becomes_lists(array: np.ndarray[Any, Any]) -> None:
    assert through(array) == array.tolist()


@pytest.mark.parametrize("value", [np.int8(-3), np.uint64(2**64 - 1), np.float16(1.5), np.float64(1.5), np.bool_(True)])
def test_a_numpy_scalar_is_a_number(value: Any) -> None:
    assert through({"score": [value]}) == {"score": [value.item()]}


def test_what_is_no_number_stays_so() -> None:
    assert math.isnan(through(math.nan))
    assert math.isnan(through(np.array([math.nan], np.float32))[0])


@pytest.mark.parametrize("value", [{3}, frozenset({3}), (3,)])
def test_sets_and_tuples_become_lists(value: Any) -> None:
    assert through(value) == [3]


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "a object has no msgpack form"),
        ([{"a": 1j}], "a complex has no msgpack form"),
        (np.array([1j]), "a complex has no msgpack form"),
        (2**64, "has no msgpack form"),
        ("\ud800", "surrogates not allowed"),
        (CIRCLE, "recursion limit exceeded"),
        (memoryview(b"abcd")[::2], "not C-contiguous"),
        (np.longdouble(1), "can not serialize"),
        (ValueError("an answer?"), "a ValueError has no msgpack form"),
    ],
)
def test_what_msgpack_cannot_carry_is_the_ops_fault(value: Any, words: str) -> None:
    with pytest.raises(OpError, match=f"the answer cannot be written as msgpack: .*{words}"):
        msgpack.encode(value)


@given(arrays(scalar_dtypes(), array_shapes(max_dims=2, max_side=2)))
def test_any_array_is_written_or_refused(array: np.ndarray[Any, Any]) -> None:
    try:
        msgpack.decode(msgpack.encode(array))
    except OpError as error:
        assert "cannot be written as msgpack" in str(error)


# -- requests


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91",
        b"\x01\x02",
        b"\xa1\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 100_000,
        b"\x81\x91\x01\x02",
        reference.packb({1: 2}),
    ],
    ids=lambda body: body[:6].hex(),
)
def test_a_malformed_body_says_what_is_wrong(body: bytes) -> None:
    with pytest.raises(BadRequest, match=r"^the body is no msgpack: \S"):
        msgpack.decode(body)


def test_nothing_in_a_body_is_code() -> None:
    found = msgpack.decode(reference.packb(reference.ExtType(5, b"cos\nsystem\n")))
    assert found == reference.ExtType(5, b"cos\nsystem\n")


@given(st.binary(max_size=30))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    try:
        msgpack.decode(body)
    except BadRequest as error:
        assert error.message


# -- arrays as extensions


@given(array=arrays(scalar_dtypes(), array_shapes(min_dims=0, max_dims=3, min_side=0)))
def test_an_array_travels_as_it_is_where_both_sides_know_of_it(array: np.ndarray[Any, Any]) -> None:
    if array.dtype.newbyteorder("<") not in DTYPES.values():
        return  # dates, say: lists, as ever
    body = msgpack.encode({"x": array}, tensors=True)
    for is_answer in (False, True):
        found = msgpack.decode(body, answer=is_answer)["x"]
        assert (found.dtype, found.shape) == (array.dtype.newbyteorder("<"), array.shape)
        np.testing.assert_array_equal(found, array)
        assert found.flags.writeable is not is_answer and found.flags.aligned


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["object", [1], b"12345678"], "unknown dtype"),
        (["float32", [-1], b""], "no list of lengths"),
        (["float32", [2], b"1234"], "is 8 bytes, got 4"),
        (["float32", [2**40, 2**40], b""], "too large"),
        (["bool", [1], b"\x02"], "neither 0 nor 1"),
        (["float32", [1], "text"], "is no [dtype, shape, bytes]"),
        ({"dtype": "float32"}, "is no [dtype, shape, bytes]"),
    ],
)
def test_an_extension_that_is_no_array_is_refused(said: Any, message: str) -> None:
    body = reference.packb(reference.ExtType(msgpack.TENSOR, reference.packb(said)))
    with pytest.raises(BadRequest, match=re.escape(message)):
        msgpack.decode(body)


def test_an_array_in_an_array_of_the_extension_is_refused() -> None:
    inner = reference.ExtType(msgpack.TENSOR, reference.packb(["uint8", [1], b"1"]))
    with pytest.raises(BadRequest, match="unknown dtype"):
        msgpack.decode(reference.packb(reference.ExtType(msgpack.TENSOR, reference.packb([inner, [1], b"1"]))))


def test_only_who_trusts_the_other_side_takes_keys_that_are_no_texts() -> None:
    body = msgpack.encode({1: "a"})
    assert msgpack.decode(body, answer=True) == {1: "a"}
    with pytest.raises(BadRequest):
        msgpack.decode(body)
