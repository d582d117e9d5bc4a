"""Fresh: what of the timeline has ended since the last time."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from asyncline.observe.otel.ids import Ids
from asyncline.observe.timeline.kept import Kept, KeptItems
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
    """Picks from each Taken what was in none before, and is sampled.

    A batch ends in another thread before the loop hears of it, and its record is made then. So each look goes back two,
    and leaves out what the last one has seen. A request ends on the loop. Of those that are not sampled, which may be
    nearly all, nothing is made.
    """

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._before = -math.inf, -math.inf
        #: Those that ended at the very end of the last Taken: int64.
        self._items = np.zeros(0, np.int64)
        self._batches: set[BatchKey] = set()
        self._done = 0

    def pick(self, taken: Taken) -> tuple[list[ItemRecord], list[BatchRecord], int]:
        """Requests, batches with one of them or with one in flight, and of how many requests there is no record."""
        since, until = self._before[1] - ROUNDING_S, taken.at - ROUNDING_S
        count = 0
        last = [np.zeros(0, np.int64)]

        def choose(kept: KeptItems) -> np.ndarray:
            nonlocal count
            ends, data_ids = kept.ends, kept.data_ids
            fresh: np.ndarray = ends >= since
            if fresh.any():
                fresh &= ~np.isin(data_ids, self._items)
                count += int(fresh.sum())
                last.append(data_ids[ends >= until])
                fresh &= self._are_sampled(kept, data_ids)
            return fresh

        items = list(taken.records.items_where(choose))
        seen = [batch for batch in taken.records.batches if batch.ended_at >= self._before[0]]
        known = {item.data_id for item in items}
        known |= {data_id for data_id, context in taken.contexts.items() if self._ids.is_sampled(data_id, context)}
        batches = [batch for batch in seen if not known.isdisjoint(batch.data_ids) and key(batch) not in self._batches]
        missed = max(0, taken.done - self._done - count)
        self._before = self._before[1], taken.at
        self._items = np.concatenate(last)
        self._batches = set(map(key, seen))
        self._done = taken.done
        return items, batches, missed

    def _are_sampled(self, kept: KeptItems, data_ids: np.ndarray) -> np.ndarray:
        found = self._ids.are_sampled(data_ids)
        for place, traceparent in kept.traceparents:
            found[place] = self._ids.is_sampled(data_ids[place], traceparent)
        return found


def key(batch: BatchRecord) -> BatchKey:
    return batch.op, batch.replica, batch.started_at
