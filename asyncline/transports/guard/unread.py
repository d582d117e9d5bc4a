"""Unread: what was written to a client that does not read."""

from __future__ import annotations

from asyncline.transports.guard.guard import ConnGuard


class Unread:
    """Counts what one client does not read as bytes in flight: then there is less room for what would add to it.

    `begin` where writing has to wait (`pause_writing`), `end` where it may go on, and when the connection is lost.
    Belongs to one connection.
    """

    __slots__ = ("_admission", "_limits", "_looked_at", "_to_read", "nbytes")

    def __init__(self, guard: ConnGuard) -> None:
        self._admission = guard.engine.admission
        self._limits = guard.limits
        #: Bytes of the budget that it costs.
        self.nbytes = 0
        #: When it was looked how much there was to read, and how much it was, with all that was added since.
        self._looked_at = 0.0
        self._to_read = 0

    def begin(self, nbytes: int, now: float) -> float:
        """So much is written and not read; returns when to look again."""
        self._count(nbytes)
        self._looked_at, self._to_read = now, nbytes
        return now + self._limits.stall_s

    def add(self, nbytes: int) -> None:
        """So much more is written."""
        self._count(self.nbytes + nbytes)
        self._to_read += nbytes

    def end(self) -> None:
        self._count(0)

    def look(self, nbytes: int, now: float) -> float | None:
        """So much is left of it; returns when to look again, None where the client reads too little."""
        limits = self._limits
        if now < self._looked_at + limits.stall_s:
            return self._looked_at + limits.stall_s
        if self._to_read - nbytes < limits.download_nbytes_s * limits.stall_s:
            return None
        return self.begin(nbytes, now)

    def _count(self, nbytes: int) -> None:
        # Not `reserve`: they are here, whether there is room or not.
        self._admission.nbytes += nbytes - self.nbytes
        self.nbytes = nbytes
