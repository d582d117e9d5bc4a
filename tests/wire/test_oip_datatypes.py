"""The protocol's datatypes: raw bytes, JSON lists, BF16."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncline import BadRequest, OpError
from asyncline.wire import json
from asyncline.wire.oip import InferTensor, datatypes
from tests.wire.tensors import bytes_array, same, tensors, untimed

IN_JSON = tuple(name for name in datatypes.DTYPES if name not in ("FP16", "BF16"))


@untimed
@given(tensors())
def test_raw_bytes_come_back_to_the_bit(tensor: InferTensor) -> None:
    raw = memoryview(datatypes.to_raw(tensor.array, tensor.datatype))
    array = datatypes.from_raw(raw, tensor.datatype, tensor.shape)
    assert same(InferTensor(tensor.name, tensor.datatype, array, tensor.parameters), tensor)


@untimed
@given(tensors(datatypes=IN_JSON, text=True), st.booleans())
def test_json_comes_back_nested_and_flat(tensor: InferTensor, nested: bool) -> None:
    flat = datatypes.to_json(tensor.array, tensor.datatype)
    data = flat if isinstance(flat, list) else flat.tolist()
    if nested:
        shaped = tensor.array.tolist()
        data = _texts(shaped) if tensor.datatype == "BYTES" else shaped
    array = datatypes.from_json(data, tensor.datatype, tensor.shape)
    assert same(InferTensor(tensor.name, tensor.datatype, array, tensor.parameters), tensor)


def _texts(value: Any) -> Any:
    return [_texts(each) for each in value] if isinstance(value, list) else value.decode()


# -- raw


def test_a_raw_tensor_is_a_view_of_the_message() -> None:
    message = bytearray(32)
    array = datatypes.from_raw(memoryview(message)[16:], "FP32", (2, 2))
    message[16:20] = np.float32(1.5).tobytes()
    assert array[0, 0] == 1.5


def test_numbers_at_an_odd_place_are_copied_to_an_even_one() -> None:
    message = b"\0" + np.arange(4, dtype="<f4").tobytes()
    array = datatypes.from_raw(memoryview(message)[1:], "FP32", (4,))
    assert array.flags.aligned
    assert array.tolist() == [0, 1, 2, 3]


def test_an_array_that_lies_as_on_the_wire_is_not_copied() -> None:
    array = np.arange(4, dtype="<f4").reshape(2, 2)
    raw = memoryview(datatypes.to_raw(array, "FP32"))
    array[0, 0] = 7
    assert raw[:4].tobytes() == np.float32(7).tobytes()


def test_strided_and_big_endian_arrays_are_written_row_by_row_little_endian() -> None:
    array = np.array([[1, 2], [3, 4]], ">i4").T
    assert bytes(datatypes.to_raw(array, "INT32")) == np.array([1, 3, 2, 4], "<i4").tobytes()


@pytest.mark.parametrize(
    ("data", "datatype", "shape", "words"),
    [
        (b"1234", "FP32", (2,), "FP32 of shape [2] is 8 bytes, got 4"),
        (b"12345", "FP32", (1,), "FP32 of shape [1] is 4 bytes, got 5"),
        (b"", "FP32", (), "FP32 of shape [] is 4 bytes, got 0"),
        (b"", "FP99", (1,), "no datatype 'FP99': use one of BOOL, "),
        (b"", "", (1,), "no datatype ''"),
        (b"", "object", (0,), "no datatype 'object'"),
        (b"", "FP32", (-1,), "shape [-1] has a negative length"),
        (b"", "FP32", (2**63 - 1, 2**63 - 1), "is too large"),
        (b"", "FP32", (0, 2**62), "is too large"),
        (b"", "FP32", (1,) * 33, "a shape of 33 lengths is over the limit of 32"),
        (b"\1\0\0\0", "BYTES", (1,), "element 0 of BYTES is longer than what is there"),
        (b"\xff\xff\xff\xffa", "BYTES", (1,), "element 0 of BYTES is longer than what is there"),
        (b"\0\0\0", "BYTES", (1,), "expected 1 elements of BYTES, got 0"),
        (b"\0\0\0\0", "BYTES", (2,), "expected 2 elements of BYTES, got 1"),
        (b"\0\0\0\0x", "BYTES", (1,), "1 bytes come after 1 elements of BYTES"),
        (b"", "BYTES", (2**20,), "1048576 elements of BYTES are over the limit of 262144"),
    ],
)
def test_raw_bytes_that_do_not_fit_are_refused(data: bytes, datatype: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(BadRequest) as error:
        datatypes.from_raw(memoryview(data), datatype, shape)
    assert words in error.value.message


@untimed
@given(st.binary(max_size=40), st.sampled_from(tuple(datatypes.DTYPES)), st.lists(st.integers(-2, 2**62), max_size=3))
def test_any_raw_bytes_are_read_or_refused(data: bytes, datatype: str, shape: list[int]) -> None:
    try:
        array = datatypes.from_raw(memoryview(data), datatype, shape)
    except BadRequest as error:
        assert error.message
    else:
        assert array.shape == tuple(shape)


@pytest.mark.parametrize(
    ("array", "datatype", "words"),
    [
        (np.zeros(2, np.float64), "FP32", "expected FP32, got float64"),
        (np.zeros(2, np.int16), "BF16", "expected BF16, got int16"),
        (bytes_array(1), "BYTES", "expected bytes or str as elements of BYTES, got int"),
        (bytes_array("\ud800"), "BYTES", "half a surrogate pair"),
    ],
)
def test_an_array_of_another_type_is_not_written(array: np.ndarray[Any, Any], datatype: str, words: str) -> None:
    with pytest.raises(OpError, match=words):
        datatypes.to_raw(array, datatype)


@pytest.mark.parametrize(
    "array", [np.array(["a", "ü"]), np.array([b"a", b"\xc3\xbc"]), bytes_array("a", bytearray(b"\xc3\xbc"))]
)
def test_strings_of_every_kind_are_bytes(array: np.ndarray[Any, Any]) -> None:
    assert datatypes.datatype_of(array) == "BYTES"
    assert datatypes.to_raw(array, "BYTES") == b"\1\0\0\0a\2\0\0\0\xc3\xbc"


@pytest.mark.parametrize("name", [name for name in datatypes.DTYPES if name != "BF16"])
def test_a_dtype_has_its_datatype(name: str) -> None:
    assert datatypes.datatype_of(np.zeros(1, datatypes.DTYPES[name])) == name


def test_a_dtype_that_the_protocol_lacks_is_named() -> None:
    with pytest.raises(OpError, match="dtype complex64 has no datatype"):
        datatypes.datatype_of(np.zeros(1, np.complex64))


# -- JSON


@pytest.mark.parametrize(
    ("data", "datatype", "shape", "words"),
    [
        ([1, 2, 3], "FP32", (2, 2), "shape [2, 2] is 4 elements, got 3"),
        ([[1, 2], [3]], "FP32", (2, 2), "the nested lists do not have the shape [2, 2]"),
        ([[1, 2], 3], "FP32", (2, 2), "the nested lists do not have the shape [2, 2]"),
        ([[[1]]], "FP32", (1, 1), "expected numbers, got a list"),
        ([[1, 2, 3, 4]], "FP32", (2, 2), "the nested lists do not have the shape [2, 2]"),
        (5, "FP32", (1,), "expected a list, got an integer"),
        ({"a": 1}, "FP32", (1,), "expected a list, got an object"),
        (None, "FP32", (1,), "expected a list, got null"),
        (["1"], "FP32", (1,), "expected numbers, got a string"),
        ([None], "FP32", (1,), "expected numbers, got null"),
        ([True], "FP32", (1,), "expected numbers, got a boolean"),
        ([1.0], "INT32", (1,), "expected integers, got a number"),
        ([True], "INT32", (1,), "expected integers, got a boolean"),
        ([1], "BOOL", (1,), "expected booleans, got an integer"),
        ([1], "BYTES", (1,), "expected strings, got an integer"),
        ([256], "UINT8", (1,), "a number is out of the range of UINT8"),
        ([-1], "UINT8", (1,), "a number is out of the range of UINT8"),
        ([2**31], "INT32", (1,), "a number is out of the range of INT32"),
        ([2**63], "INT64", (1,), "a number is out of the range of INT64"),
        ([-1], "UINT64", (1,), "a number is out of the range of UINT64"),
        ([2**64], "UINT64", (1,), "a number is out of the range of UINT64"),
        ([1e39], "FP32", (1,), "a number is out of the range of FP32"),
        ([10**400], "FP64", (1,), "a number is out of the range of FP64"),
        ([1.0], "FP16", (1,), "FP16 has no JSON form: send it as binary data"),
        ([1.0], "BF16", (1,), "BF16 has no JSON form: send it as binary data"),
        ([], "FP32", (2**62,), "is too large"),
        ([["a"] * 2] * 2, "BYTES", (2**17, 4), "the nested lists do not have the shape"),
        (["a"] * (2**18 + 1), "BYTES", (2**18 + 1,), "262145 elements of BYTES are over the limit of 262144"),
    ],
)  # fmt: skip
def test_json_that_does_not_fit_is_refused(data: Any, datatype: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(BadRequest) as error:
        datatypes.from_json(data, datatype, shape)
    assert words in error.value.message


def test_one_long_string_does_not_make_all_of_them_long() -> None:
    data = ["a" * 100_000] + ["b"] * 10_000  # as an array of fixed width: 4 GB
    tracemalloc.start()
    try:
        array = datatypes.from_json(data, "BYTES", (10_001,))
        with pytest.raises(BadRequest, match="expected numbers, got a string"):
            datatypes.from_json(data, "FP32", (10_001,))
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()
    assert array[0] == b"a" * 100_000


def test_numbers_that_json_lacks_become_null() -> None:
    assert json.encode(datatypes.to_json(np.array([1, np.nan, np.inf], np.float32), "FP32")) == b"[1.0,null,null]"


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_a_half_has_to_be_asked_for_as_binary(datatype: str) -> None:
    with pytest.raises(BadRequest, match="has no JSON form: ask for binary data"):
        datatypes.to_json(np.zeros(1, datatypes.DTYPES[datatype]), datatype)


def test_bytes_that_are_no_text_have_to_be_asked_for_as_binary() -> None:
    with pytest.raises(BadRequest, match="holds bytes that are no text"):
        datatypes.to_json(bytes_array(b"\xff"), "BYTES")


# -- BF16


def test_an_array_of_ml_dtypes_is_written_as_its_bits() -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    array = np.array([[1.0], [-2.0]], bfloat16)
    assert datatypes.datatype_of(array) == "BF16"
    assert bytes(datatypes.to_raw(array, "BF16")) == b"\x80\x3f\x00\xc0"


@untimed
@given(st.integers(0, 2**16 - 1))
def test_bf16_comes_back_from_fp32(bits: int) -> None:
    array = np.array(bits, "<u2")
    there_and_back = datatypes.bf16_from_fp32(datatypes.fp32_from_bf16(array))
    assert there_and_back.shape == ()
    if np.isnan(datatypes.fp32_from_bf16(array)):
        assert np.isnan(datatypes.fp32_from_bf16(there_and_back))
    else:
        assert there_and_back == array


@untimed
@given(st.floats(-(2.0**127), 2.0**127, width=32))
def test_bf16_is_the_nearest(value: float) -> None:
    def fp32(bits: int) -> float:
        return float(datatypes.fp32_from_bf16(np.array(bits, "<u2")))

    bits = int(datatypes.bf16_from_fp32(np.array(value, np.float32)))
    error = abs(fp32(bits) - value)
    assert error <= abs(fp32(bits + 1) - value)
    assert not bits & 0x7FFF or error <= abs(fp32(bits - 1) - value)


@pytest.mark.parametrize(("value", "bits"), [(1.0, 0x3F80), (1.00390625, 0x3F80), (1.01171875, 0x3F82), (-0.0, 0x8000)])
def test_a_tie_goes_to_the_even_one(value: float, bits: int) -> None:
    assert datatypes.bf16_from_fp32(np.array([value], np.float32))[0] == bits


def test_nan_stays_nan_where_rounding_would_make_it_infinite() -> None:
    nan = np.array([0x7FFFFFFF, 0x7F800001], "<u4").view("<f4")
    assert np.isnan(datatypes.fp32_from_bf16(datatypes.bf16_from_fp32(nan))).all()
