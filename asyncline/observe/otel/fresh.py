"""Fresh: what of the timeline has ended since the last time."""

from __future__ import annotations

import math
from typing import NamedTuple

from asyncline.observe.timeline.recorder import BatchRecord, ItemRecord, Records

BatchKey = tuple[int, int, float]


class Taken(NamedTuple):
    """What the loop hands over."""

    records: Records
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

    A hook of another thread or process ends before the loop hears of it, and a record is made then. So each look goes
    back two, and leaves out what the last one has seen.
    """

    def __init__(self) -> None:
        self._before: tuple[float, float] = (float("-inf"), float("-inf"))
        self._items: set[int] = set()
        self._batches: set[BatchKey] = set()
        self._done = 0

    def pick(self, taken: Taken) -> tuple[list[ItemRecord], list[BatchRecord], int]:
        """Requests and batches, and of how many requests there is no record any more."""
        window = taken.records.between(self._before[0], math.inf)
        items = [item for item in window.items if item.data_id not in self._items]
        batches = [batch for batch in window.batches if key(batch) not in self._batches]
        missed = max(0, taken.done - self._done - len(items))
        self._before = self._before[1], taken.at
        self._items = {item.data_id for item in window.items}
        self._batches = set(map(key, window.batches))
        self._done = taken.done
        return items, batches, missed


def key(batch: BatchRecord) -> BatchKey:
    return batch.op, batch.replica, batch.started_at
