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
from types import NoneType
from typing import Any

import numpy as np

from asyncline.engine.lanes.segment import Array, Key, Lender, Reader, Segment, Segments, find_hold

INLINE_BYTES = 8192
"""A value up to here crosses inside the message: below it a copy costs less than a segment."""
BUFFER_BYTES = 2048
"""A buffer from here on is laid beside the message."""
ALIGN = 64
LONG_BYTES = 2**20
"""A buffer over this size is copied while other threads run."""
MOST_SEGMENTS = 64
"""Segments that one value may lie in; the kernel lets 253 descriptors go along with a packet."""
MOST_PARTS = 8
"""A longer tuple is pickled."""

_NAMES = {dtype: dtype.str for dtype in map(np.dtype, "?bhilqBHILQefdFD")}
"""Of the common dtypes: to ask one for its name takes as long as all else."""
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


Parcel = tuple[Packed, tuple[Array | Segment, ...], int]
"""A Packed value; holds on the segments it lies in, in order, until the receiver hands them back; and how many bytes it
adds to the message, at least."""


def pack(value: Any, segments: Segments) -> Parcel:
    """Make `value` ready to cross.

    :raises SegmentsFull: there is no room for now.
    :raises Exception: whatever pickle says of a value that it cannot take.
    """
    if type(value) is tuple:
        parcel = _pack_plain(PARTS, value, segments) if len(value) <= MOST_PARTS else None
    else:
        parcel = _pack_plain(PART, (value,), segments)
    if parcel is not None:
        return parcel

    buffers: list[memoryview] = []

    def beside(buffer: pickle.PickleBuffer) -> bool:
        memory = buffer.raw()
        if memory.nbytes < BUFFER_BYTES:
            return True
        buffers.append(memory)
        return False

    stream = pickle.dumps(value, 5, buffer_callback=beside)
    if not buffers and len(stream) <= INLINE_BYTES:
        return (PICKLED, stream, ()), (), len(stream)
    return _lay_out(memoryview(stream), buffers, segments)


def _pack_plain(kind: int, values: tuple[Any, ...], segments: Segments) -> Parcel | None:
    """None where one of them needs a pickle."""
    parts: list[Any] = []
    keys: list[Key] = []
    holds: list[Array | Segment] = []
    to_copy: list[tuple[int, int, Array]] = []
    end = 0
    for value in values:
        of = type(value)
        if of is not np.ndarray:
            if of in _PLAIN or (of is int and -_WIDE < value < _WIDE):
                parts.append(value)
                continue
            return None
        dtype, nbytes = value.dtype, value.nbytes
        name = _NAMES.get(dtype)
        # Others would change on the way: structured and object dtypes, other strides, and small ones, which
        # a pickle leaves writable.
        if name is None:
            if dtype.isbuiltin != 1 or dtype.hasobject:
                return None
            name = dtype.str
        if nbytes < BUFFER_BYTES or not value.flags.c_contiguous:
            return None
        found = None if value.base is None else find_hold(value)
        if found is None:
            parts.append((name, value.shape, -1, end))
            to_copy.append((end, end + nbytes, value))
            end += -(-nbytes // ALIGN) * ALIGN
        else:
            hold, segment, offset = found
            parts.append((name, value.shape, len(holds), offset))
            holds.append(hold)
            keys.append(segment.key)
    if to_copy:
        # The new segment is the last, which -1 means.
        new = segments.lend(end)
        try:
            for begin, end, array in to_copy:
                _fill(new, begin, end, array)
        except BaseException:
            segments.give_back(new)
            raise
        holds.append(new)
        keys.append(new.key)
    return (kind, tuple(parts) if kind == PARTS else parts[0], tuple(keys)), tuple(holds), 0


def _lay_out(stream: memoryview, buffers: list[memoryview], segments: Segments) -> Parcel:
    there: dict[Key, Array] = {}
    places: list[tuple[Key | None, int, int]] = []
    to_copy: list[tuple[int, memoryview]] = []
    end = _PLACE.size * (1 + len(buffers))
    for part in (stream, *buffers):
        found = find_hold(part)
        if found is not None and (found[1].key in there or len(there) < MOST_SEGMENTS - 1):
            hold, segment, offset = found
            there.setdefault(segment.key, hold)
            places.append((segment.key, offset, part.nbytes))
            continue
        end = -(-end // ALIGN) * ALIGN
        places.append((None, end, part.nbytes))
        to_copy.append((end, part))
        end += part.nbytes
    # A segment holds the stream at least, so there always is a new one, and it comes first.
    numbers: dict[Key | None, int] = {None: 0}
    numbers.update((key, number) for number, key in enumerate(there, 1))
    new = segments.lend(end)
    try:
        for index, (key, offset, length) in enumerate(places):
            _PLACE.pack_into(new, index * _PLACE.size, numbers[key], offset, length)
        for offset, part in to_copy:
            _fill(new, offset, offset + part.nbytes, part)
    except BaseException:
        segments.give_back(new)
        raise
    return (LAID_OUT, len(places), (new.key, *there)), (new, *there.values()), 0


def _fill(segment: Segment, begin: int, end: int, data: Array | memoryview) -> None:
    if end - begin <= LONG_BYTES:
        segment[begin:end] = data  # type: ignore[assignment]  # an array is a buffer
    else:
        # Half a microsecond more; but numpy lets go of the interpreter.
        array = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
        np.ndarray(array.shape, array.dtype, segment, begin)[...] = array


def unpack(packed: Packed, segments: Reader, lender: Lender) -> Any:
    """The value: its large parts are views of shared memory, read-only, and keep the holds of `lender`."""
    kind, body, keys = packed
    if kind == PICKLED:
        return pickle.loads(body)
    if not keys:
        return body
    if kind == PART:
        name, shape, _, offset = body
        return segments.view(keys[0], lender, shape, name, offset)
    if kind == PARTS and len(body) == 1:
        name, shape, _, offset = body[0]
        return (segments.view(keys[0], lender, shape, name, offset),)
    holds = [segments.view(key, lender) for key in keys]
    if kind == PARTS:
        return tuple([_view(part, holds) if type(part) is tuple else part for part in body])
    index = holds[0].data
    parts = []
    for place in range(body):
        number, offset, length = _PLACE.unpack_from(index, place * _PLACE.size)
        parts.append(holds[number].data[offset : offset + length])
    return pickle.loads(parts[0], buffers=parts[1:])


def _view(part: tuple[str, tuple[int, ...], int, int], holds: list[Array]) -> Array:
    name, shape, number, offset = part
    return np.ndarray(shape, name, holds[number], offset)
