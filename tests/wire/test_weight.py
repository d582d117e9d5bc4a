"""What decoding makes of a body is found out, and bounded."""

from __future__ import annotations

import json as python_json
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack as reference
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncline.errors import TooLarge
from asyncline.settings import LEAST_DECODED_NBYTES, ServiceSettings
from asyncline.wire import json, msgpack
from asyncline.wire.frame import messages, values
from asyncline.wire.oip import InferRequest, InferTensor, grpc, rest
from asyncline.wire.weight import LEAST_NBYTES, Scale

COUNT = 20_000
WIDE = "\u0101"
TEXTS = st.text("a\xe9\u0101\U0001f600\n\\", max_size=9)
VALUES = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=5), inner, max_size=8),
    max_leaves=30,
)
HOSTILE: dict[str, Any] = {
    "empty maps": [{} for _ in range(COUNT)],
    "empty lists": [[] for _ in range(COUNT)],
    "maps of one": [{"a": 0} for _ in range(COUNT)],
    "maps of one, each with a key of its own": [{str(i): 0} for i in range(COUNT)],
    "maps of six": [dict.fromkeys("abcdef", 0) for _ in range(COUNT)],
    "one map": {f"{i:05}": WIDE for i in range(22_000)},  # soon after it has grown
    "lists of one": [[0] for _ in range(COUNT)],
    "lists of five": [[0] * 5 for _ in range(COUNT)],
    "small integers": [7] * COUNT,
    "integers": [2**62 + i for i in range(COUNT)],
    "floats": [i + 0.5 for i in range(COUNT)],
    "texts": ["ab"] * COUNT,
    "texts that are not ASCII": [WIDE] * COUNT,
    "a long text with one wide character": "a" * 10**6 + "\U0001f600",
}


def become_nbytes(decode: Callable[[], Any]) -> int:
    """What there is more when it is decoded; the least of a few times, as other threads make objects too."""
    return min(_become_nbytes(decode) for _ in range(3))


def _become_nbytes(decode: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        found = decode()
        after = tracemalloc.get_traced_memory()[0]
        del found
        return after - before
    finally:
        tracemalloc.stop()


def peak_nbytes_until_refused(decode: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="decoded, the lists, objects and texts are over the limit of"):
            decode()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def weight(decode: Callable[[Scale], Any]) -> int:
    scale = Scale(2**40)
    decode(scale)
    return scale.nbytes


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_value_is_more_than_it_weighs(value: Any) -> None:
    for text in (orjson.dumps(value), python_json.dumps(value).encode()):
        assert weight(lambda scale, text=text: json.decode(text, scale=scale)) >= become_nbytes(
            lambda text=text: json.decode(text)
        )
    packed = msgpack.encode(value)
    assert weight(lambda scale: msgpack.decode(packed, scale)) >= become_nbytes(lambda: msgpack.decode(packed))


@settings(max_examples=50)
@given(VALUES)
def test_no_value_is_more_than_it_weighs_whatever_it_is(value: Any) -> None:
    value = [value] * (2 * LEAST_NBYTES // len(orjson.dumps(value)) + 1)
    text, packed = orjson.dumps(value), msgpack.encode(value)
    assert weight(lambda scale: json.decode(text, scale=scale)) >= become_nbytes(lambda: json.decode(text))
    if len(packed) > LEAST_NBYTES:
        assert weight(lambda scale: msgpack.decode(packed, scale)) >= become_nbytes(lambda: msgpack.decode(packed))


@pytest.mark.parametrize("name", ["empty maps", "floats", "integers", "texts that are not ASCII", "lists of five"])
def test_an_honest_value_weighs_a_few_times_of_what_it_is_at_most(name: str) -> None:
    text, packed = orjson.dumps(HOSTILE[name]), msgpack.encode(HOSTILE[name])
    nbytes = become_nbytes(lambda: json.decode(text))
    assert weight(lambda scale: json.decode(text, scale=scale)) < 3.5 * nbytes
    assert weight(lambda scale: msgpack.decode(packed, scale)) < 5.5 * nbytes


def test_json_that_is_too_much_is_refused_before_it_is_decoded() -> None:
    text = b"[" + b"{}," * 10**5 + b"0]"
    assert peak_nbytes_until_refused(lambda: json.decode(text, scale=Scale(10**6))) < 3 * 10**5


@pytest.mark.parametrize("element", [{}, [], [0], "ab", 0.5, {"a": 1}], ids=str)
def test_msgpack_that_is_too_much_is_refused_before_it_is_more_than_twice_that(element: Any) -> None:
    packed = msgpack.encode([element] * 10**5)
    section = reference.packb(["g", {}, reference.ExtType(values.VALUE, reference.packb([0, len(packed)]))])
    most = 2 * 10**6
    assert peak_nbytes_until_refused(lambda: msgpack.decode(packed, Scale(most))) < 2 * most
    body = memoryview(packed)
    assert peak_nbytes_until_refused(lambda: messages.decode_call(section, body, len(packed), Scale(most))) < 2 * most


def test_what_a_request_has_in_several_places_is_weighed_together() -> None:
    text = orjson.dumps([0.5] * 10**4)
    scale = Scale(2 * weight(lambda scale: json.decode(text, scale=scale)))
    json.decode(text, scale=scale)
    json.decode(text, scale=scale)
    with pytest.raises(TooLarge):
        json.decode(text, scale=scale)


@pytest.mark.parametrize("element", [b"", b"ab"])
def test_strings_weigh_no_less_than_they_are(element: bytes) -> None:
    array = np.empty(COUNT, object)
    array[:] = [element] * COUNT
    request = InferRequest((InferTensor("x", "BYTES", array),))
    message, body = grpc.encode_request(request), rest.encode_request(request)
    whole = b"".join(body.parts)
    for decode in (
        lambda scale: grpc.decode_request(message, scale),
        lambda scale: rest.decode_request(whole, body.header_nbytes, scale),
    ):
        assert weight(decode) >= become_nbytes(lambda decode=decode: decode(None)) > 8 * COUNT
        with pytest.raises(TooLarge):
            decode(Scale(COUNT))


def test_a_long_string_weighs_what_it_is() -> None:
    scale = Scale(10**7)
    scale.add_strings(10**6, 1)
    scale.add_text(b"a" * 10**6)
    assert scale.nbytes < 2.001 * 10**6
    scale.add_text("\U0001f600".encode() * 1000)
    assert scale.nbytes >= 2 * 10**6 + 4000


def test_what_is_short_is_not_weighed() -> None:
    text = orjson.dumps([{}] * 5000)
    assert len(text) < LEAST_NBYTES and json.decode(text, scale=Scale(0))
    packed = msgpack.encode([{}] * 5000)
    assert msgpack.decode(packed, Scale(0)) == [{}] * 5000


def test_the_limit_is_eight_bodies_but_no_less_than_64_mb() -> None:
    assert ServiceSettings().max_decoded_nbytes == 8 * ServiceSettings().max_body_nbytes
    assert ServiceSettings(max_body_mb=1).max_decoded_nbytes == LEAST_DECODED_NBYTES == 64 * 10**6
