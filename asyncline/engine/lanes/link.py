"""Link: the connection between the server and one worker, the same at both ends.

A socket pair that keeps messages apart (SOCK_SEQPACKET), made before the worker starts and inherited by it:
there is no name to connect to.

A message is a tuple of plain values, written by marshal (the fastest there is, and this is one program at
both ends): (kind, fields), then what concerns segments:

    fresh     key and size of segments that the receiver does not know yet; their descriptors come along
    returns   keys of holds handed back: what messages before named, the sender reads no more
    closed    keys of segments that are gone for good
"""

from __future__ import annotations

import array
import marshal
import socket
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from asyncline.engine.lanes.crossing import Parcel
from asyncline.engine.lanes.segment import Block, Key, Segments

MESSAGE_BYTES = 256 * 1024
"""More than any message has: the kernel's limit for one is lower."""
MOST_DESCRIPTORS = 128


class Link:
    """One end of the connection."""

    def __init__(self, connection: socket.socket, segments: Segments) -> None:
        self.connection = connection
        #: Holds of the peer's that were let go here and wait to be handed back (see `Segments.sweep`).
        self.returns: list[Key] = []
        #: Segments that are gone for good, for the peer to forget.
        self.closed: list[Key] = []
        self._segments = segments
        #: Our holds on the segments that the peer reads.
        self._lent: dict[Key, list[Block]] = defaultdict(list)
        #: Segments whose descriptors the peer has: ours that went there, and its own that came from there.
        self._known: set[Key] = set()
        self._buffer = bytearray(MESSAGE_BYTES)
        self._space = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)

    def send(self, kind: str, fields: tuple[Any, ...] = (), parcel: Parcel | None = None) -> None:
        """Send a message, and lend what `parcel` lies in.

        :param fields: plain values.

        :raises OSError: the peer is gone, or (BlockingIOError) reads nothing.
        """
        fresh: list[tuple[Key, int]] = []
        if parcel is not None:
            fresh = [(key, size) for key, size in parcel.packed.segments if key not in self._known]
        self._segments.sweep()
        data = marshal.dumps((kind, tuple(fields), fresh, self.returns, self.closed))
        descriptors = [self._segments.descriptor(key) for key, _ in fresh]
        if descriptors:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
            self.connection.sendmsg([data], [rights])
        else:
            self.connection.send(data)
        self.returns.clear()
        self._known.difference_update(self.closed)
        self.closed.clear()
        self._known.update(key for key, _ in fresh)
        if parcel is not None:
            for block in parcel.blocks:
                self._lent[block.key].append(block)

    def receive(self) -> tuple[str, tuple[Any, ...]]:
        """Kind and fields of the next message; the segments it names are mapped.

        :raises EOFError: the peer is gone.
        :raises BlockingIOError: there is no message, on a socket that does not wait.
        """
        try:
            nbytes, extra, _, _ = self.connection.recvmsg_into([self._buffer], self._space, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            raise EOFError from None
        if not nbytes:
            raise EOFError
        kind, fields, fresh, returns, closed = marshal.loads(memoryview(self._buffer)[:nbytes])
        for key in closed:
            self._known.discard(key)
            self._segments.forget(key)
        for (key, size), descriptor in zip(fresh, _descriptors(extra), strict=True):
            self._known.add(key)
            self._segments.add(key, size, descriptor)
        for key in returns:
            blocks = self._lent[key]
            blocks.pop()
            if not blocks:
                del self._lent[key]
        return kind, fields

    def note_closed(self, key: Key) -> None:
        """A segment is gone for good; the peer learns of it with the next message."""
        if key in self._known:
            self.closed.append(key)

    def close(self) -> None:
        self._lent.clear()
        self.connection.close()


def _descriptors(extra: Sequence[tuple[int, int, bytes]]) -> Sequence[int]:
    found = array.array("i")
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found
