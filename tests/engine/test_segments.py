"""Values that cross between processes: two ends of a Link, here in one process."""

from __future__ import annotations

import gc
import os
import pickle
import socket
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from asyncline.engine.lanes import crossing
from asyncline.engine.lanes.crossing import LONG_BYTES, pack, unpack
from asyncline.engine.lanes.link import Link, Sockets
from asyncline.engine.lanes.segment import KEEP_BYTES, LARGEST_KEPT, Borrowed, Segments, SegmentsFull

BIG = 100_000
"""Bytes enough to lie in a segment."""


class End:
    """One end: its segments and its Link."""

    def __init__(self, owner: int, sockets: Sockets, max_bytes: int) -> None:
        for each in sockets:
            each.setblocking(False)
        self.segments = Segments(owner, max_bytes)
        self.link = Link(sockets, self.segments)
        self.segments.on_close = self.link.note_closed

    def send(self, value: Any) -> None:
        packed, holds, _ = pack(value, self.segments)
        self.link.send(("value", packed), holds)

    def receive(self) -> Any:
        ((kind, *fields),) = self.link.receive()
        return unpack(fields[0], self.segments, self.link) if kind == "value" else None

    def flush(self) -> None:
        """Hand back whatever has been let go."""
        gc.collect()
        self.link.send(("returns",))


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    gc.collect()  # what the test before left to the collector must not go in between
    before = len(os.listdir("/proc/self/fd"))
    here, there = (End(owner, sockets, 10 * 2**20) for owner, sockets in enumerate(Sockets.pair()))
    yield here, there
    for end in (here, there):
        end.link.close()
        end.segments.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def cross(ends: tuple[End, End], value: Any) -> Any:
    here, there = ends
    here.send(value)
    return there.receive()


def settle(ends: tuple[End, End]) -> None:
    """Both hand back whatever has been let go, and the first end knows."""
    here, there = ends
    here.flush()
    there.receive()
    there.flush()
    here.receive()
    here.segments.sweep()


@dataclass
class Page:
    pixels: np.ndarray[Any, Any]
    name: str


VALUES = {
    "a number": 7,
    "text": "x" * 50_000,
    "bytes": os.urandom(200_000),
    "an array": np.arange(BIG, dtype=np.int16),
    "a small array": np.arange(6).reshape(2, 3),
    "a column-major array": np.asfortranarray(np.arange(60_000.0).reshape(200, 300)),
    "a strided array": np.arange(BIG)[::3],
    "a structured array": np.zeros(5000, dtype=[("x", "f4"), ("name", "U4")]),
    "an array of objects": np.array([{"a": 1}, None], dtype=object),
    "an empty array": np.empty((0, 4)),
    "a scalar array": np.array(3.5),
    "dates": np.arange("2026-01", "2026-12", dtype="datetime64[D]"),
    "nested": {"a": [np.ones((300, 300)), (b"y" * 9000, None)], "b": {"c": np.zeros(5)}},
    "many arrays": [np.full(3000, n, np.uint16) for n in range(500)],
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_crosses_whole(name: str, ends: tuple[End, End]) -> None:
    got = cross(ends, VALUES[name])
    np.testing.assert_equal(got, VALUES[name])
    assert type(got) is type(VALUES[name])
    del got


def test_a_class_of_the_users_crosses_with_its_arrays_beside_it(ends: tuple[End, End]) -> None:
    got = cross(ends, Page(np.ones((500, 500), np.uint8), "one"))
    assert isinstance(got, Page) and got.name == "one" and got.pixels.sum() == 250_000
    assert type(got.pixels) is np.ndarray
    del got


def test_the_receivers_arrays_are_read_only(ends: tuple[End, End]) -> None:
    got = cross(ends, np.zeros(BIG))
    with pytest.raises(ValueError, match="read-only"):
        got[0] = 1
    del got


def test_what_pickle_refuses_takes_no_memory(ends: tuple[End, End]) -> None:
    here, _ = ends
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pack([np.zeros(BIG), (n for n in range(3))], here.segments)
    here.segments.sweep()
    assert here.segments.used_bytes == 0


def test_a_segment_is_used_again_once_the_last_array_over_it_is_gone(ends: tuple[End, End]) -> None:
    here, there = ends
    got = cross(ends, [np.zeros(BIG, np.uint8), np.ones(BIG, np.uint8)])
    part = got[1][10:20]
    del got
    there.flush()
    here.receive()
    here.segments.sweep()
    assert here.segments.used_bytes > 0 and part.sum() == 10
    del part
    there.flush()
    here.receive()
    here.segments.sweep()
    assert here.segments.used_bytes == 0
    for _ in range(50):
        again = cross(ends, np.zeros(2 * BIG, np.uint8))
        del again
        there.flush()
        here.receive()
    assert len(here.segments.by_key) == 1


def test_an_array_that_goes_back_is_not_copied(ends: tuple[End, End]) -> None:
    """What came in a segment and is handed on, or back, stays where it is."""
    here, there = ends
    got = cross(ends, np.arange(BIG))
    there.send({"same": got, "part": got[1000:9000]})
    back = here.receive()
    assert there.segments.used_bytes <= 64 * 1024  # the index and the pickle only
    assert (back["same"] == np.arange(BIG)).all() and back["part"][0] == 1000
    assert np.shares_memory(back["same"], back["part"])
    # The first hold goes; the memory stays for those that came back.
    del got
    there.flush()
    here.receive()
    cross(ends, np.full(BIG, 7))
    assert back["same"][5] == 5
    del back
    settle(ends)
    there.segments.sweep()
    assert there.segments.used_bytes == 0


def test_whatever_looks_at_a_received_array_keeps_its_memory(ends: tuple[End, End]) -> None:
    here, there = ends
    looks: list[Callable[[np.ndarray[Any, Any]], Any]] = [
        lambda array: array[5:],
        lambda array: array.reshape(2, -1).T,
        lambda array: array.view(np.uint8),
        lambda array: memoryview(array)[5:],
        lambda array: np.frombuffer(array.data, array.dtype)[::2],
        lambda array: np.lib.stride_tricks.as_strided(array, (4,), array.strides),
        lambda array: np.asarray(memoryview(array)).view(np.recarray),
        lambda array: {"in": [array.ravel()]},
    ]
    for look in looks:
        array = cross(ends, np.arange(BIG))
        seen = look(array)
        del array
        there.segments.sweep()
        assert there.segments.read_bytes > 0 and not there.link.returns
        del seen
        there.segments.sweep()
        assert there.segments.read_bytes == 0 and len(there.link.returns) == 1
        there.flush()
        here.receive()


def test_several_arrays_of_one_value_share_a_segment_until_the_last_is_gone(ends: tuple[End, End]) -> None:
    here, there = ends
    first, number, second = cross(ends, (np.zeros(BIG), 7, np.arange(BIG, dtype=np.int16)))
    assert number == 7 and second[255] == 255 and not first.any()
    assert len(here.segments.by_key) == 1
    del first
    there.segments.sweep()
    assert there.segments.read_bytes > 0
    del second
    there.segments.sweep()
    assert there.segments.read_bytes == 0 and len(there.link.returns) == 1


def test_an_array_of_a_link_that_is_closed_stays_whole_and_lets_go_of_its_memory(ends: tuple[End, End]) -> None:
    here, there = ends
    got = cross(ends, np.arange(BIG))
    mapping = weakref.ref(got.base)
    here.link.close()
    here.segments.close()
    there.link.close()
    there.segments.close()
    assert got[-1] == BIG - 1
    gc.disable()
    try:
        del got
        assert mapping() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "pickled"])
def test_long_arrays_cross_whole(nested: bool, ends: tuple[End, End]) -> None:
    values = tuple(np.arange(LONG_BYTES // 2, dtype=dtype).reshape(2, -1) for dtype in (np.int64, np.float16, np.uint8))
    got = cross(ends, [*values] if nested else values)
    for one, value in zip(got, values, strict=True):
        np.testing.assert_array_equal(one, value, strict=True)
    del got, one


@pytest.mark.parametrize("value", [np.zeros(BIG), [np.zeros(BIG)]], ids=["plain", "pickled"])
def test_what_is_packed_and_dropped_takes_no_memory(value: Any, ends: tuple[End, End]) -> None:
    here, _ = ends
    _, holds, _ = pack(value, here.segments)
    assert here.segments.used_bytes > 0
    here.segments.drop(holds)
    assert here.segments.used_bytes == 0


@pytest.mark.parametrize("value", [np.zeros(BIG), [np.zeros(BIG)]], ids=["plain", "pickled"])
def test_what_cannot_be_filled_takes_no_memory(
    value: Any, ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    here, _ = ends
    monkeypatch.setattr(crossing, "_fill", fail)
    with pytest.raises(MemoryError):
        pack(value, here.segments)
    assert here.segments.used_bytes == 0


def test_what_was_lent_to_a_peer_that_is_gone_takes_no_memory(ends: tuple[End, End]) -> None:
    here, _ = ends
    here.send(np.zeros(BIG))
    here.send([np.zeros(BIG)])
    here.link.close()
    assert here.segments.used_bytes == 0


def test_an_array_that_went_to_and_fro_is_let_go(ends: tuple[End, End]) -> None:
    """The peer reads what it was lent until we let go of what it has handed back; that it reads, too."""
    here, there = ends
    got = cross(ends, np.zeros(BIG))
    there.send(got)
    del got
    back = here.receive()
    here.send(back)
    del back
    again = there.receive()
    assert again.nbytes == 8 * BIG
    del again
    settle(ends)
    settle(ends)
    assert here.segments.used_bytes == 0


def test_an_array_that_comes_back_as_its_hold_does_is_not_written_over(ends: tuple[End, End]) -> None:
    here, there = ends
    got = cross(ends, np.arange(BIG))
    packed, holds, _ = pack(got, there.segments)
    there.link.put(("value", packed), holds)
    del got, holds
    there.flush()  # in one packet: the array, and the hold on where it lies
    (_, packed), _ = here.link.receive()
    back = unpack(packed, here.segments, here.link)
    cross(ends, np.full(BIG, 7))
    assert back[5] == 5
    del back
    settle(ends)
    assert here.segments.used_bytes == 0


def test_packets_may_come_in_pieces(ends: tuple[End, End]) -> None:
    here, there = ends
    whole, there_too = here.link.sockets.packets, socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with there_too[0] as out, there_too[1] as back:
        here.link._packets = out
        here.send("first")
        here.send(np.arange(BIG))
        here.link._packets = whole
        data = back.recv(10_000)
    got: list[Any] = []
    for byte in range(len(data)):
        whole.send(data[byte : byte + 1])
        got += there.link.receive()
    (_, first), (_, second) = got
    assert unpack(first, there.segments, there.link) == "first"
    assert unpack(second, there.segments, there.link)[5] == 5
    del got, first, second


def test_one_call_reads_all_packets_that_are_there(ends: tuple[End, End]) -> None:
    here, there = ends
    for number in range(20):
        here.send(np.full(BIG, number, np.uint8))
    got = [unpack(packed, there.segments, there.link)[7] for _, packed in there.link.receive()]
    assert got == [*range(20)] and there.link.is_drained
    with pytest.raises(BlockingIOError):
        there.link.receive()


def test_more_than_fits_a_read_is_read_by_several(ends: tuple[End, End]) -> None:
    here, there = ends
    texts = [f"{number % 10}" * 1_500 for number in range(60)]
    got: list[Any] = []
    reads = 0
    for text in texts:
        here.send(text)
    there.link._view = memoryview(bytearray(25_000))
    while len(got) < len(texts):
        got += there.link.receive()
        reads += 1
    assert [unpack(packed, there.segments, there.link) for _, packed in got] == texts and reads > 3


def test_full_memory_is_said_and_a_lone_value_always_fits(ends: tuple[End, End]) -> None:
    here, there = ends
    kept = cross(ends, np.zeros(40 * 2**20, np.uint8))
    assert kept.nbytes == 40 * 2**20
    with pytest.raises(SegmentsFull):
        here.send(np.zeros(BIG))
    del kept
    there.flush()
    here.receive()
    here.segments.sweep()
    assert cross(ends, np.zeros(BIG)).size == BIG


def test_a_segment_too_large_to_keep_is_given_up_at_both_ends(ends: tuple[End, End]) -> None:
    here, there = ends
    got = cross(ends, np.zeros(LARGEST_KEPT + 1, np.uint8))
    del got
    there.flush()
    here.receive()
    here.segments.sweep()
    assert here.segments.used_bytes == 0 and len(here.segments.by_key) == 0
    here.flush()
    there.receive()
    assert len(there.segments.by_key) == 0
    assert KEEP_BYTES >= LARGEST_KEPT


def test_the_end_of_the_peer_is_an_eof(ends: tuple[End, End]) -> None:
    here, there = ends
    there.link.close()
    with pytest.raises(EOFError):
        here.receive()
    with pytest.raises(OSError):
        here.send(1)


def test_a_link_that_is_silent_does_not_wait(ends: tuple[End, End]) -> None:
    with pytest.raises(BlockingIOError):
        ends[0].receive()


def test_what_a_peer_sent_before_it_died_is_read_though_it_left_ours_unread(ends: tuple[End, End]) -> None:
    here, there = ends
    there.send("its last words")
    here.send("never read")
    there.link.sockets.close()
    assert here.receive() == "its last words"
    with pytest.raises(EOFError):
        here.receive()


KEEPERS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda array: array,
    "a view": lambda array: array[1:][2:],
    "a list": lambda array: [array],
    "a memoryview": lambda array: memoryview(array)[8:],
    "a field": lambda array: Page(array, ""),
    "a cycle": lambda array: (cycle := [array]).append(cycle) or cycle,  # type: ignore[func-returns-value]
}


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "pickled"])
def test_what_was_borrowed_goes_back_at_the_end(nested: bool, ends: tuple[End, End]) -> None:
    here, there = ends
    borrowed = Borrowed(there.segments)
    for value in ((np.arange(BIG),), (np.arange(BIG), 1, np.ones(BIG))):
        here.send([*value] if nested else value)
        ((_, packed),) = there.link.receive()
        got = unpack(packed, borrowed, there.link)
        assert got[0][5] == 5 and not got[0].flags.writeable
        del got
        borrowed.end()
        assert there.segments.read_bytes == 0
        there.flush()
        here.receive()
        assert here.segments.used_bytes == 0


@pytest.mark.parametrize("keep", KEEPERS.values(), ids=KEEPERS)
def test_what_was_borrowed_and_kept_goes_back_when_it_dies(keep: Callable[[Any], Any], ends: tuple[End, End]) -> None:
    here, there = ends
    borrowed = Borrowed(there.segments)
    here.send((np.arange(BIG),))
    ((_, packed),) = there.link.receive()
    kept = keep(*unpack(packed, borrowed, there.link))
    borrowed.end()
    assert there.segments.read_bytes > 0
    there.flush()
    here.receive()
    assert here.segments.used_bytes > 0
    del kept
    there.flush()
    here.receive()
    assert here.segments.used_bytes == 0
