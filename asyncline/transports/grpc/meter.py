"""Meter: the frames of one connection, counted before anything is done for them."""

from __future__ import annotations

from asyncline.deadline import Clock
from asyncline.transports.grpc.limits import CallLimits

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_PREFIX_NBYTES = 9
_DATA, _HEADERS, _RST_STREAM, _CONTINUATION = 0, 1, 3, 9
_END_STREAM = 1
LONG_NBYTES = 8 * 1024
"""A frame as long as this is mostly copied. How much of that there is in one turn, the size of a read says."""


class Abuse(Exception):
    """The client's: more of something than the limits allow."""


class Meter:
    """Finds the frames in what a client sends, by their prefixes alone.

    What HTTP/2 answers or keeps for a frame costs far more than the few bytes of it; these are counted, and so are
    calls that are taken back. Frames that are longer than allowed are found before they are there.
    """

    def __init__(self, limits: CallLimits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        #: Bytes of the current frame, at first of the preface, that are still to come.
        self._left = len(PREFACE)
        self._prefix = b""
        #: Short frames that the last walk has found.
        self.walked = 0
        self._resets = float(limits.resets)
        self._chatter = float(limits.chatter)
        self._filled_at = clock()

    def walk(self, data: bytes, most: int) -> int:
        """Count the frames that begin in `data`, at most `most` short ones; returns the place up to which it got.

        :raises Abuse: there are too many of a kind, or one is too long.
        """
        place, end = self._left, len(data)
        self.walked = 0
        if self._prefix:
            # A prefix is cut in two at most a few times in a second: it need not be fast.
            joined = self._prefix + data[: _PREFIX_NBYTES - len(self._prefix)]
            if len(joined) < _PREFIX_NBYTES:
                self._prefix = joined
                return end
            place = self._count(joined, 0) - len(self._prefix)
            self._prefix = b""
        left = most
        while left:
            if place + _PREFIX_NBYTES > end:
                break
            began, place = place, self._count(data, place)
            left -= place - began < LONG_NBYTES
        else:
            if place < end:
                self._left, self.walked = 0, most
                return place
        self.walked = most - left
        if place >= end:
            self._left = place - end
        elif place + _PREFIX_NBYTES > end:
            self._left, self._prefix = 0, data[place:]
        return end

    def _count(self, data: bytes, place: int) -> int:
        """Count the frame at `place`; returns where it ends."""
        nbytes = data[place] << 16 | data[place + 1] << 8 | data[place + 2]
        if nbytes > self._limits.frame_nbytes:
            raise Abuse(f"a frame of {nbytes} bytes")
        kind = data[place + 3]
        if kind == _HEADERS or (kind == _DATA and (nbytes or data[place + 4] & _END_STREAM)):
            self.allow(1)
        elif kind == _RST_STREAM:
            self.reset()
        elif kind != _CONTINUATION:  # h2 counts these
            self._chatter -= 1
            if self._chatter < 0:
                self._refill()
                if self._chatter < 0:
                    raise Abuse("too many frames that are part of no call")
        return place + _PREFIX_NBYTES + nbytes

    def reset(self) -> None:
        """A call was taken back, or the client made us take it back.

        :raises Abuse: there were too many.
        """
        self._resets -= 1
        if self._resets < 0:
            self._refill()
            if self._resets < 0:
                raise Abuse("too many calls that are taken back")

    def allow(self, frames: int) -> None:
        """So many frames of a call came or went: more of the others are in order."""
        limits = self._limits
        self._chatter = min(limits.chatter, self._chatter + frames * limits.chatter_per_frame)

    def _refill(self) -> None:
        limits, now = self._limits, self._clock()
        passed_s, self._filled_at = now - self._filled_at, now
        self._resets = min(limits.resets, self._resets + passed_s * limits.resets_per_s)
        self._chatter = min(limits.chatter, self._chatter + passed_s * limits.chatter_per_s)
