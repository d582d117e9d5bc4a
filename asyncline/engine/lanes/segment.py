"""Segments: shared memory that one process writes and others read.

Every process of the pool, and the server itself, writes only to segments of its own, which others map
read-only: nobody can write into what somebody else is reading, and a late write of a hung worker goes
nowhere. A segment is an anonymous memfd, so nothing is left in /dev/shm however a process ends. Pages
that are not touched take no memory, so sizes are rounded up generously and segments are used again.

A hold on a segment is an array right over its mapping. The writer has one from `take`, a reader one for each
message that names the segment. Whatever else looks at that memory looks through the array, and so keeps it:
numpy follows `base` no further, as what is under it is no array. When it dies, `sweep` gives an own segment
back for the next use, and hands back a hold to the peer that lent it. A segment that is filled and sent, and that
nothing here looks at, needs no array: it is lent, until whoever has done that gives it back. And what a hook only
looks at while it runs is Borrowed.
"""

from __future__ import annotations

import mmap
import os
import sys
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]
Key = int
"""The number of the writing process (0 is the server), shifted by OWNER_SHIFT, and of the segment there: one number, as
keys are in every message, and a tuple of two takes longer to write and to look up."""
OWNER_SHIFT = 48

SMALLEST = 64 * 1024
LARGEST_KEPT = 64 * 1024 * 1024
"""Larger segments are not kept for the next use."""
KEEP_BYTES = 128 * 1024 * 1024
"""Bytes in free segments that a process keeps for the next use."""
KEEP_COUNT = 128
"""How many of them, as each has a descriptor here and in every process that knows it."""

_BYTES = np.dtype(np.uint8)


class SegmentsFull(Exception):
    """Expected error: all the memory that this process may use is in use."""


class Lender(Protocol):
    """The peer that named a segment in a message, and wants its hold back."""

    returns: list[Key]


class Reader(Protocol):
    """Segments, or Borrowed."""

    def view(
        self, key: Key, lender: Lender, shape: tuple[int, ...] | None = ..., dtype: Any = ..., offset: int = ...
    ) -> Array: ...


class Segment(mmap.mmap):
    """One mapped segment: writable here where it is an own one."""

    __slots__ = ("address", "descriptor", "holds", "is_lent", "is_own", "key")

    key: Key
    descriptor: int
    is_own: bool
    #: See `Segments.lend`.
    is_lent: bool
    address: int
    #: Those that are alive, or that `sweep` has not seen dead.
    holds: set[Hold]


class Hold(weakref.ref[Array]):
    """Notes the end of the array that holds a segment."""

    __slots__ = ("lender", "segment")

    segment: Segment
    lender: Lender | None

    # It is what it is, not the array that it refers to.
    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Segments:
    """All segments that this process writes or reads.

    :param owner: this process's number.
    :param max_bytes: most bytes in own segments that are in use.
    """

    def __init__(self, owner: int, max_bytes: int) -> None:
        self.owner = owner
        self.max_bytes = max_bytes
        self.used_bytes = 0
        #: Called, from any thread, whenever a hold dies or comes back; set while somebody waits for memory.
        self.on_drop: Callable[[], None] | None = None
        #: Called with the key of a segment that is gone for good.
        self.on_close: Callable[[Key], None] | None = None
        self._count = 0
        self.by_key: dict[Key, Segment] = {}
        #: By size.
        self._free: dict[int, list[Segment]] = defaultdict(list)
        self._free_bytes = 0
        self._free_count = 0
        #: Segments of processes that are gone, which something here still reads.
        self._orphans: set[Key] = set()
        #: Bytes in segments of others that something here still reads.
        self.read_bytes = 0
        #: What `sweep` takes note of next. A deque: the last reference to an array may die in any thread.
        self.dropped: deque[Hold] = deque()
        self._note = self._note_dropped

    # -- writing ------------------------------------------------------------------------------------

    def take(self, nbytes: int) -> Array:
        """A hold on an own segment of at least `nbytes`, to be filled: all bytes of it.

        :raises SegmentsFull: it would be more than `max_bytes` in all. A lone one always fits.
        :raises OSError: the machine has no memory.
        """
        segment = self.lend(nbytes)
        segment.is_lent = False
        hold = self.view(segment.key, None)
        hold.flags.writeable = True
        return hold

    def lend(self, nbytes: int) -> Segment:
        """An own segment of at least `nbytes`, to be filled and sent, until `give_back`; raises as `take`."""
        if self.dropped:
            self.sweep()
        size = max(SMALLEST, 1 << (nbytes - 1).bit_length()) if nbytes <= LARGEST_KEPT else nbytes
        if self.used_bytes and self.used_bytes + size > self.max_bytes:
            raise SegmentsFull(f"{self.used_bytes} bytes are in use, and {size} more are too many")
        free = self._free[size]
        if free:
            segment = free.pop()
            self._free_bytes -= size
            self._free_count -= 1
        else:
            segment = self._make(size)
        self.used_bytes += size
        segment.is_lent = True
        return segment

    def give_back(self, segment: Segment) -> None:
        """One that was lent is read no more."""
        segment.is_lent = False
        if not segment.holds and segment.key in self.by_key:
            self._give(segment)
        if self.on_drop is not None:
            self.on_drop()

    def drop(self, holds: Iterable[Array | Segment]) -> None:
        """Nobody was told of these, or whoever was is gone."""
        for hold in holds:
            if isinstance(hold, Segment):
                self.give_back(hold)

    def _make(self, size: int) -> Segment:
        self._count += 1
        key = self.owner << OWNER_SHIFT | self._count
        descriptor = os.memfd_create(f"asyncline {self.owner}", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, size)
            return self._map(key, size, descriptor, mmap.ACCESS_WRITE)
        except BaseException:
            os.close(descriptor)
            raise

    # -- reading ------------------------------------------------------------------------------------

    def add(self, key: Key, size: int, descriptor: int) -> None:
        """The descriptor of another's segment has come; it is ours now."""
        self._map(key, size, descriptor, mmap.ACCESS_READ)

    def view(
        self,
        key: Key,
        lender: Lender | None,
        shape: tuple[int, ...] | None = None,
        dtype: np.dtype[Any] | str = _BYTES,
        offset: int = 0,
    ) -> Array:
        """A hold on a segment that a message of `lender` names, read-only.

        :param shape: of the hold, which begins at `offset`; None: all bytes of the segment.
        """
        segment = self.by_key[key]
        array: Array = np.ndarray((len(segment),) if shape is None else shape, dtype, segment, offset)
        if segment.is_own:
            array.flags.writeable = False
        self.hold(array, lender)
        return array

    def hold(self, array: Array, lender: Lender | None) -> None:
        """Make an array right over a segment a hold, which goes back to `lender` when it dies."""
        segment: Segment = array.base  # type: ignore[assignment]
        if not segment.holds and not segment.is_own:
            self.read_bytes += len(segment)
        hold = Hold(array, self._note)
        hold.segment = segment
        hold.lender = lender
        segment.holds.add(hold)

    def forget(self, key: Key) -> None:
        """A segment is gone for good. Whatever still refers to the memory keeps it."""
        segment = self.by_key.pop(key, None)
        if segment is not None:
            segment.holds.clear()
            os.close(segment.descriptor)
            if self.on_close is not None:
                self.on_close(key)

    def forget_owner(self, owner: int) -> None:
        """A process is gone. What nobody reads of its segments goes too; the rest, when nobody reads it any more:
        until then it may well be handed on.
        """
        self.sweep()
        for key, segment in tuple(self.by_key.items()):
            if key >> OWNER_SHIFT != owner:
                continue
            if segment.holds:
                self._orphans.add(key)
            else:
                self.forget(key)

    # -- both ---------------------------------------------------------------------------------------

    def _map(self, key: Key, size: int, descriptor: int, access: int) -> Segment:
        segment = Segment(descriptor, size, access=access)
        segment.key, segment.descriptor, segment.is_own = key, descriptor, key >> OWNER_SHIFT == self.owner
        segment.address = _address(np.frombuffer(segment, np.uint8))
        segment.holds = set()
        segment.is_lent = False
        self.by_key[key] = segment
        return segment

    def _note_dropped(self, ended: Hold) -> None:
        self.dropped.append(ended)
        if self.on_drop is not None:
            self.on_drop()

    def descriptor(self, key: Key) -> int:
        return self.by_key[key].descriptor

    def exempt(self, hold: Array) -> None:
        """Do not count one that stays for as long as the process."""
        self.used_bytes -= len(hold.base)  # type: ignore[arg-type]

    def sweep(self) -> None:
        """Take note of the holds that have died: own segments become free, lenders get theirs back."""
        dropped = self.dropped
        while dropped:
            ended = dropped.popleft()
            segment = ended.segment
            if ended.lender is not None:
                ended.lender.returns.append(segment.key)
            segment.holds.discard(ended)
            if segment.holds or segment.is_lent or segment.key not in self.by_key:
                continue
            if segment.is_own:
                self._give(segment)
                continue
            self.read_bytes -= len(segment)
            if segment.key in self._orphans:
                self._orphans.discard(segment.key)
                self.forget(segment.key)

    def _give(self, segment: Segment) -> None:
        size = len(segment)
        self.used_bytes -= size
        if size > LARGEST_KEPT or self._free_bytes + size > KEEP_BYTES or self._free_count >= KEEP_COUNT:
            self.forget(segment.key)
        else:
            self._free[size].append(segment)
            self._free_bytes += size
            self._free_count += 1

    def close(self) -> None:
        """Close all descriptors; memory that something still refers to stays until that goes."""
        for key in tuple(self.by_key):
            self.forget(key)
        self._free.clear()
        self.dropped.clear()

    def __repr__(self) -> str:
        return f"<Segments of {self.owner}: {self.used_bytes} bytes in use, {len(self.by_key)} segments>"


def _count_lone() -> int:
    """What is counted in `Borrowed.end` for an array that nothing else refers to."""
    arrays = [(np.empty(0), None)]
    array, _ = arrays.pop()
    return sys.getrefcount(array)


_LONE = _count_lone()


class Borrowed:
    """What a hook reads of the segments of others: most of it for just as long as the hook runs.

    An array that is let go by then needs no Hold: to make one and to note its end is a part of what a short task takes.
    """

    def __init__(self, segments: Segments) -> None:
        self._segments = segments
        self._by_key = segments.by_key
        self._arrays: list[tuple[Array, Lender]] = []

    def view(
        self,
        key: Key,
        lender: Lender,
        shape: tuple[int, ...] | None = None,
        dtype: np.dtype[Any] | str = _BYTES,
        offset: int = 0,
    ) -> Array:
        """As that of Segments; a hold only if it outlives `end`."""
        segment = self._by_key[key]
        array: Array = np.ndarray((len(segment),) if shape is None else shape, dtype, segment, offset)
        if segment.is_own:
            array.flags.writeable = False
        self._arrays.append((array, lender))
        return array

    def end(self) -> None:
        """The hook is over: what nothing else refers to goes back to its lender."""
        while self._arrays:
            array, lender = self._arrays.pop()
            if sys.getrefcount(array) == _LONE:
                lender.returns.append(array.base.key)  # type: ignore[union-attr]
            else:
                self._segments.hold(array, lender)


def find_hold(memory: memoryview | Array) -> tuple[Array, Segment, int] | None:
    """The hold that `memory` looks through, its segment, and where in that it begins; None if it lies elsewhere."""
    holder: Any = memory
    while True:
        if isinstance(holder, np.ndarray):
            below: Any = holder.base
        elif isinstance(holder, memoryview):
            below = holder.obj
        else:
            return None
        if type(below) is Segment:
            return holder, below, _address(memory) - below.address
        holder = below


def _address(memory: memoryview | Array) -> int:
    array = memory if isinstance(memory, np.ndarray) else np.frombuffer(memory, np.uint8)
    address: int = array.__array_interface__["data"][0]
    return address
