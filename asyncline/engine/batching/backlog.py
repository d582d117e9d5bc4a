"""Which samples run together, and when: pure policy, without clock, await or threads of its own.

Work-conserving: a free replica takes what is there, so a lone request never waits; `max_delay_s` only
lets it wait for more when the user asks. Samples of one bucket only; among buckets the one whose oldest
sample waits longest goes first, so that none starves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What the policy has to know of a sample."""

    bucket: Hashable
    ready_at: float

    @property
    def dead(self) -> bool: ...


S = TypeVar("S", bound=Waiting)


class Batcher(Generic[S]):
    """Samples waiting for a replica.

    :param batch_size: most samples in a batch.
    :param max_delay_s: how long a free replica may leave a sample waiting for a fuller batch.
    """

    def __init__(self, batch_size: int, max_delay_s: float = 0.0) -> None:
        self.batch_size = batch_size
        self.max_delay_s = max_delay_s
        self._buckets: dict[Hashable, deque[S]] = {}
        self._count = 0

    def put(self, sample: S) -> None:
        """Add a sample; those of a bucket keep their order.

        :raises TypeError: its bucket is not hashable.
        """
        bucket = self._buckets.get(sample.bucket)
        if bucket is None:
            self._buckets[sample.bucket] = bucket = deque()
        bucket.append(sample)
        self._count += 1

    def close(self, now: float) -> list[S]:
        """The batch for a replica that is free `now`: empty when there is none yet. Drops dead samples."""
        best: deque[S] | None = None
        for key in tuple(self._buckets):
            bucket = self._buckets[key]
            while bucket and bucket[0].dead:
                bucket.popleft()
                self._count -= 1
            if not bucket:
                del self._buckets[key]
            elif (best is None or bucket[0].ready_at < best[0].ready_at) and self._is_ready(bucket, now):
                best = bucket
        return [] if best is None else self._take(best)

    def ready_at(self) -> float | None:
        """When `close` will have a batch if nothing more arrives; None when nothing waits."""
        oldest = min((bucket[0].ready_at for bucket in self._buckets.values() if bucket), default=None)
        return None if oldest is None else oldest + self.max_delay_s

    def _is_ready(self, bucket: deque[S], now: float) -> bool:
        return len(bucket) >= self.batch_size or now >= bucket[0].ready_at + self.max_delay_s

    def _take(self, bucket: deque[S]) -> list[S]:
        batch: list[S] = []
        while bucket and len(batch) < self.batch_size:
            sample = bucket.popleft()
            self._count -= 1
            if not sample.dead:
                batch.append(sample)
        if not bucket:
            del self._buckets[batch[0].bucket]
        return batch

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<Batcher {self._count} samples in {len(self._buckets)} buckets>"
