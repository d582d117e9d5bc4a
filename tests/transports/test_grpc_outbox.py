"""What one call over gRPC has to say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asyncline.transports.grpc.outbox import INITIAL, JOINED_NBYTES, Outbox
from tests.transports.grpc_door import framed


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 100, JOINED_NBYTES, JOINED_NBYTES + 1]), st.booleans()), max_size=4),
    st.lists(st.integers(1, 40_000), min_size=1),
)
def test_messages_are_taken_in_pieces_of_any_length(messages: list[tuple[int, bool]], windows: list[int]) -> None:
    out = Outbox()
    expected = b""
    for nbytes, is_compressed in messages:
        expected += (whole := framed(bytes(nbytes), int(is_compressed)))
        assert out.put(bytes(nbytes), int(is_compressed)) == len(whole)
    found = b""
    while out:
        assert out.nbytes == len(expected) - len(found) > 0
        piece = out.take(windows[len(found) % len(windows)])
        assert 0 < len(piece) <= max(windows)
        found += piece
    assert found == expected and not out.nbytes


def test_the_headers_are_said_once_with_the_encoding() -> None:
    plain, out = Outbox(), Outbox()
    out.encoding = "gzip"
    assert (plain.initial(), plain.initial()) == (INITIAL, None)
    assert (out.initial(), out.initial()) == ([*INITIAL, ("grpc-encoding", "gzip")], None)


def test_what_is_short_or_for_who_does_not_compress_is_not_compressed() -> None:
    plain, out = Outbox(), Outbox()
    out.encoding = "gzip"
    assert not plain.compresses(bytes(10_000)) and not out.compresses(bytes(10)) and out.compresses(bytes(10_000))


def test_what_is_forgotten_waits_no_more() -> None:
    out = Outbox()
    out.put(b"x", 0)
    assert repr(out) == "<Outbox 6 bytes>"
    out.trailers = []
    out.clear()
    assert not out and repr(out) == "<Outbox 0 bytes, and the end>"
