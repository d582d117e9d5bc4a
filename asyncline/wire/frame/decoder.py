"""Decoder: a stream of bytes, in whatever pieces it comes, to frames. Pure: no socket, no clock."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from asyncline.errors import BadRequest, RequestError, TooLarge

HELLO, CALL, RESULT, ERROR, CANCEL, GOAWAY, PART, MORE = range(1, 9)
"""Kinds of frames."""
NAMES = ("", "HELLO", "CALL", "RESULT", "ERROR", "CANCEL", "GOAWAY", "PART", "MORE")
WITH_BODY = (CALL, RESULT, PART)

PREFIX = struct.Struct("<BBHII")
"""kind, zero, length of the header, stream, length of the body"""
MAX_HEADER_NBYTES = 2**16 - 1
MAX_BODY_NBYTES = 2**32 - 1
ALIGNMENT = 64

Buffer = bytes | bytearray | memoryview
Frame = tuple[int, int, bytes, memoryview | None]
"""kind, stream, header, body: None where there is none, else read-only, and at a multiple of 64 in memory.

No class: making one costs as much as all the rest of a short frame.
"""
Admit = Callable[[int, int, int, int], bool]
"""Whether a body is wanted, before it is read: kind, stream, length of the header, length of the body."""


def frame(
    kind: int, stream: int, header: bytes = b"", sections: Sequence[Buffer] = (), body_nbytes: int = 0
) -> list[Buffer]:
    """The parts of a frame, to be written one after the other; `sections` are its body."""
    prefix = PREFIX.pack(kind, 0, len(header), stream, body_nbytes)
    return [prefix, header, *sections] if sections else [prefix + header]


def room(nbytes: int) -> memoryview:
    """Memory for a body, at a multiple of 64: sections lie as vector units like them."""
    memory = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + nbytes].data


class Decoder:
    """Takes a stream apart into frames.

    The stream may be fed in pieces of any size. The rest of a body that did not come in one piece may also be
    received into `buffer`: then it is not copied.

    Of a frame that is not complete, at most a prefix and a header are kept, and a body once it is admitted.

    :param max_body_nbytes: a frame with a longer body is an error.
    :param admit: asked for every body that is not there yet when its header is. Where it says no, nothing is kept of
        that frame. By default all are wanted.
    """

    def __init__(self, max_body_nbytes: int = MAX_BODY_NBYTES, admit: Admit | None = None) -> None:
        self._max_body_nbytes = max_body_nbytes
        self._admit = admit
        #: Why nothing more comes of this stream; None while all is well.
        self.error: RequestError | None = None
        #: Where the rest of a body belongs; None where there is none to come.
        self.buffer: memoryview | None = None
        #: How many frames have come to their end, those that were not wanted among them.
        self.count = 0
        self._begun: tuple[int, int, bytes, memoryview] | None = None
        self._to_skip = 0
        self._rest = bytearray()
        self._needed = 0

    @property
    def is_partial(self) -> bool:
        """Whether a frame has begun that is not complete."""
        return bool(self._rest) or self.buffer is not None or self._to_skip > 0

    def feed(self, data: Buffer) -> Iterator[Frame]:
        """The frames that are complete with `data`, of which a copy is taken at once.

        To be gone through to the end before anything else is fed. After an error there are none.
        """
        frames: list[Frame] = []
        if self.error is not None:
            return iter(frames)
        if self.buffer is not None:
            data = memoryview(data)
            taken = min(len(data), len(self.buffer))
            self.buffer[:taken] = data[:taken]
            frames = self.received(taken)
            data = data[taken:]
        elif self._to_skip:
            taken = min(len(data), self._to_skip)
            self._skip(taken)
            data = memoryview(data)[taken:]
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return iter(frames)
            data = bytes(self._rest)
            self._rest.clear()
        return self._split(data if type(data) is bytes else bytes(data), frames)

    def received(self, nbytes: int) -> list[Frame]:
        """So many bytes were received into `buffer`: the frame, where that is complete."""
        assert self.buffer is not None and self._begun is not None, "nothing was to be received"
        if nbytes < len(self.buffer):
            self.buffer = self.buffer[nbytes:]
            return []
        kind, stream, header, body = self._begun
        self.buffer = self._begun = None
        self.count += 1
        return [(kind, stream, header, body.toreadonly())]

    def _split(self, data: bytes, before: list[Frame]) -> Iterator[Frame]:
        yield from before
        place, end = 0, len(data)
        while True:
            start = place + PREFIX.size
            if start > end:
                self._needed = PREFIX.size
                break
            kind, zero, header_nbytes, stream, body_nbytes = PREFIX.unpack_from(data, place)
            if zero or not HELLO <= kind <= MORE or body_nbytes:
                self.error = self._judge(kind, zero, body_nbytes)
                if self.error is not None:
                    return
            stop = start + header_nbytes
            if stop > end:
                self._needed = stop - place
                break
            header = data[start:stop]
            place = stop + body_nbytes
            if place > end:
                self._begin_body(kind, stream, header, body_nbytes, data[stop:])
                return
            self.count += 1
            if body_nbytes:
                body = room(body_nbytes)
                body[:] = data[stop:place]
                yield kind, stream, header, body.toreadonly()
            else:
                yield kind, stream, header, None
        self._rest += data[place:]

    def _judge(self, kind: int, zero: int, body_nbytes: int) -> RequestError | None:
        """What is wrong with a prefix."""
        if zero or not HELLO <= kind <= MORE:
            return BadRequest(f"there is no frame of kind {kind} with flags {zero}")
        if kind not in WITH_BODY:
            return BadRequest(f"a {NAMES[kind]} has no body, this one has {body_nbytes} bytes")
        if body_nbytes > self._max_body_nbytes:
            return TooLarge(f"a body of {body_nbytes} bytes is over the limit of {self._max_body_nbytes}")
        return None

    def _begin_body(self, kind: int, stream: int, header: bytes, nbytes: int, data: bytes) -> None:
        """`data` is what is there of a body of `nbytes`."""
        if self._admit is not None and not self._admit(kind, stream, len(header), nbytes):
            self._to_skip = nbytes - len(data)
            return
        body = room(nbytes)
        body[: len(data)] = data
        self.buffer = body[len(data) :]
        self._begun = kind, stream, header, body

    def _skip(self, nbytes: int) -> None:
        self._to_skip -= nbytes
        if not self._to_skip:
            self.count += 1

    def __repr__(self) -> str:
        state = f"failed: {self.error}" if self.error else "in a frame" if self.is_partial else "between frames"
        return f"<Decoder after {self.count} frames, {state}>"
