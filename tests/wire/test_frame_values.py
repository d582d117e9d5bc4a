"""Values in frames: arrays and long bytes as sections, and what a stranger may put there instead."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from asyncline import BadRequest
from asyncline.errors import TooLarge
from asyncline.wire.frame import values
from asyncline.wire.frame.decoder import ALIGNMENT, MAX_HEADER_NBYTES, room
from asyncline.wire.frame.values import BYTES, DTYPES, INLINE_NBYTES, MAX_DEPTH, TENSOR, VALUE, Encoder

LONG = INLINE_NBYTES + 1


def body_of(sections: list[Any], nbytes: int) -> memoryview | None:
    """The body of a frame, as a Decoder gives it."""
    data = b"".join(sections)
    assert len(data) == nbytes
    if not data:
        return None
    body = room(nbytes)
    body[:] = data
    return body.toreadonly()


def through(value: Any, *, copy: bool = False) -> Any:
    header, sections, nbytes = Encoder(copy=copy).encode((1, "two"), value)
    assert len(header) <= MAX_HEADER_NBYTES
    head_1, head_2, value = values.decode(header, body_of(sections, nbytes))
    assert (head_1, head_2) == (1, "two")
    return value


def from_stranger(value: Any, body: bytes = b"", limit: int = 1000) -> Any:
    """Decode `value`, in which extensions may stand, with the given body."""
    return values.decode_limited(msgpack.packb(value), body_of([body], len(body)), limit)


def place(code: int, *where: Any) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb(where))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


# -- there and back


@given(PLAIN)
def test_a_plain_value_comes_back(value: Any) -> None:
    assert through(value) == value


@given(
    st.sampled_from(list(DTYPES.values())).flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    )
)
def test_an_array_comes_back_as_it_was(array: np.ndarray[Any, Any]) -> None:
    found = through({"x": [array]})["x"][0]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24).reshape(4, 6)[::2, ::-3],
        np.arange(6, dtype=np.float16).reshape(2, 3).T,
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.broadcast_to(np.float32(2), (3, 2)),
        np.array([1, 2], ">i4"),
        np.array([[1.5, 2.5]], ">f8").T,
        np.ma.array([[1, 2], [3, 4]]),
    ],
    ids=lambda array: f"{type(array).__name__}-{array.dtype}-{array.shape}",
)
def test_however_it_lies_in_memory(array: np.ndarray[Any, Any]) -> None:
    found = through(array)
    assert found.dtype == array.dtype.newbyteorder("<") and found.tolist() == array.tolist()


def test_arrays_are_read_only_views_that_lie_at_multiples_of_64() -> None:
    header, sections, nbytes = Encoder(copy=False).encode((), [np.ones(3, np.uint8), np.ones((2, 2)), np.ones(1)])
    body = body_of(sections, nbytes)
    for array in values.decode(header, body)[0]:
        assert not array.flags.writeable and array.ctypes.data % ALIGNMENT == 0
        assert np.shares_memory(array, np.frombuffer(body, np.uint8))


def test_an_array_is_sent_from_where_it_lies() -> None:
    array = np.zeros(1000)
    _, sections, _ = Encoder(copy=False).encode((), {"x": array})
    assert np.shares_memory(np.frombuffer(sections[0], np.uint8), array)


@pytest.mark.parametrize("change", [np.zeros(10), np.zeros((4, 4)).T, bytearray(LONG), memoryview(bytearray(LONG))])
def test_what_may_change_is_taken_as_it_is_now(change: Any) -> None:
    _, sections, _ = Encoder(copy=True).encode((), {"x": change})
    np.asarray(change)[...] = 1
    assert len(b"".join(sections)) >= 80 and not any(b"".join(sections))


def test_what_cannot_change_is_never_copied() -> None:
    array = np.zeros(1000)
    array.flags.writeable = False
    data = bytes(LONG)
    _, sections, _ = Encoder(copy=True).encode((), [array, {"data": data}, memoryview(data)])
    held = [np.frombuffer(each, np.uint8) for each in sections if len(each) >= LONG]
    assert [np.shares_memory(each, array) for each in held].count(True) == 1
    assert [np.shares_memory(each, np.frombuffer(data, np.uint8)) for each in held].count(True) == 2


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"a": x}, lambda x: [{"a": [x]}], lambda x: (x, 1)])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("length", [0, 5, INLINE_NBYTES, LONG, 70_000])
def test_bytes_of_any_length_come_back(wrap: Any, kind: Any, length: int) -> None:
    data = bytes(range(256)) * (length // 256 + 1)
    assert through(wrap(kind(data[:length]))) == through_msgpack(wrap(data[:length]))


def through_msgpack(value: Any) -> Any:
    return msgpack.unpackb(msgpack.packb(value))


def test_long_bytes_stand_beside_the_header() -> None:
    header, sections, nbytes = Encoder(copy=False).encode((), {"image": bytes(LONG), "more": [bytes(LONG)]})
    assert len(header) < 100 and nbytes == sum(map(len, sections)) > 2 * LONG


@pytest.mark.parametrize(
    "value",
    [
        "é" * 50_000,
        [0.5] * 10_000,
        {str(n): [n, {"x": "y" * 50}] for n in range(1000)},
        {"text": "x" * 70_000, "image": bytes(5000)},
    ],
    ids=["text", "numbers", "maps", "text and bytes"],
)
def test_what_is_too_long_for_a_header_comes_back(value: Any) -> None:
    assert through(value) == value


def test_arrays_among_what_is_too_long_for_a_header_come_back() -> None:
    found = through({"numbers": [1.5] * 10_000, "x": np.arange(5), "image": bytes(5000)})
    assert found["numbers"] == [1.5] * 10_000 and found["x"].tolist() == [0, 1, 2, 3, 4]
    assert found["image"] == bytes(5000)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        ({3}, [3]),
        (frozenset({"a"}), ["a"]),
        ((1, (2,)), [1, [2]]),
        (np.array(["a", "bc"]), ["a", "bc"]),
        (np.array([b"a", b"bc"]), [b"a", b"bc"]),
        (np.array([None, 1, "x"], object), [None, 1, "x"]),
        ({1: "a", None: "b"}, {1: "a", None: "b"}),
    ],
    ids=str,
)
def test_what_msgpack_has_no_word_for_is_the_nearest_that_it_has(value: Any, expected: Any) -> None:
    assert through(value) == expected


def test_nan_stays_nan() -> None:
    assert math.isnan(through(math.nan)) and np.isnan(through(np.array([math.nan]))[0])


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "a object has no msgpack form"),
        ([{"a": 1j}], "a complex has no msgpack form"),
        (np.array(["2020-01-01"], "M8[D]"), "a date has no msgpack form"),
        (2**64, "has no msgpack form"),
        ("\ud800", "surrogates not allowed"),
        (CIRCLE, "recursion limit exceeded"),
        ({"x": bytes(LONG), "circle": CIRCLE}, "recursion"),
        (memoryview(b"abcd")[::2], "not C-contiguous"),
        (memoryview(bytes(3 * LONG))[::2], "not C-contiguous"),
        (np.longdouble(1), "can not serialize"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_msgpack_form_is_refused_and_the_next_is_written(value: Any, words: str) -> None:
    encoder = Encoder(copy=True)
    with pytest.raises(ValueError, match=words):
        encoder.encode((), {"before": np.zeros(3), "value": value} if value is not CIRCLE else value)
    header, sections, nbytes = encoder.encode((), [1, np.ones(2)])
    one, array = values.decode(header, body_of(sections, nbytes))[0]
    assert one == 1 and array.tolist() == [1, 1]


# -- from a stranger


@pytest.mark.parametrize(
    ("value", "body", "words"),
    [
        (place(TENSOR, 0, "float32", [2]), 4, "no section of 8 bytes at 0 of a body of 4"),
        (place(TENSOR, 64, "float32", [1]), 64, "no section of 4 bytes at 64"),
        (place(TENSOR, 2**62, "float32", [1]), 64, "no section"),
        (place(TENSOR, 4, "float32", [1]), 64, "no section of 4 bytes at 4"),
        (place(TENSOR, -64, "float32", [1]), 64, "does not say where"),
        (place(TENSOR, 0.0, "float32", [1]), 64, "does not say where"),
        (place(TENSOR, False, "float32", [1]), 64, "does not say where"),
        (place(TENSOR, 0, "float32"), 64, "does not say where"),
        (place(TENSOR), 64, "does not say where"),
        (msgpack.ExtType(TENSOR, b""), 64, "no msgpack"),
        (msgpack.ExtType(TENSOR, b"\xc1"), 64, "no msgpack"),
        (msgpack.ExtType(TENSOR, b"\x91" * 2000), 64, "no msgpack"),
        (place(TENSOR, 0, "object", [1]), 64, "unknown dtype"),
        (place(TENSOR, 0, "O", [1]), 64, "unknown dtype"),
        (place(TENSOR, 0, ">f4", [1]), 64, "unknown dtype"),
        (place(TENSOR, 0, "float32,O", [1]), 64, "unknown dtype"),
        (place(TENSOR, 0, 5, [1]), 64, "unknown dtype"),
        (place(TENSOR, 0, ["float32"], [1]), 64, "unknown dtype"),
        (place(TENSOR, 0, "float32", 1), 64, "no list of lengths"),
        (place(TENSOR, 0, "float32", [1.0]), 64, "no list of lengths"),
        (place(TENSOR, 0, "float32", [True]), 64, "no list of lengths"),
        (place(TENSOR, 0, "float32", [-1]), 64, "no list of lengths"),
        (place(TENSOR, 0, "float32", [2**32, 2**32]), 64, "too large"),
        (place(TENSOR, 0, "float32", [2**63, 2]), 64, "too large"),
        (place(TENSOR, 0, "float32", [0, 2**63]), 64, "too large"),
        (place(TENSOR, 0, "float32", [2**62, 2**62, 0]), 64, "too large"),
        (place(TENSOR, 0, "float32", [1] * 33), 64, "over the limit of 32"),
        (place(BYTES, 0, 65), 64, "no section of 65 bytes"),
        (place(BYTES, 0, -1), 64, "does not say how long"),
        (place(BYTES, 0), 64, "does not say where"),
        (place(VALUE, 0, 65), 64, "no section of 65 bytes"),
        (place(VALUE, 0, 64), 64, "no msgpack"),
        (place(5, 0, 1), 64, "no extension of type 5"),
        (place(0, 0, 1), 0, "no extension of type 0"),
        (place(TENSOR, 0, "float32", [1]), 0, "no section of 4 bytes at 0 of a body of 0"),
        ([place(BYTES, 0, 64), place(BYTES, 0, 64)], 64, "overlap"),
        ([place(BYTES, 0, 40), place(TENSOR, 0, "uint8", [40])], 64, "overlap"),
        ([place(VALUE, 0, 1), place(VALUE, 64, 1)], 128, "at most"),
    ],
    ids=str,
)
def test_an_extension_that_cannot_be_is_the_clients_fault(value: Any, body: int, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        from_stranger(value, bytes(body))


@pytest.mark.parametrize("byte", [2, 255])
def test_a_bool_that_is_neither_is_the_clients_fault(byte: int) -> None:
    with pytest.raises(BadRequest, match="a bool is neither 0 nor 1"):
        from_stranger(place(TENSOR, 0, "bool", [3]), bytes([0, 1, byte]))


@pytest.mark.parametrize("value", [np.zeros((0, 4)), np.zeros((3, 0), bool)], ids=str)
def test_an_empty_array_needs_no_body(value: np.ndarray[Any, Any]) -> None:
    header, sections, nbytes = Encoder(copy=True).encode((), value)
    assert (sections, nbytes) == ([], 0)
    assert values.decode_limited(header, None, 0)[0].shape == value.shape


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xc1",
        b"\x91",
        b"\x01\x02",
        b"\xa1\xff",
        b"\xdd" + b"\xff" * 4,
        b"\xc6" + b"\xff" * 4,
        b"\x81\x91\x01\x02",
    ],
    ids=bytes.hex,
)
def test_a_header_that_is_no_msgpack_is_the_clients_fault(header: bytes) -> None:
    with pytest.raises(BadRequest, match=r"^the header is no msgpack: \S"):
        values.decode_limited(header, None, 0)


def nested(depth: int, inner: Any = 1) -> Any:
    for level in range(depth):
        inner = [inner] if level % 2 else {"a": inner, "b": "\u0391"}
    return inner


def test_what_is_nested_too_deep_is_the_clients_fault() -> None:
    assert from_stranger(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    for value in (nested(MAX_DEPTH + 1), [1, nested(MAX_DEPTH), 2]):
        with pytest.raises(BadRequest, match="nested deeper than 32"):
            from_stranger(value)
    section = msgpack.packb(nested(MAX_DEPTH))
    with pytest.raises(BadRequest, match="nested deeper than 32"):
        from_stranger([place(VALUE, 0, len(section))], section, 10_000)


def test_depth_100_000_is_the_clients_fault() -> None:
    with pytest.raises(BadRequest, match="no msgpack"):
        values.decode_limited(b"\x91" * 60_000, None, 0)


def test_texts_that_look_like_arrays_are_no_depth() -> None:
    text = "\u0391\u0411\u0415" * 100  # their UTF-8 is full of bytes that begin arrays and maps
    assert from_stranger(text) == text


def test_a_value_in_a_section_has_a_limit() -> None:
    section = msgpack.packb("x" * 997)
    assert from_stranger(place(VALUE, 0, 1000), section) == "x" * 997
    with pytest.raises(TooLarge, match=r"1000 bytes of lists, .* over the limit of 999: send arrays"):
        from_stranger(place(VALUE, 0, 1000), section, 999)


def test_numbers_as_keys_are_for_answers_only() -> None:
    header = msgpack.packb({1: 2})
    assert values.decode(header) == {1: 2}
    with pytest.raises(BadRequest, match="int is not allowed for map key"):
        values.decode_limited(header, None, 0)


@given(st.binary(max_size=60), st.binary(max_size=200))
def test_any_header_and_body_are_understood_or_refused(header: bytes, body: bytes) -> None:
    try:
        values.decode_limited(header, body_of([body], len(body)), 1000)
    except (BadRequest, TooLarge) as error:
        assert error.message


@given(st.data())
def test_a_header_with_some_bytes_changed_is_understood_or_refused(data: st.DataObject) -> None:
    header, sections, nbytes = Encoder(copy=False).encode(
        (), [np.arange(4), bytes(5000), "text", {"a": np.zeros((2, 2))}]
    )
    changed = bytearray(header)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        values.decode_limited(bytes(changed), body_of(sections, nbytes), 1000)
    except (BadRequest, TooLarge) as error:
        assert error.message
