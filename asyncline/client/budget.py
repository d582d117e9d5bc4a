"""How often requests may be sent again: pure policy."""

from __future__ import annotations

SHARE = 10
"""One in so many requests may be sent again: more would be the load that a server in trouble needs least."""
MOST = 10
"""Most retries that may be saved up."""


class RetryBudget:
    """Every request earns the tenth part of a retry; the first one is a gift."""

    def __init__(self) -> None:
        self._saved = SHARE

    def earn(self) -> None:
        """A request was made, not counting when it was sent again."""
        self._saved = min(self._saved + 1, SHARE * MOST)

    def spend(self) -> bool:
        """Whether one may be sent again now; if so it counts as sent."""
        if self._saved < SHARE:
            return False
        self._saved -= SHARE
        return True

    def __repr__(self) -> str:
        return f"<RetryBudget {self._saved / SHARE:g} retries>"
