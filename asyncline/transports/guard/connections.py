"""Connections: those of one transport that are open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Abortable(Protocol):
    """What a connection has to be able to."""

    def abort(self, reason: str) -> None: ...


C = TypeVar("C", bound=Abortable)


class Connections(Generic[C]):
    """Added when their socket is there, discarded when it is gone."""

    def __init__(self) -> None:
        self._open: set[C] = set()
        #: Resolved when the last one is gone.
        self._empty: asyncio.Future[None] | None = None
        #: Whether one that comes is too late.
        self.is_closing = False

    def add(self, connection: C) -> None:
        self._open.add(connection)

    def discard(self, connection: C) -> None:
        self._open.discard(connection)
        if self._empty is not None and not self._open and not self._empty.done():
            self._empty.set_result(None)

    def __iter__(self) -> Iterator[C]:
        """Over those that are open now, whatever becomes of them meanwhile."""
        return iter(tuple(self._open))

    def __len__(self) -> int:
        return len(self._open)

    async def wait_closed(self, linger_s: float) -> None:
        """Wait until none is left; those that do not end by themselves are aborted.

        :param linger_s: for a client to close its end, and again for its last answer to be read.
        """
        if not self._open:
            return
        self._empty = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._empty], timeout=2 * linger_s)
        for connection in self:
            connection.abort("stopping")
        await self._empty

    def __repr__(self) -> str:
        return f"<Connections {len(self)} open{', closing' if self.is_closing else ''}>"
