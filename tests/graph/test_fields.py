"""Image, Text, Json, Tensor: what they take from a client, and what they refuse."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pydantic import BaseModel

from asyncline import BadRequest, Image, Json, Tensor, Text
from asyncline.errors import TooLarge
from asyncline.graph.fields import DTYPES, Field

JPEG = b"\xff\xd8\xff\xe0 pretend"

# Any value that a JSON or msgpack body can carry.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def test_a_field_with_a_default_is_optional() -> None:
    assert Text().required
    assert not Text(default=None).required


@pytest.mark.parametrize("field", [Image(), Text(), Json(dict[str, int]), Tensor("FP32", [-1, 2]), Tensor("BOOL")])
@given(value=VALUES)
def test_whatever_a_client_sends_is_parsed_or_refused(field: Field, value: Any) -> None:
    try:
        field.parse(value)
    except BadRequest as error:
        assert error.message
        assert "\n" not in error.message


# -- Image


@pytest.mark.parametrize("value", [JPEG, bytearray(JPEG), memoryview(JPEG)])
def test_the_bytes_of_an_image_stay_as_they_are(value: Any) -> None:
    parsed = Image().parse(value)
    assert type(parsed) is bytes
    assert parsed == JPEG


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,", "data:;base64,"])
def test_an_image_may_be_base64_or_a_data_url(prefix: str) -> None:
    assert Image().parse(prefix + b64encode(JPEG).decode()) == JPEG


@pytest.mark.parametrize("text", ["no base64!", "abc", "ä", "data:image/svg+xml,<svg/>", "data:x;base64,???"])
def test_a_string_that_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="expected base64 of an image"):
        Image().parse(text)


@pytest.mark.parametrize("url", ["http://localhost/a.jpg", "HTTPS://example.com/a"])
def test_a_url_is_refused_where_nothing_downloads(url: str) -> None:
    with pytest.raises(BadRequest, match="got a URL: this graph downloads nothing"):
        Image().parse(url)


def test_a_url_passes_where_the_field_takes_one() -> None:
    field = Image(url=True)
    assert field.parse("https://example.com/a.jpg") == "https://example.com/a.jpg"
    assert field.parse(JPEG) == JPEG
    assert {"type": "string", "format": "uri"} in field.schema()["anyOf"]


@pytest.mark.parametrize("value", [b"", "", "data:image/png;base64,", "data:"])
def test_an_empty_image_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest, match="the image is empty"):
        Image().parse(value)


@pytest.mark.parametrize("value", [bytes(1001), b64encode(bytes(1001)).decode()])
def test_an_image_over_its_limit_is_too_large(value: Any) -> None:
    with pytest.raises(TooLarge, match=r"an image of 1001 bytes is over the limit of 0\.001 MB"):
        Image(max_mb=0.001).parse(value)


def test_an_image_at_its_limit_is_taken() -> None:
    assert len(Image(max_mb=0.001).parse(bytes(1000))) == 1000


@pytest.mark.parametrize(
    ("value", "kind"), [(5, "a number"), (None, "null"), ([1], "a list"), ({}, "an object"), (True, "a boolean")]
)
def test_an_image_of_another_kind_is_refused_by_kind(value: Any, kind: str) -> None:
    with pytest.raises(BadRequest, match=f"expected the bytes of an image or base64, got {kind}$"):
        Image().parse(value)


# -- Text


@pytest.mark.parametrize("value", ["grüße", "grüße".encode()])
def test_a_text_is_a_string_or_its_utf_8(value: Any) -> None:
    assert Text().parse(value) == "grüße"


def test_a_text_may_be_empty() -> None:
    assert Text().parse("") == ""


def test_bytes_that_are_no_utf_8_are_refused() -> None:
    with pytest.raises(BadRequest, match="the text is not UTF-8"):
        Text().parse(b"\xff\xfe")


def test_a_text_is_measured_in_characters() -> None:
    assert Text(max_length=3).parse("äöü") == "äöü"
    with pytest.raises(BadRequest, match="a text of 4 characters is over the limit of 3"):
        Text(max_length=3).parse("äöüß")


@pytest.mark.parametrize("value", [5, 5.0, None, [], {}, True])
def test_a_text_is_not_made_of_other_kinds(value: Any) -> None:
    with pytest.raises(BadRequest, match="expected a string, got"):
        Text().parse(value)


# -- Json


class Box(BaseModel):
    x: int
    label: str = ""


@given(VALUES)
def test_json_of_no_type_passes_any_value(value: Any) -> None:
    assert Json().parse(value) is value


def test_json_of_a_type_is_converted() -> None:
    assert Json(list[int]).parse(["1", 2]) == [1, 2]
    assert Json(Box).parse({"x": 3}) == Box(x=3)


def test_json_that_does_not_fit_says_where() -> None:
    with pytest.raises(BadRequest, match=r"^\[1\]\['x'\]: Input should be a valid integer"):
        Json(list[Box]).parse([{"x": 1}, {"x": "a"}])


def test_json_that_does_not_fit_at_all_says_what_was_expected() -> None:
    with pytest.raises(BadRequest, match=r"^Input should be a valid list$"):
        Json(list[int]).parse("a")


def test_json_of_no_type_has_an_open_schema() -> None:
    assert Json().schema() == {}


def test_json_of_a_type_has_its_schema() -> None:
    assert Json(list[int]).schema() == {"type": "array", "items": {"type": "integer"}}


# -- Tensor


@pytest.mark.parametrize("name", DTYPES)
@given(data=st.data())
def test_a_tensor_comes_back_from_its_nested_lists(name: str, data: st.DataObject) -> None:
    shape = data.draw(array_shapes(max_dims=4, max_side=4))
    array = data.draw(arrays(DTYPES[name], shape, elements=st.text(max_size=3) if name == "BYTES" else None))
    parsed = Tensor(name, [-1] * len(shape)).parse(array.tolist())
    assert parsed.dtype == array.dtype
    np.testing.assert_array_equal(parsed, array)


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=3, max_side=4)))
def test_a_flat_list_takes_the_shape_where_one_length_is_open(array: np.ndarray[Any, Any]) -> None:
    parsed = Tensor("FP32", [-1, *array.shape[1:]]).parse(array.ravel().tolist())
    np.testing.assert_array_equal(parsed, array)


def test_a_flat_list_of_an_odd_length_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"expected shape \[-1, 4\], got \[5\]"):
        Tensor("FP32", [-1, 4]).parse([1, 2, 3, 4, 5])


def test_a_flat_list_is_refused_where_two_lengths_are_open() -> None:
    with pytest.raises(BadRequest, match=r"expected shape \[-1, -1\], got \[4\]"):
        Tensor("FP32", [-1, -1]).parse([1, 2, 3, 4])


@pytest.mark.parametrize(
    ("shape", "value"),
    [([2], [1, 2, 3]), ([-1, 4], [[1, 2], [3, 4]]), ([-1], [[1]]), ([], [1]), ([1], 1), ([2, 2], [[[1]]])],
)
def test_another_shape_is_refused(shape: list[int], value: Any) -> None:
    with pytest.raises(BadRequest, match="expected shape"):
        Tensor("FP32", shape).parse(value)


def test_a_tensor_without_dimensions_is_a_number() -> None:
    assert Tensor("FP32", []).parse(2).shape == ()


@pytest.mark.parametrize("value", [[[1, 2], [3]], [1, [2]], [[[1]], [2]]])
def test_ragged_lists_are_refused(value: Any) -> None:
    with pytest.raises(BadRequest, match="the nested lists are ragged"):
        Tensor("FP32", [-1, -1]).parse(value)


def test_lists_nested_deeper_than_an_array_can_be_are_refused() -> None:
    deep: Any = 1.0
    for _ in range(500):
        deep = [deep]
    with pytest.raises(BadRequest, match="ragged or too deep"):
        Tensor("FP32").parse(deep)


@pytest.mark.parametrize("value", [["a"], [None], [{}], [b"a"], [1, "a"], [2**70]])
def test_lists_of_anything_but_numbers_are_refused(value: Any) -> None:
    with pytest.raises(BadRequest, match="expected numbers only"):
        Tensor("FP32").parse(value)


@pytest.mark.parametrize("value", ["1", None, {}, b"\x00"])
def test_what_is_no_list_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest, match="expected nested lists of numbers, got"):
        Tensor("FP32").parse(value)


def test_integers_are_welcome_as_floats() -> None:
    parsed = Tensor("FP32").parse([1, 2])
    assert parsed.dtype == np.float32
    assert parsed.tolist() == [1.0, 2.0]


def test_floats_are_refused_as_integers() -> None:
    with pytest.raises(BadRequest, match="expected INT64, got float64"):
        Tensor("INT64").parse([1.0])


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("INT8", 128),
        ("INT8", -129),
        ("UINT8", 256),
        ("UINT8", -1),
        ("INT32", 2**31),
        ("INT64", 2**63),
        ("UINT64", -1),
        ("FP16", 70_000),
        ("FP16", 1e5),
        ("FP32", 1e300),
    ],
)
def test_a_number_out_of_range_is_refused_not_wrapped(dtype: str, value: float) -> None:
    with pytest.raises(BadRequest, match=f"a number is out of the range of {dtype}"):
        Tensor(dtype).parse([0, value])


@pytest.mark.parametrize(
    ("dtype", "values"), [("INT8", [-128, 127]), ("UINT8", [0, 255]), ("INT64", [-(2**63)]), ("UINT64", [2**64 - 1])]
)
def test_the_ends_of_the_range_are_taken(dtype: str, values: list[int]) -> None:
    assert Tensor(dtype).parse(values).tolist() == values


def test_booleans_are_for_bool_and_numbers_are_not() -> None:
    assert Tensor("BOOL").parse([True, False]).tolist() == [True, False]
    with pytest.raises(BadRequest, match="expected BOOL, got int64"):
        Tensor("BOOL").parse([1, 0])


def test_booleans_count_as_zero_and_one() -> None:
    assert Tensor("FP32").parse([True, False]).tolist() == [1.0, 0.0]


def test_nan_and_infinity_pass() -> None:
    parsed = Tensor("FP16").parse([float("nan"), float("inf"), -float("inf")])
    np.testing.assert_array_equal(parsed, np.array([np.nan, np.inf, -np.inf], np.float16))


@pytest.mark.parametrize("value", [[1, 2], ["a", None], [["a"], ["b", "c"]], {"a": "b"}, 7, None, [b"\xff"]])
def test_strings_are_strings_only(value: Any) -> None:
    with pytest.raises(BadRequest, match=r"^(expected (nested lists of )?strings|a string is not UTF-8)"):
        Tensor("BYTES").parse(value)


def test_a_lone_string_and_utf8_bytes_are_strings_too() -> None:
    assert Tensor("BYTES", []).parse("gut") == "gut"
    assert Tensor("BYTES").parse(["schön".encode(), "gut"]).tolist() == ["schön", "gut"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "value", "got"), [([-1], [], (0,)), ([-1, 4], [], (0, 4)), ([1, -1], [[]], (1, 0))])
def test_an_empty_list_is_an_empty_tensor(dtype: str, shape: list[int], value: Any, got: tuple[int, ...]) -> None:
    parsed = Tensor(dtype, shape).parse(value)
    assert parsed.dtype == DTYPES[dtype]
    assert parsed.shape == got


def test_an_empty_list_is_refused_where_a_length_is_fixed() -> None:
    with pytest.raises(BadRequest, match=r"expected shape \[3\], got \[0\]"):
        Tensor("FP32", [3]).parse([])


def test_an_array_of_the_right_type_is_not_copied() -> None:
    array = np.zeros((2, 4), np.float32)
    assert Tensor("FP32", [-1, 4]).parse(array) is array


def test_an_array_of_another_type_is_converted_or_refused() -> None:
    assert Tensor("FP32").parse(np.array([1.5])).dtype == np.float32
    assert Tensor("INT32").parse(np.array([1], ">i2")).tolist() == [1]
    with pytest.raises(BadRequest, match="expected FP32, got object"):
        Tensor("FP32").parse(np.array([None]))
    with pytest.raises(BadRequest, match="expected FP32, got complex128"):
        Tensor("FP32").parse(np.array([1j]))


def test_an_unknown_dtype_lists_the_known() -> None:
    with pytest.raises(ValueError, match="no dtype 'float32': use one of BOOL, UINT8"):
        Tensor("float32")


@pytest.mark.parametrize("shape", [[-2], [None, 4], ["4"], [1.5]])
def test_a_shape_of_anything_but_lengths_is_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match="write lengths, and -1 for any length"):
        Tensor("FP32", shape)


def test_the_schema_of_a_tensor_nests_its_lengths() -> None:
    assert Tensor("INT64", [-1, 4]).schema() == {
        "type": "array",
        "items": {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4},
    }
    assert Tensor("FP16", []).schema() == {"type": "number"}
    assert Tensor("BOOL", []).schema() == {"type": "boolean"}


def test_strings_among_numbers_are_refused_before_they_take_memory() -> None:
    """numpy would make 1.6 GB of these 100 kB."""
    field = Tensor("FP32", [-1])
    with pytest.raises(BadRequest, match="expected numbers only"):
        field.parse(["x" * 50_000, *["y"] * 10_000])
    with pytest.raises(BadRequest, match="expected numbers only"):
        Tensor("FP32", [-1, -1]).parse([[1, 2], [3, {"a": 1}]])
    assert field.parse([np.float32(1), 2, True]).tolist() == [1, 2, 1]
