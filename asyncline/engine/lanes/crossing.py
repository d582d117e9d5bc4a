"""What crosses between the server and a worker: small values inside a message, large ones beside it.

A value is pickled (protocol 5, between our own processes only); arrays and other large buffers are not
copied into the pickle but laid into a segment, or left where they are if they lie in one already. The
receiver's arrays are views of that memory, read-only.

    segment:  index | pickle | buffer | buffer | ...
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

from asyncline.engine.lanes.segment import Block, Key, Lender, Segments, find_block

INLINE_BYTES = 8192
"""A value up to here crosses inside the message: below it a copy costs less than a segment."""
BUFFER_BYTES = 2048
"""A buffer from here on is laid beside the pickle."""
ALIGN = 64
MOST_SEGMENTS = 64
"""Segments that one value may lie in; the kernel lets 253 descriptors go along with a message."""

_PLACE = struct.Struct("<IQQ")


class Packed(NamedTuple):
    """A value on its way. Small, and made of plain values: it is part of a message."""

    inline: bytes | None
    segments: tuple[tuple[Key, int], ...] = ()
    """Key and size of every segment that holds a part; the first begins with the index."""
    places: int = 0
    """Entries of the index: the pickle, then each buffer."""


@dataclass(frozen=True)
class Parcel:
    """A Packed value, and holds on the segments it lies in, until the receiver hands them back."""

    packed: Packed
    blocks: tuple[Block, ...] = ()


def pack(value: Any, segments: Segments) -> Parcel:
    """Make `value` ready to cross.

    :raises SegmentsFull: there is no room for now.
    :raises Exception: whatever pickle says of a value that it cannot take.
    """
    buffers: list[memoryview] = []

    def beside(buffer: pickle.PickleBuffer) -> bool:
        memory = buffer.raw()
        if memory.nbytes < BUFFER_BYTES:
            return True
        buffers.append(memory)
        return False

    stream = pickle.dumps(value, 5, buffer_callback=beside)
    if not buffers and len(stream) <= INLINE_BYTES:
        return Parcel(Packed(stream))
    return _lay_out(memoryview(stream), buffers, segments)


def _lay_out(stream: memoryview, buffers: list[memoryview], segments: Segments) -> Parcel:
    there: dict[Key, Block] = {}
    places: list[tuple[Key | None, int, int]] = []
    to_copy: list[tuple[int, memoryview]] = []
    end = _PLACE.size * (1 + len(buffers))
    for part in (stream, *buffers):
        found = find_block(part)
        if found is not None and (found[0].key in there or len(there) < MOST_SEGMENTS - 1):
            block, offset = found
            there.setdefault(block.key, block)
            places.append((block.key, offset, part.nbytes))
            continue
        end = -(-end // ALIGN) * ALIGN
        places.append((None, end, part.nbytes))
        to_copy.append((end, part))
        end += part.nbytes
    # A segment holds the stream at least, so there always is a new one, and it comes first.
    new = segments.take(end)
    numbers: dict[Key | None, int] = {None: 0}
    numbers.update((key, number) for number, key in enumerate(there, 1))
    memory = new.data
    for index, (key, offset, length) in enumerate(places):
        _PLACE.pack_into(memory, index * _PLACE.size, numbers[key], offset, length)
    for offset, part in to_copy:
        memory[offset : offset + part.nbytes] = part
    blocks = (new, *there.values())
    return Parcel(Packed(None, tuple((block.key, len(block)) for block in blocks), len(places)), blocks)


def unpack(packed: Packed, segments: Segments, lender: Lender) -> Any:
    """The value: its large parts are views of shared memory, read-only, and keep the holds of `lender`."""
    if packed.inline is not None:
        return pickle.loads(packed.inline)
    blocks = [segments.view(key, lender) for key, _ in packed.segments]
    index = blocks[0].data
    parts = []
    for place in range(packed.places):
        number, offset, length = _PLACE.unpack_from(index, place * _PLACE.size)
        parts.append(blocks[number].data[offset : offset + length])
    return pickle.loads(parts[0], buffers=parts[1:])
