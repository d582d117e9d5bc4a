"""Which endpoint is asked: pure policy, without a clock of its own.

The one with the fewest requests outstanding. One that failed is left alone for 0.1 s, and twice as long each time that
it fails again, up to 10 s; then one request may try it, while the others go elsewhere. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asyncline.client.address import Address

REST_S = 0.1
MOST_REST_S = 10.0


@dataclass(eq=False)
class Endpoint:
    address: Address
    outstanding: int = 0
    failures: int = 0
    """One after the other, since the last answer."""
    failed_at: float = 0.0
    rests_until: float = 0.0

    def is_open(self, now: float) -> bool:
        """Whether a request may be sent to it."""
        return not self.failures or (now >= self.rests_until and not self.outstanding)

    def answered(self) -> None:
        self.failures = 0

    def failed(self, began_at: float, now: float, asked_s: float | None = None) -> float | None:
        """A request failed by the endpoint's fault, or it asks to be left alone for `asked_s`. Returns for how long
        it is left alone from now on.

        None where the request had begun before the endpoint was known to fail: all that were outstanding then fail
        together, for one reason.
        """
        if self.failures and began_at < self.failed_at:
            return None
        self.failures += 1
        self.failed_at = now
        rest_s: float = REST_S * 2 ** min(self.failures - 1, 30) if asked_s is None else asked_s
        rest_s = min(rest_s, MOST_REST_S)
        self.rests_until = now + rest_s
        return rest_s

    def __repr__(self) -> str:
        state = f", {self.failures} failures" if self.failures else ""
        return f"<Endpoint {self.address}, {self.outstanding} outstanding{state}>"


class Endpoints:
    """The endpoints of one model."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self.all = tuple(map(Endpoint, addresses))
        self._turn = 0

    def pick(self, now: float, besides: Endpoint | None = None) -> Endpoint | None:
        """The endpoint to ask, or None where all others than `besides` are left alone."""
        # Where several have as few, they take turns.
        self._turn += 1
        turn = self._turn % len(self.all)
        found = [each for each in self.all[turn:] + self.all[:turn] if each is not besides and each.is_open(now)]
        return min(found, key=lambda endpoint: endpoint.outstanding, default=None)

    def rest_s(self, now: float) -> float:
        """How long until one may be asked again, where none may now."""
        return max(0.0, min(endpoint.rests_until for endpoint in self.all) - now)
