"""Limits: how large a batch may be since the device ran out of memory."""

from __future__ import annotations

from collections.abc import Hashable
from math import log

RECOVERY = 1.25
"""By what factor a lowered limit rises in a minute."""


class Limits:
    """Most rows of a batch, by bucket: halved where memory ran out, then rising slowly to `most` again."""

    def __init__(self, most: int) -> None:
        self.most = most
        #: Rows and since when, of the buckets whose limit is not `most`.
        self.lowered: dict[Hashable, tuple[int, float]] = {}

    def limit(self, bucket: Hashable, now: float) -> int:
        """Most rows of a batch of that bucket; at least 1."""
        lowered = self.lowered.get(bucket)
        if lowered is None:
            return self.most
        rows, since = lowered
        minutes = max(0.0, now - since) / 60
        if minutes < log(self.most / rows, RECOVERY):
            return int(rows * RECOVERY**minutes)
        del self.lowered[bucket]
        return self.most

    def out_of_memory(self, bucket: Hashable, rows: int, now: float) -> None:
        """A batch of so many rows was too large."""
        self.lowered[bucket] = max(1, rows // 2), now

    def __repr__(self) -> str:
        return f"<Limits {self.most}, lowered: {self.lowered}>"
