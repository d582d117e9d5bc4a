"""Any values as tensors of the Open Inference Protocol, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncline import BadRequest, OpError
from asyncline.wire import msgpack
from asyncline.wire.oip import InferRequest, InferTensor, grpc, native

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def through_grpc(value: Any) -> Any:
    tensors, kind = native.to_tensors(value, native.INPUT)
    request = grpc.decode_request(grpc.encode_request(InferRequest(tensors, "m", parameters={native.NATIVE: kind})))
    assert native.is_native(request.parameters)
    return native.from_tensors(request.inputs, request.parameters[native.NATIVE])


@given(value=values)
def test_a_value_comes_back_as_it_went(value: Any) -> None:
    found = through_grpc(value)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", ">f4", "complex64"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_an_array_comes_back_as_it_went(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype)
    found = through_grpc({"x": array, "more": [array]})
    for each in (found["x"], found["more"][0]):
        assert each.dtype == array.dtype.newbyteorder("<") and each.shape == shape and each.flags.writeable
        np.testing.assert_array_equal(each, array)


def test_a_server_that_knows_nothing_of_this_finds_plain_tensors() -> None:
    tensors, kind = native.to_tensors({"x": np.ones((2, 3), np.float32), "text": "é", "image": b"\xff"}, "input")
    assert kind == native.FIELDS
    assert [(each.name, each.datatype, each.shape) for each in tensors] == [
        ("x", "FP32", (2, 3)), ("text", "BYTES", (1,)), ("image", "BYTES", (1,)),
    ]  # fmt: skip
    assert [tensors[1].array[0], tensors[2].array[0]] == ["é".encode(), b"\xff"]


def test_its_answers_are_arrays_by_name() -> None:
    assert (native.from_tensors([InferTensor("y", "FP32", np.ones(2, np.float32))], None)["y"] == 1).all()


def element(data: bytes, form: Any) -> InferTensor:
    array = np.empty(1, object)
    array[0] = data
    return InferTensor("x", "BYTES", array, {"form": form})


@pytest.mark.parametrize(
    ("tensors", "kind", "message"),
    [
        ([element(b"\xff", "text")], native.FIELDS, "tensor 'x': the text is no UTF-8"),
        ([element(b"\xc1", "msgpack")], native.FIELDS, "tensor 'x': the body is no msgpack"),
        ([element(msgpack.encode({1: 2}), "msgpack")], native.FIELDS, "no msgpack"),
        ([element(b"", "pickle")], native.FIELDS, "there are text, bytes and msgpack"),
        ([element(b"", 5)], native.FIELDS, "there are text, bytes and msgpack"),
        (
            [InferTensor("x", "FP32", np.ones(1, np.float32), {"form": "text"})],
            native.FIELDS,
            "of one element of BYTES",
        ),
        ([], native.VALUE, "0 tensors are said to be one value"),
        ([element(b"", "text"), InferTensor("y", "FP32", np.ones(1))], native.VALUE, "2 tensors are said"),
    ],
)
def test_tensors_that_are_not_what_they_say_are_refused(tensors: list[InferTensor], kind: str, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        native.from_tensors(tensors, kind)
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [object(), {"x": object()}, "\ud800", {"x": "\ud800"}])
def test_what_has_no_form_is_refused(value: Any) -> None:
    with pytest.raises(OpError):
        native.to_tensors(value, "input")
