"""Segments: shared memory that one process writes and others read.

Every process of the pool, and the server itself, writes only to segments of its own, which others map
read-only: nobody can write into what somebody else is reading, and a late write of a hung worker goes
nowhere. A segment is an anonymous memfd, so nothing is left in /dev/shm however a process ends. Pages
that are not touched take no memory, so sizes are rounded up generously and segments are used again.

A Block is one hold on a segment. The writer has one from `take`, a reader one for each message that names
the segment; arrays over a Block keep it. When the last of them dies, `sweep` gives an own segment back for
the next use, and hands back a hold to the peer that lent it.
"""

from __future__ import annotations

import mmap
import os
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Key = tuple[int, int]
"""The number of the writing process (0 is the server) and of the segment there."""

SMALLEST = 64 * 1024
LARGEST_KEPT = 64 * 1024 * 1024
"""Larger segments are not kept for the next use."""
KEEP_BYTES = 128 * 1024 * 1024
"""Bytes in free segments that a process keeps for the next use."""
KEEP_COUNT = 128
"""How many of them, as each has a descriptor here and in every process that knows it."""


class SegmentsFull(Exception):
    """Expected error: all the memory that this process may use is in use."""


class Lender(Protocol):
    """The peer that named a segment in a message, and wants its hold back."""

    returns: list[Key]


class Block(np.ndarray[Any, Any]):
    """A hold on a segment: its bytes, uint8, `[size]`; read-only but for the one that `take` returns."""

    key: Key
    lender: Lender | None
    segments: Segments | None = None

    def __del__(self) -> None:
        if self.segments is not None:
            self.segments.dropped(self.key, self.lender)


@dataclass(frozen=True)
class _Memory:
    descriptor: int
    bytes: np.ndarray[Any, Any]
    """uint8, [size], over the mapping, which lives as long as anything refers to it."""


class Segments:
    """All segments that this process writes or reads.

    :param owner: this process's number.
    :param max_bytes: most bytes in own segments that are in use.
    """

    def __init__(self, owner: int, max_bytes: int) -> None:
        self.owner = owner
        self.max_bytes = max_bytes
        self.used_bytes = 0
        #: Called, from any thread, whenever a Block dies; set while somebody waits for memory.
        self.on_drop: Callable[[], None] | None = None
        #: Called with the key of a segment that is gone for good.
        self.on_close: Callable[[Key], None] | None = None
        self._count = 0
        self._memories: dict[Key, _Memory] = {}
        self._uses: dict[Key, int] = {}
        self._free: dict[int, list[Key]] = defaultdict(list)
        self._free_bytes = 0
        self._free_count = 0
        #: Segments of processes that are gone, which something here still reads.
        self._orphans: set[Key] = set()
        #: Bytes in segments of others that something here still reads.
        self.read_bytes = 0
        # A deque: the last reference to a Block may die in any thread.
        self._dropped: deque[tuple[Key, Lender | None]] = deque()

    # -- writing ------------------------------------------------------------------------------------

    def take(self, nbytes: int) -> Block:
        """A hold on an own segment of at least `nbytes`, to be filled.

        :raises SegmentsFull: it would be more than `max_bytes` in all. A lone one always fits.
        :raises OSError: the machine has no memory.
        """
        self.sweep()
        size = max(SMALLEST, 1 << (nbytes - 1).bit_length()) if nbytes <= LARGEST_KEPT else nbytes
        if self.used_bytes and self.used_bytes + size > self.max_bytes:
            raise SegmentsFull(f"{self.used_bytes} bytes are in use, and {size} more are too many")
        if self._free[size]:
            key = self._free[size].pop()
            self._free_bytes -= size
            self._free_count -= 1
        else:
            key = self._make(size)
        self.used_bytes += size
        return self._hold(key, None, self._memories[key].bytes)

    def _make(self, size: int) -> Key:
        self._count += 1
        key = self.owner, self._count
        descriptor = os.memfd_create(f"asyncline {self.owner}", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, size)
            self._memories[key] = _Memory(descriptor, np.frombuffer(mmap.mmap(descriptor, size), np.uint8))
        except BaseException:
            os.close(descriptor)
            raise
        return key

    # -- reading ------------------------------------------------------------------------------------

    def add(self, key: Key, size: int, descriptor: int) -> None:
        """The descriptor of another's segment has come; it is ours now."""
        memory = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
        self._memories[key] = _Memory(descriptor, np.frombuffer(memory, np.uint8))

    def view(self, key: Key, lender: Lender | None) -> Block:
        """A hold on a segment that a message of `lender` names, read-only."""
        block = self._hold(key, lender, self._memories[key].bytes)
        block.flags.writeable = False
        return block

    def forget(self, key: Key) -> None:
        """A segment is gone for good. Whatever still refers to the memory keeps it."""
        found = self._memories.pop(key, None)
        if found is not None:
            os.close(found.descriptor)
            if self.on_close is not None:
                self.on_close(key)

    def forget_owner(self, owner: int) -> None:
        """A process is gone. What nobody reads of its segments goes too; the rest, when nobody reads it any more:
        until then it may well be handed on.
        """
        self.sweep()
        for key in [key for key in self._memories if key[0] == owner]:
            if key in self._uses:
                self._orphans.add(key)
            else:
                self.forget(key)

    # -- both ---------------------------------------------------------------------------------------

    def _hold(self, key: Key, lender: Lender | None, memory: np.ndarray[Any, Any]) -> Block:
        block = memory.view(Block)
        block.key, block.lender, block.segments = key, lender, self
        uses = self._uses.get(key, 0)
        self._uses[key] = uses + 1
        if not uses and key[0] != self.owner:
            self.read_bytes += len(memory)
        return block

    def descriptor(self, key: Key) -> int:
        return self._memories[key].descriptor

    def dropped(self, key: Key, lender: Lender | None) -> None:
        self._dropped.append((key, lender))
        if self.on_drop is not None:
            self.on_drop()

    def exempt(self, block: Block) -> None:
        """Do not count a Block that stays for as long as the process."""
        self.used_bytes -= len(block)

    @property
    def has_dropped(self) -> bool:
        """Whether `sweep` has something to do."""
        return bool(self._dropped)

    def sweep(self) -> None:
        """Take note of the Blocks that have died: own segments become free, lenders get their holds back."""
        while self._dropped:
            key, lender = self._dropped.popleft()
            if lender is not None:
                lender.returns.append(key)
            uses = self._uses[key] - 1
            if uses:
                self._uses[key] = uses
            else:
                del self._uses[key]
                if key[0] != self.owner:
                    self.read_bytes -= len(self._memories[key].bytes)
                    if key in self._orphans:
                        self._orphans.discard(key)
                        self.forget(key)
                elif key in self._memories:
                    self._give(key)

    def _give(self, key: Key) -> None:
        size = len(self._memories[key].bytes)
        self.used_bytes -= size
        if size > LARGEST_KEPT or self._free_bytes + size > KEEP_BYTES or self._free_count >= KEEP_COUNT:
            self.forget(key)
        else:
            self._free[size].append(key)
            self._free_bytes += size
            self._free_count += 1

    def close(self) -> None:
        """Close all descriptors; memory that something still refers to stays until that goes."""
        for key in tuple(self._memories):
            self.forget(key)

    def __repr__(self) -> str:
        return f"<Segments of {self.owner}: {self.used_bytes} bytes in use, {len(self._memories)} segments>"


def find_block(memory: memoryview | np.ndarray[Any, Any]) -> tuple[Block, int] | None:
    """The Block that holds `memory`, and where in it; None if it lies elsewhere."""
    holder: Any = memory
    while type(holder) is not Block:
        if isinstance(holder, np.ndarray):
            holder = holder.base
        elif isinstance(holder, memoryview):
            holder = holder.obj
        else:
            return None
    return holder, _address(memory) - _address(holder)


def _address(memory: memoryview | np.ndarray[Any, Any]) -> int:
    array = memory if isinstance(memory, np.ndarray) else np.frombuffer(memory, np.uint8)
    address: int = array.__array_interface__["data"][0]
    return address
