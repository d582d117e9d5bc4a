"""What crosses between the server and a worker: small values inside a message, large ones beside it.

Arrays and other large buffers are laid into a segment, or left where they are if they lie in one already;
the receiver's are views of that memory, read-only. Everything else is pickled (protocol 5, between our own
processes only), but for the commonest case, an array or a tuple of arrays and plain values, which needs no
pickle: an array is then its dtype, its shape and its place, all in the message.

    segment of pickled values:  index | pickle | buffer | buffer | ...
"""

from __future__ import annotations

import pickle
import struct
from math import prod
from types import NoneType
from typing import Any

import numpy as np

from asyncline.engine.lanes.segment import Block, Key, Lender, Segments, find_block

INLINE_BYTES = 8192
"""A value up to here crosses inside the message: below it a copy costs less than a segment."""
BUFFER_BYTES = 2048
"""A buffer from here on is laid beside the message."""
ALIGN = 64
MOST_SEGMENTS = 64
"""Segments that one value may lie in; the kernel lets 253 descriptors go along with a packet."""
MOST_PARTS = 8
"""A longer tuple is pickled."""

_PLACE = struct.Struct("<IQQ")
_PLAIN = frozenset({float, bool, NoneType})
_WIDE = 1 << 64
"""An int beyond this may be of any length."""

PICKLED, LAID_OUT, PART, PARTS = range(4)


Packed = tuple[int, Any, tuple[Key, ...]]
"""A value on its way: small, and made of plain values, as it is part of a message.

    kind      PICKLED, LAID_OUT, PART or PARTS
    body      PICKLED: the pickle. LAID_OUT: how many entries the index has. PART: a value, or of an array
              `(dtype, shape, segment, offset)`. PARTS: several of these
    segments  those that hold a part; the first of LAID_OUT begins with the index
"""


class Parcel:
    """A Packed value, and holds on the segments it lies in, until the receiver hands them back."""

    __slots__ = ("blocks", "nbytes", "packed")

    def __init__(self, packed: Packed, blocks: tuple[Block, ...] = (), nbytes: int = 0) -> None:
        self.packed = packed
        self.blocks = blocks
        #: What it adds to the message, at least.
        self.nbytes = nbytes


def pack(value: Any, segments: Segments) -> Parcel:
    """Make `value` ready to cross.

    :raises SegmentsFull: there is no room for now.
    :raises Exception: whatever pickle says of a value that it cannot take.
    """
    if type(value) is tuple:
        if len(value) <= MOST_PARTS and all(map(_is_plain, value)):
            return _plain_parcel(PARTS, value, segments)
    elif _is_plain(value):
        return _plain_parcel(PART, (value,), segments)

    buffers: list[memoryview] = []

    def beside(buffer: pickle.PickleBuffer) -> bool:
        memory = buffer.raw()
        if memory.nbytes < BUFFER_BYTES:
            return True
        buffers.append(memory)
        return False

    stream = pickle.dumps(value, 5, buffer_callback=beside)
    if not buffers and len(stream) <= INLINE_BYTES:
        return Parcel((PICKLED, stream, ()), (), len(stream))
    return _lay_out(memoryview(stream), buffers, segments)


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is np.ndarray:
        # Others would change on the way: structured and object dtypes, other strides, and small ones, which
        # a pickle leaves writable.
        dtype = value.dtype
        return bool(
            value.nbytes >= BUFFER_BYTES and dtype.isbuiltin == 1 and not dtype.hasobject and value.flags.c_contiguous
        )
    return kind in _PLAIN or (kind is int and -_WIDE < value < _WIDE)


def _plain_parcel(kind: int, values: tuple[Any, ...], segments: Segments) -> Parcel:
    blocks: list[Block] = []
    parts: list[Any] = []
    to_copy: list[tuple[int, np.ndarray[Any, Any]]] = []
    end = 0
    for value in values:
        if type(value) is not np.ndarray:
            parts.append(value)
            continue
        found = None if value.base is None else find_block(value)
        if found is None:
            parts.append((value.dtype.str, value.shape, -1, end))
            to_copy.append((end, value))
            end = -(-(end + value.nbytes) // ALIGN) * ALIGN
        else:
            block, offset = found
            parts.append((value.dtype.str, value.shape, len(blocks), offset))
            blocks.append(block)
    if to_copy:
        # The new segment is the last, which -1 means.
        new = segments.take(end)
        for offset, array in to_copy:
            np.copyto(np.ndarray(array.shape, array.dtype, new, offset), array)
        blocks.append(new)
    body = tuple(parts) if kind == PARTS else parts[0]
    return Parcel((kind, body, tuple([block.key for block in blocks])), tuple(blocks))


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
    return Parcel((LAID_OUT, len(places), tuple([block.key for block in blocks])), blocks)


def unpack(packed: Packed, segments: Segments, lender: Lender) -> Any:
    """The value: its large parts are views of shared memory, read-only, and keep the holds of `lender`."""
    kind, body, keys = packed
    if kind == PICKLED:
        return pickle.loads(body)
    if not keys:
        return body
    blocks = [segments.view(key, lender) for key in keys]
    if kind == PART:
        return _view(body, blocks)
    if kind == PARTS:
        return tuple([_view(part, blocks) if type(part) is tuple else part for part in body])
    index = blocks[0].data
    parts = []
    for place in range(body):
        number, offset, length = _PLACE.unpack_from(index, place * _PLACE.size)
        parts.append(blocks[number].data[offset : offset + length])
    return pickle.loads(parts[0], buffers=parts[1:])


def _view(part: tuple[str, tuple[int, ...], int, int], blocks: list[Block]) -> np.ndarray[Any, Any]:
    dtype, shape, number, offset = part
    # Over a memoryview: numpy would look through the Block itself to the memory behind it, and lose the hold.
    return np.frombuffer(blocks[number].data, dtype, prod(shape), offset).reshape(shape)
