"""Msgpack of a stranger: what it says of its lengths is not believed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack as reference
import numpy as np
import pytest

from asyncline.errors import BadRequest, RequestError, TooLarge
from asyncline.wire import msgpack
from asyncline.wire.frame import messages, values
from asyncline.wire.frame.values import MAX_SECTIONS


def claims(nbytes: int, depth: int, head: bytes) -> bytes:
    """`depth` heads, each inside of the other, that each say that all the rest is theirs."""
    one = len(head) + 2
    heads = b"".join(head + min(nbytes - one * (place + 1), 2**16 - 1).to_bytes(2, "big") for place in range(depth))
    return heads.ljust(nbytes, b"\xc0")


def peak_nbytes(decode: Callable[[], Any], error: type[RequestError]) -> int:
    """Most memory that there is at once until it is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(error):
            decode()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("nbytes", [600, 4096, 65_000])
@pytest.mark.parametrize("head", [b"\xdc", b"\xde"], ids=["arrays", "maps"])
def test_no_room_is_made_for_what_is_only_said_to_come(nbytes: int, head: bytes) -> None:
    body = claims(nbytes, min(500, nbytes // 3), head)
    section = memoryview(body)
    place = reference.packb(["graph", {}, reference.ExtType(values.VALUE, reference.packb([0, nbytes]))])
    decoders: list[Callable[[], Any]] = [
        lambda: msgpack.decode(body),
        lambda: msgpack.decode(body, answer=True),
        lambda: values.decode_limited(body, None, 0),
        lambda: messages.decode_call(place, section, nbytes),
        lambda: messages.decode_client_hello(messages.VERSION, body),
        lambda: messages.decode_more(body),
    ]
    for decode in decoders:
        assert peak_nbytes(decode, BadRequest) < 2**18


def test_no_room_is_made_for_the_shape_that_an_array_is_said_to_have() -> None:
    said = b"\x93\xa4int8" + claims(65_000, 500, b"\xdc")
    tensor = reference.packb(reference.ExtType(msgpack.TENSOR, said))
    section = reference.packb(["graph", {}, reference.ExtType(values.TENSOR, said)])
    assert peak_nbytes(lambda: msgpack.decode(tensor), BadRequest) < 2**18
    assert peak_nbytes(lambda: messages.decode_call(section, memoryview(b""), 0), BadRequest) < 2**18


def test_a_request_has_so_many_arrays_at_most() -> None:
    array = np.zeros(0, np.int8)
    as_many = msgpack.encode([array] * MAX_SECTIONS, tensors=True)
    assert len(msgpack.decode(as_many)) == MAX_SECTIONS
    too_many = msgpack.encode([array] * (MAX_SECTIONS + 1), tensors=True)
    with pytest.raises(TooLarge, match="more than 4096 arrays"):
        msgpack.decode(too_many)
    assert len(msgpack.decode(too_many, answer=True)) == MAX_SECTIONS + 1


def test_a_call_has_so_many_sections_at_most() -> None:
    encoder = values.Encoder(copy=False)

    def decode(count: int) -> Any:
        array = np.zeros(0, np.int8)
        parts, nbytes = messages.encode_call(encoder, 1, "g", messages.NO_OPTIONS, [array] * count)
        assert not nbytes
        return messages.decode_call(bytes(parts[0])[12:], None, 0)[2]

    assert len(decode(MAX_SECTIONS)) == MAX_SECTIONS
    with pytest.raises(TooLarge, match="more than 4096 arrays"):
        decode(MAX_SECTIONS + 1)
