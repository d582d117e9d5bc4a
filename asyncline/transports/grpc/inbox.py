"""Inbox: the messages of one call, put together from what arrives."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from asyncline.errors import BadRequest, TooLarge
from asyncline.transports.grpc.compression import wbits_of
from asyncline.transports.inflate import most_inflated

PREFIX_NBYTES = 5

Bytes = bytes | memoryview


class Message(NamedTuple):
    data: Bytes
    nbytes: int
    """Of the budget, taken for it, and for what it may inflate to."""
    wbits: int = 0
    """Of zlib, for one that is compressed."""


class Inbox:
    """Takes DATA and gives messages; nothing of one over a limit is kept.

    :param reserve: takes bytes from the budget, before they are here; may raise a RequestError.
    :param release: gives them back.
    """

    __slots__ = ("_body", "_encoding", "_left", "_max_nbytes", "_prefix", "_release", "_reserve", "_reserved", "_wbits",
                 "messages")  # fmt: skip

    def __init__(
        self, max_nbytes: int, encoding: str, reserve: Callable[[int], None], release: Callable[[int], None]
    ) -> None:
        self._max_nbytes = max_nbytes
        self._encoding = encoding
        self._reserve = reserve
        self._release = release
        self._prefix = b""
        self._body: bytearray | None = None
        #: Bytes that the message in `_body` still wants, as it is sent.
        self._left = 0
        self._wbits = 0
        self._reserved = 0
        #: Those that are whole.
        self.messages: deque[Message] = deque()

    @property
    def is_partial(self) -> bool:
        """Whether a message has begun and is not here yet."""
        return self._body is not None or bool(self._prefix)

    def feed(self, data: bytes) -> None:
        """Take what arrived.

        :raises RequestError: a message is over the limit, or there is no room for it, or it is malformed.
        """
        place, end = 0, len(data)
        while place < end:
            if self._body is None:
                if not self._prefix and end - place >= PREFIX_NBYTES:
                    flag, nbytes = data[place], int.from_bytes(data[place + 1 : place + 5], "big")
                    place += PREFIX_NBYTES
                else:
                    missing = PREFIX_NBYTES - len(self._prefix)
                    self._prefix += data[place : place + missing]
                    place += missing
                    if place > end:
                        return
                    flag, nbytes = self._prefix[0], int.from_bytes(self._prefix[1:], "big")
                    self._prefix = b""
                self._begin(flag, nbytes)
                if not flag and nbytes <= end - place:  # nearly always: it is all here
                    self.messages.append(Message(data[place : place + nbytes], self._reserved))
                    self._body, self._reserved = None, 0
                    place += nbytes
                    continue
            body = self._body
            assert body is not None
            body += memoryview(data)[place : place + self._left]
            place += self._left
            self._left = max(0, place - end)
            if not self._left:
                self._finish()

    def _begin(self, flag: int, nbytes: int) -> None:
        if flag > 1:
            raise BadRequest("what was sent is no gRPC message")
        if nbytes > self._max_nbytes:
            raise TooLarge(f"a message of {nbytes} bytes is over the limit of {self._max_nbytes}")
        self._wbits = wbits_of(self._encoding) if flag else 0
        to_reserve = nbytes + min(most_inflated(nbytes), self._max_nbytes) if flag else nbytes
        self._reserve(to_reserve)
        self._reserved, self._left = to_reserve, nbytes
        self._body = bytearray()

    def _finish(self) -> None:
        assert self._body is not None
        self.messages.append(Message(memoryview(self._body).toreadonly(), self._reserved, self._wbits))
        self._body, self._reserved = None, 0

    def clear(self) -> None:
        """Forget everything, and give back what was taken for it."""
        self._release(self._reserved + sum(message.nbytes for message in self.messages))
        self._body, self._reserved, self._prefix = None, 0, b""
        self.messages.clear()
