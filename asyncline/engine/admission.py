"""Admission: the one door. Behind it nothing is refused for want of room."""

from __future__ import annotations

import os

from asyncline.deadline import Clock
from asyncline.errors import Overloaded

WINDOW_S = 10.0


def _memory_bytes() -> int:
    """The memory this process may use: that of the machine, or of its control group."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max") as file:
            return min(memory, int(file.read()))
    except (OSError, ValueError):
        return memory  # no control group, or one without a limit ("max")


MEMORY_BYTES = _memory_bytes()


class Admission:
    """Tokens for requests in flight, and a budget for the bytes they bring."""

    def __init__(self, max_in_flight: int, max_bytes: int, clock: Clock) -> None:
        self.max_in_flight = max_in_flight
        self.max_bytes = max_bytes
        self.in_flight = 0
        self.nbytes = 0
        self._clock = clock
        self._left = 0
        self._since = clock()
        self._rate = 0.0

    def enter(self) -> None:
        """Take a token.

        :raises Overloaded: there is none.
        """
        if self.in_flight >= self.max_in_flight:
            raise self._overloaded(f"{self.in_flight} requests are in flight, the most allowed")
        self.in_flight += 1

    def leave(self) -> None:
        """Give the token back."""
        self.in_flight -= 1
        self._left += 1

    def reserve(self, nbytes: int, held: int = 0) -> None:
        """Take a request's bytes from the budget, before they are read; `release` gives them back.

        :param held: what the same request has taken already.
        :raises Overloaded: too little is left, or there is no token for the request anyway.
        """
        if self.in_flight >= self.max_in_flight:
            raise self._overloaded(f"{self.in_flight} requests are in flight, the most allowed")
        # A lone request always fits: its size has a limit of its own.
        if self.nbytes > held and self.nbytes + nbytes > self.max_bytes:
            raise self._overloaded(f"{self.nbytes} request bytes are in flight, and {nbytes} more are too many")
        self.nbytes += nbytes

    def release(self, nbytes: int) -> None:
        self.nbytes -= nbytes

    def _overloaded(self, message: str) -> Overloaded:
        # Little's law: at the rate of the last seconds, this is when all that is in flight now has left.
        now = self._clock()
        elapsed = now - self._since
        if elapsed > WINDOW_S or not self._rate:
            self._rate = self._left / elapsed if elapsed > 0 else 0.0
            self._since, self._left = now, 0
        wait_s = self.in_flight / self._rate if self._rate else 1.0
        return Overloaded(message, retry_after_s=min(30, max(1, round(wait_s))))

    def __repr__(self) -> str:
        return f"<Admission {self.in_flight} of {self.max_in_flight}, {self.nbytes} of {self.max_bytes} bytes>"
