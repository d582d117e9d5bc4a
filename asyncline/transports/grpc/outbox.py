"""Outbox: what one call has to say, until the client takes it."""

from __future__ import annotations

from collections import deque

from asyncline.transports.grpc import compression
from asyncline.transports.grpc.inbox import Bytes
from asyncline.transports.grpc.status import Headers

INITIAL: Headers = [(":status", "200"), ("content-type", "application/grpc")]
JOINED_NBYTES = 16 * 1024
"""Up to here, copying a message behind its prefix costs less than another frame."""


class Outbox:
    """Headers, then messages, then trailers."""

    __slots__ = ("_parts", "encoding", "has_begun", "nbytes", "trailers")

    def __init__(self) -> None:
        #: Of messages that are compressed.
        self.encoding = compression.IDENTITY
        self._parts: deque[Bytes] = deque()
        #: Of messages that wait.
        self.nbytes = 0
        #: Whether the headers are said.
        self.has_begun = False
        #: What comes behind the messages, and ends the call.
        self.trailers: Headers | None = None

    def __bool__(self) -> bool:
        """Whether messages wait."""
        return bool(self._parts)

    def compresses(self, message: Bytes) -> bool:
        """Whether a message is to be compressed."""
        return self.encoding != compression.IDENTITY and len(message) > compression.LEAST_NBYTES

    def put(self, message: Bytes, flag: int) -> int:
        """Add a message; returns how many bytes it takes.

        :param flag: 1: it is compressed.
        """
        prefix = bytes((flag,)) + len(message).to_bytes(4, "big")
        if len(message) <= JOINED_NBYTES:
            self._parts.append(prefix + message)
        else:
            self._parts += (prefix, memoryview(message))
        nbytes = len(prefix) + len(message)
        self.nbytes += nbytes
        return nbytes

    def initial(self) -> Headers | None:
        """The headers, the first time."""
        if self.has_begun:
            return None
        self.has_begun = True
        if self.encoding == compression.IDENTITY:
            return INITIAL
        return [*INITIAL, ("grpc-encoding", self.encoding)]

    def take(self, most: int) -> Bytes:
        """The next of what waits, up to so many bytes."""
        part = self._parts[0]
        if len(part) <= most:
            self._parts.popleft()
        else:
            self._parts[0] = memoryview(part)[most:]
            part = memoryview(part)[:most]
        self.nbytes -= len(part)
        return part

    def clear(self) -> None:
        """Forget the messages."""
        self._parts.clear()
        self.nbytes = 0

    def __repr__(self) -> str:
        return f"<Outbox {self.nbytes} bytes{', and the end' if self.trailers is not None else ''}>"
