"""Fresh: what of the timeline has ended since the last time."""

from __future__ import annotations

import math
from typing import NamedTuple

from asyncline.observe.timeline.kept import Kept
from asyncline.observe.timeline.records import BatchRecord, ItemRecord

ROUNDING_S = 0.001
"""More than the end of a request, which is kept as its start and its length, may be off by."""
BatchKey = tuple[int, int, float]


class Taken(NamedTuple):
    """What the loop hands over."""

    records: Kept
    at: float
    """When, in seconds of the engine's clock."""
    unix_ns: int
    """When, in nanoseconds since the epoch."""
    done: int
    """Requests that have had their outcome, since the start."""
    contexts: dict[int, str | None]
    """Trace contexts that requests in flight came with, by data_id."""


class Fresh:
    """Picks from each Taken what was in none before.

    A batch ends in another thread before the loop hears of it, and its record is made then. So each look goes back two,
    and leaves out what the last one has seen. A request ends on the loop.
    """

    def __init__(self) -> None:
        self._before = -math.inf, -math.inf
        self._items: set[int] = set()
        self._batches: set[BatchKey] = set()
        self._done = 0

    def pick(self, taken: Taken) -> tuple[list[ItemRecord], list[BatchRecord], int]:
        """Requests and batches, and of how many requests there is no record any more."""
        since = self._before[1] - ROUNDING_S
        items = [item for item in taken.records.between(since, math.inf).items if item.data_id not in self._items]
        seen = [batch for batch in taken.records.batches if batch.ended_at >= self._before[0]]
        batches = [batch for batch in seen if key(batch) not in self._batches]
        missed = max(0, taken.done - self._done - len(items))
        self._before = self._before[1], taken.at
        self._items = {item.data_id for item in items if item.ended_at >= taken.at - ROUNDING_S}
        self._batches = set(map(key, seen))
        self._done = taken.done
        return items, batches, missed


def key(batch: BatchRecord) -> BatchKey:
    return batch.op, batch.replica, batch.started_at
