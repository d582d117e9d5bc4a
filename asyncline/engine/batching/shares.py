"""Shares: whose turn it is among priorities.

1 is the highest priority, as in Triton, and greater numbers come after it. The highest that waits leads the next
batch, and lower ones fill what it leaves of it. But a priority that has waited through TURN batches led by
others leads the next one itself: so each has its turn, and none starves.
"""

from __future__ import annotations

from collections.abc import Collection

TURN = 10
"""Batches led by others that a waiting priority lets pass."""


class Shares:
    """Counts for each waiting priority the batches that it let pass."""

    def __init__(self) -> None:
        self._passed: dict[int, int] = {}

    def leader(self, ready: Collection[int]) -> int:
        """Which of these priorities leads the next batch."""
        longest = max(ready, key=lambda priority: self._passed.get(priority, 0))
        return longest if self._passed.get(longest, 0) >= TURN else min(ready)

    def closed(self, leader: int, waiting: Collection[int]) -> None:
        """A batch was formed; of the priorities in `waiting` samples are left."""
        passed = {}
        for priority in waiting:
            count = self._passed.get(priority, 0)
            passed[priority] = max(0, count - TURN) if priority == leader else count + 1
        self._passed = passed  # those that do not wait save nothing up

    def __repr__(self) -> str:
        return f"<Shares, passed: {self._passed}>"
