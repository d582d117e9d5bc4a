"""Link: the connection between the server and one worker, the same at both ends.

A socket pair that keeps packets apart (SOCK_SEQPACKET), made before the worker starts and inherited by it:
there is no name to connect to.

A packet is a tuple of plain values, written by marshal (the fastest there is, and this is one program at
both ends): the messages, each (kind, *fields), then what concerns segments:

    fresh     key and size of segments that the receiver does not know yet; their descriptors come along, and
              a packet of one byte comes before: `recv` is faster than `recvmsg`, and would drop them
    returns   keys of holds handed back: what messages before named, the sender reads no more
    closed    keys of segments that are gone for good

Messages are gathered by `put` and sent by `flush`: what wakes the other process costs more than all the rest.
"""

from __future__ import annotations

import array
import marshal
import os
import socket
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from asyncline.engine.lanes.segment import Array, Key, Loan, Segment, Segments

PACKET_BYTES = 256 * 1024
"""More than any packet has: the kernel's limit for one is lower."""
MOST_DESCRIPTORS = 128
FULL_BYTES = 64 * 1024
"""Gathered messages of about this size are sent off."""

_ANNOUNCEMENT = b"d"

Message = tuple[Any, ...]


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
        self._lent: dict[Key, list[Array | Loan]] = defaultdict(list)
        #: Segments whose descriptors the peer has: ours that went there, and its own that came from there.
        self._known: set[Key] = set()
        self._messages: list[Message] = []
        self._nbytes = 0
        self._fresh: list[tuple[Key, int]] = []
        self._is_announced = self._descriptors_come = False
        self._buffer = bytearray(PACKET_BYTES)
        self._view = memoryview(self._buffer)
        self._space = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)

    def put(self, message: Message, holds: Sequence[Array | Loan] = (), nbytes: int = 0) -> bool:
        """Gather a message: plain values. The holds on the segments that it names are lent with it.

        :param nbytes: what it adds to the packet, about.
        :return: whether what has gathered has to be sent before there is more: a packet has its limits.
        """
        self._messages.append(message)
        self._nbytes += nbytes
        for hold in holds:
            segment: Segment = hold.segment if type(hold) is Loan else hold.base  # type: ignore[assignment,union-attr]
            key = segment.key
            self._lent[key].append(hold)
            if key not in self._known:
                self._known.add(key)
                self._fresh.append((key, len(segment)))
        # A value has at most half of the descriptors that fit.
        return self._nbytes > FULL_BYTES or len(self._fresh) > MOST_DESCRIPTORS // 2

    def flush(self) -> None:
        """Send what has gathered.

        :raises OSError: the peer is gone, or (BlockingIOError) reads nothing.
        """
        if self._segments.dropped:
            self._segments.sweep()
        if not (self._messages or self.returns or self.closed):
            return
        data = marshal.dumps((self._messages, self._fresh, self.returns, self.closed))
        if self._fresh:
            descriptors = array.array("i", [self._segments.descriptor(key) for key, _ in self._fresh])
            if not self._is_announced:
                self.connection.send(_ANNOUNCEMENT)
                self._is_announced = True
            self.connection.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
            self._is_announced = False
            self._fresh.clear()
        else:
            self.connection.send(data)
        self._messages.clear()
        self._nbytes = 0
        self.returns.clear()
        if self.closed:
            self._known.difference_update(self.closed)
            self.closed.clear()

    def send(self, message: Message, holds: Sequence[Array | Loan] = ()) -> None:
        self.put(message, holds)
        self.flush()

    def receive(self) -> list[Message]:
        """The messages of the next packet; the segments it names are mapped.

        :raises EOFError: the peer is gone, or what it sent has no room here.
        :raises BlockingIOError: there is no packet, on a socket that does not wait.
        """
        try:
            nbytes, extra = self._receive_packet()
        except ConnectionResetError:
            # The peer has died with packets of ours unread. The kernel says so first, and once: its own, sent
            # before that, are still there.
            try:
                nbytes, extra = self._receive_packet()
            except ConnectionError:
                raise EOFError from None
        if not nbytes:
            raise EOFError
        messages: list[Message]
        messages, fresh, returns, closed = marshal.loads(self._view[:nbytes])
        for key in closed:
            self._known.discard(key)
            self._segments.forget(key)
        if fresh:
            descriptors = _descriptors(extra)
            if len(descriptors) != len(fresh):
                # This process has no room for more descriptors, and what they belong to cannot be read.
                for descriptor in descriptors:
                    os.close(descriptor)
                raise EOFError
            for (key, size), descriptor in zip(fresh, descriptors, strict=True):
                self._known.add(key)
                self._segments.add(key, size, descriptor)
        for key in returns:
            holds = self._lent[key]
            holds.pop()
            if not holds:
                del self._lent[key]
        return messages

    def _receive_packet(self) -> tuple[int, Sequence[tuple[int, int, bytes]]]:
        if not self._descriptors_come:
            nbytes = self.connection.recv_into(self._buffer)
            if nbytes != len(_ANNOUNCEMENT):
                return nbytes, ()
            self._descriptors_come = True
        nbytes, extra, _, _ = self.connection.recvmsg_into([self._buffer], self._space, socket.MSG_CMSG_CLOEXEC)
        self._descriptors_come = False
        return nbytes, extra

    def note_closed(self, key: Key) -> None:
        """A segment is gone for good; the peer learns of it with the next packet."""
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
