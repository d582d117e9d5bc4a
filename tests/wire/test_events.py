"""Server-sent events, from whatever pieces they come in."""

from __future__ import annotations

import random

import pytest

from asyncline import BadRequest
from asyncline.wire.events import EventDecoder

STREAM = b"data: 1\n\n: still here\n\nid: 5\ndata: a\ndata:b\n\nevent: done\r\ndata: {}\r\n\r\nevent: lost\n\n"
EVENTS = [("message", b"1"), ("message", b"a\nb"), ("done", b"{}")]


@pytest.mark.parametrize("seed", range(20))
def test_events_are_found_in_whatever_pieces(seed: int) -> None:
    chance, decoder, found, rest = random.Random(seed), EventDecoder(100), [], STREAM
    while rest:
        size = chance.randint(1, 10)
        found += decoder.feed(rest[:size])
        rest = rest[size:]
    assert found == EVENTS


def test_a_stream_in_one_piece_is_the_same() -> None:
    assert EventDecoder(100).feed(STREAM) == EVENTS


@pytest.mark.parametrize("piece", [b"x" * 30, b"data: 0123456789\n"])
def test_an_event_without_an_end_is_refused(piece: bytes) -> None:
    decoder = EventDecoder(100)
    with pytest.raises(BadRequest, match="over the limit of 100 bytes"):
        for _ in range(20):
            decoder.feed(piece)
