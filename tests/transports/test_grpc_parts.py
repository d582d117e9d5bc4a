"""The parts of the gRPC server that have no socket: frames counted, messages put together."""

from __future__ import annotations

import gzip
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncline.errors import Overloaded, RequestError
from asyncline.transports.grpc.inbox import Inbox
from asyncline.transports.grpc.limits import CallLimits
from asyncline.transports.grpc.meter import PREFACE, Abuse, Meter
from tests.transports.grpc_door import framed


def frame(kind: int, nbytes: int = 0, flags: int = 0) -> bytes:
    return nbytes.to_bytes(3, "big") + bytes((kind, flags, 0, 0, 0, 1)) + bytes(nbytes)


def walked(meter: Meter, data: bytes, most: int = 10) -> int:
    """Walk through everything; returns in how many steps."""
    steps = 0
    while data:
        data = data[meter.walk(data, most) :]
        steps += 1
    return steps


@given(cuts=st.lists(st.integers(0, 2000), max_size=20), sizes=st.lists(st.integers(0, 300), max_size=20))
def test_frames_are_found_however_they_are_cut(cuts: list[int], sizes: list[int]) -> None:
    data = PREFACE + b"".join(frame(6, nbytes) for nbytes in sizes)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    for allowed in (len(sizes), len(sizes) - 1):
        meter = Meter(CallLimits(chatter=allowed), lambda: 0.0)
        if allowed == len(sizes):
            for piece in pieces:
                walked(meter, piece, 1000)
        elif sizes:
            with pytest.raises(Abuse):
                for piece in pieces:
                    walked(meter, piece, 1000)


def test_so_many_frames_are_taken_at_a_time() -> None:
    meter = Meter(CallLimits(), lambda: 0.0)
    data = PREFACE + frame(0, 5) * 95
    assert meter.walk(data, 10) == len(PREFACE) + 10 * 14
    assert walked(meter, data[len(PREFACE) + 10 * 14 :]) == 9


def test_long_frames_are_not_counted_as_they_take_no_longer_than_their_bytes() -> None:
    meter = Meter(CallLimits(), lambda: 0.0)
    long = frame(0, 2**14)
    assert meter.walk(PREFACE + long * 20, 10) == len(PREFACE + long * 20)
    mixed = (frame(1, 5) + long) * 20
    assert meter.walk(mixed, 10) == len(mixed) // 2 - len(long)


def test_what_is_used_up_comes_back_with_time_and_with_calls() -> None:
    now = 0.0
    meter = Meter(CallLimits(chatter=2, chatter_per_s=1, chatter_per_frame=1, resets=1, resets_per_s=1), lambda: now)
    walked(meter, PREFACE + frame(6) * 2)
    with pytest.raises(Abuse):
        walked(meter, frame(6))
    now = 3.0
    walked(meter, frame(6) + (frame(1) + frame(6)) * 100 + frame(3))
    with pytest.raises(Abuse):
        walked(meter, frame(3))


@given(
    messages=st.lists(st.binary(max_size=100), max_size=6),
    compressed=st.booleans(),
    cuts=st.lists(st.integers(0, 1000), max_size=12),
)
def test_messages_are_put_together_however_they_are_cut(
    messages: list[bytes], compressed: bool, cuts: list[int]
) -> None:
    data = b"".join(framed(gzip.compress(message), 1) if compressed else framed(message) for message in messages)
    taken: list[int] = []
    inbox = Inbox(1000, "gzip", taken.append, lambda nbytes: taken.append(-nbytes))
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(places):
        inbox.feed(data[start:end])
    found = [zlib.decompress(each.data, each.wbits) if compressed else bytes(each.data) for each in inbox.messages]
    assert found == messages and not inbox.is_partial
    assert sum(taken) == sum(message.nbytes for message in inbox.messages) >= sum(map(len, messages))
    inbox.clear()
    assert not sum(taken)


@given(data=st.binary(max_size=200), encoding=st.sampled_from(["identity", "gzip", "deflate"]))
def test_anything_is_a_message_or_an_error_and_the_budget_comes_back(data: bytes, encoding: str) -> None:
    taken: list[int] = []
    inbox = Inbox(100, encoding, taken.append, lambda nbytes: taken.append(-nbytes))
    try:
        inbox.feed(data)
    except RequestError:
        pass
    inbox.clear()
    assert not sum(taken)


def test_a_message_without_room_takes_nothing() -> None:
    def refuse(nbytes: int) -> None:
        raise Overloaded("full")

    released: list[int] = []
    inbox = Inbox(100, "identity", refuse, released.append)
    with pytest.raises(Overloaded):
        inbox.feed(framed(b"hello"))
    inbox.clear()
    assert released == [0]
