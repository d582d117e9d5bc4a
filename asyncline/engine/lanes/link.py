"""Link: the connection between the server and one worker, the same at both ends.

A pair of stream sockets, made before the worker starts and inherited by it: there is no name to connect to. A
second pair carries nothing but descriptors.

A packet is a tuple of plain values, its length and then what marshal makes of it (the fastest there is, and this
is one program at both ends): the messages, each (kind, *fields), then what concerns segments:

    fresh     key and size of segments that the receiver does not know yet; their descriptors have been sent before
    returns   keys of holds handed back: what messages before named, the sender reads no more
    closed    keys of segments that are gone for good

Messages are gathered by `put` and sent by `flush`: what wakes the other process costs more than all the rest. And
one call reads all packets that are there.
"""

from __future__ import annotations

import array
import marshal
import os
import socket
import struct
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from asyncline.engine.lanes.segment import Array, Key, Segment, Segments

PACKET_BYTES = 256 * 1024
"""More than any packet has: values and errors that cross inside a message have limits of their own."""
MOST_DESCRIPTORS = 128
FULL_BYTES = 64 * 1024
"""Gathered messages of about this size are sent off."""
FORMAT = 2
"""Of marshal: the last that does not look for objects that occur twice, which takes it half as long again."""

_SPACE = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
_LENGTH = struct.Struct("=I")

Message = tuple[Any, ...]


class Sockets(NamedTuple):
    """Of one end of the connection."""

    packets: socket.socket
    """A stream."""
    descriptors: socket.socket
    """Keeps apart what is sent at once: a `recv` of the stream would lose descriptors that come among other bytes."""

    @classmethod
    def pair(cls) -> tuple[Sockets, Sockets]:
        packets = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        descriptors = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(packets[0], descriptors[0]), cls(packets[1], descriptors[1])

    def close(self) -> None:
        self.packets.close()
        self.descriptors.close()


class Link:
    """One end of the connection."""

    def __init__(self, sockets: Sockets, segments: Segments) -> None:
        self.sockets = sockets
        self._packets = sockets.packets
        #: Nothing more was there when it was last read.
        self.is_drained = True
        #: Holds of the peer's that were let go here and wait to be handed back (see `Segments.sweep`).
        self.returns: list[Key] = []
        #: Segments that are gone for good, for the peer to forget.
        self.closed: list[Key] = []
        self._segments = segments
        #: Segments that are lent to the peer.
        self._lent: dict[Key, Segment] = {}
        #: Our holds on others that it reads.
        self._held: dict[Key, list[Array]] = defaultdict(list)
        #: Segments whose descriptors the peer has: ours that went there, and its own that came from there.
        self._known: set[Key] = set()
        self._messages: list[Message] = []
        self._nbytes = 0
        self._fresh: list[tuple[Key, int]] = []
        self._view = memoryview(bytearray(PACKET_BYTES))
        #: How many bytes there are the beginning of a packet.
        self._rest = 0

    def put(self, message: Message, holds: Sequence[Array | Segment] = (), nbytes: int = 0) -> bool:
        """Gather a message: plain values. The holds on the segments that it names are lent with it.

        :param nbytes: what it adds to the packet, about.
        :return: whether what has gathered has to be sent before there is more: a packet has its limits.
        """
        self._messages.append(message)
        self._nbytes += nbytes
        for hold in holds:
            segment: Segment
            if isinstance(hold, Segment):
                segment = self._lent[hold.key] = hold
            else:
                segment = hold.base  # type: ignore[assignment]
                self._held[segment.key].append(hold)
            key = segment.key
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
        if self._fresh:
            descriptors = [self._segments.descriptor(key) for key, _ in self._fresh]
            socket.send_fds(self.sockets.descriptors, [b"d"], descriptors)
        self._packets.sendall(frame(self._messages, self._fresh, self.returns, self.closed))
        self._fresh.clear()
        self._messages.clear()
        self._nbytes = 0
        self.returns.clear()
        if self.closed:
            self._known.difference_update(self.closed)
            self.closed.clear()

    def send(self, message: Message, holds: Sequence[Array | Segment] = ()) -> None:
        self.put(message, holds)
        self.flush()

    def receive(self) -> list[Message]:
        """The messages of all packets that are there, in order; the segments that they name are mapped.

        There are none yet of a packet of which a part is there.

        :raises EOFError: the peer is gone, or what it sent has no room here.
        :raises BlockingIOError: there is nothing, on a socket that does not wait.
        """
        rest, view = self._rest, self._view
        try:
            end = self._packets.recv_into(view[rest:] if rest else view) + rest
        except ConnectionResetError:
            raise EOFError from None
        if end == rest:
            raise EOFError
        self.is_drained = end < len(view)
        messages: list[Message] = []
        at = 0
        while end - at >= _LENGTH.size:
            begin = at + _LENGTH.size
            beyond = begin + _LENGTH.unpack_from(view, at)[0]
            if beyond > end:
                break
            at = beyond
            more, fresh, returns, closed = marshal.loads(view[begin:beyond])
            messages += more
            for key in closed:
                self._known.discard(key)
                self._segments.forget(key)
            if fresh:
                self._add(fresh)
            for key in returns:
                if key in self._held:
                    # First: the peer may read a lent segment for as long as we hold on to what it has handed on.
                    self._held[key].pop()
                    if not self._held[key]:
                        del self._held[key]
                else:
                    self._segments.give_back(self._lent.pop(key))
        self._rest = rest = end - at
        if rest:
            view[:rest] = view[at:end]
        return messages

    def _add(self, fresh: Sequence[tuple[Key, int]]) -> None:
        # `socket.recv_fds` of Python 3.11 does not hand its flags on.
        _, extra, _, _ = self.sockets.descriptors.recvmsg(1, _SPACE, socket.MSG_CMSG_CLOEXEC)
        descriptors = array.array("i")
        for level, kind, data in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        if len(descriptors) != len(fresh):
            # This process has no room for more descriptors, and what they belong to cannot be read.
            for descriptor in descriptors:
                os.close(descriptor)
            raise EOFError
        for (key, size), descriptor in zip(fresh, descriptors, strict=True):
            self._known.add(key)
            self._segments.add(key, size, descriptor)

    def note_closed(self, key: Key) -> None:
        """A segment is gone for good; the peer learns of it with the next packet."""
        if key in self._known:
            self.closed.append(key)

    def close(self) -> None:
        self._segments.drop(self._lent.values())
        self._lent.clear()
        self._held.clear()
        self.sockets.close()


def frame(messages: list[Message], fresh: list[tuple[Key, int]], returns: list[Key], closed: list[Key]) -> bytes:
    """A packet as it goes."""
    data = marshal.dumps((messages, fresh, returns, closed), FORMAT)
    return _LENGTH.pack(len(data)) + data
