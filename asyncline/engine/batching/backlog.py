"""Backlog: samples that wait, and the batches that they form.

Samples of one bucket only; among buckets the one whose oldest sample waits longest goes first, so that
none starves. In a bucket samples keep their order, and none is passed over because it is large.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, Protocol, TypeVar

from asyncline.engine.batching.cost import CostModel
from asyncline.engine.batching.limits import Limits
from asyncline.engine.batching.returns import Returns
from asyncline.engine.batching.shares import Shares


class Waiting(Protocol):
    """What the policy has to know of a sample."""

    bucket: Hashable
    ready_at: float

    @property
    def dead(self) -> bool: ...


S = TypeVar("S", bound=Waiting)

MARGIN_S = 0.002
"""How long before the last moment for a deadline a batch closes: the timers of a loop are a millisecond late."""

EMPTY_KEPT = 4
"""Buckets that are kept while empty: to look at one costs less than to make it anew."""


class Bucket(deque[S]):
    """Waiting samples of one bucket and one priority, oldest first."""

    __slots__ = ("cost", "expires_at", "hold_until", "key", "priority", "rows", "siblings")

    def __init__(self, key: Hashable, priority: int) -> None:
        self.key = key
        self.priority = priority
        #: Those of the same key, itself included, highest priority first: a batch may have samples of all.
        self.siblings = [self]
        #: Sums over the samples, dead ones included, where somebody asks for them.
        self.rows = 0
        self.cost = 0.0
        #: The earliest deadline, and how long it may be held; None: to be found out.
        self.expires_at: float | None = None
        self.hold_until: float | None = None


class Backlog(Generic[S]):
    """Samples waiting for a replica.

    What is not asked for is free: without its function a sample has one row, no cost, priority 1, no deadline.

    :param batch_size: most rows in a batch.
    :param max_delay_s: how long a free replica may leave a sample waiting for a fuller batch.
    :param max_batch_cost: most that the costs of a batch's samples may sum up to. A sample with more, or with more
        rows than `batch_size`, is a batch of its own.
    :param sizes: numbers of rows that the model runs best, ascending; batches in between are padded to the next.
    :param stage_s: seconds from closing a batch until a replica begins with it.
    :raises ValueError: a parameter is out of range.
    """

    def __init__(
        self,
        batch_size: int,
        max_delay_s: float = 0.0,
        *,
        max_batch_cost: float | None = None,
        sizes: Sequence[int] = (),
        stage_s: float = 0.0,
        rows: Callable[[S], int] | None = None,
        cost: Callable[[S], float] | None = None,
        priority: Callable[[S], int] | None = None,
        expires_at: Callable[[S], float] | None = None,
    ) -> None:
        if batch_size < 1 or not max_delay_s >= 0 or not stage_s >= 0:
            text = f"batch_size {batch_size}, max_delay_s {max_delay_s}, stage_s {stage_s}: expected from 1, 0 and 0"
            raise ValueError(text)
        if (max_batch_cost is None) != (cost is None) or (max_batch_cost is not None and not max_batch_cost > 0):
            raise ValueError(f"max_batch_cost {max_batch_cost}: expected more than 0, and a cost of samples with it")
        if list(sizes) != sorted(set(sizes)) or (sizes and sizes[0] < 1):
            raise ValueError(f"sizes {list(sizes)}: expected ascending numbers from 1")
        self.batch_size = batch_size
        self.max_delay_s = max_delay_s
        self.max_batch_cost = max_batch_cost
        self.sizes = tuple(sizes)
        self.stage_s = stage_s
        self.costs = CostModel()
        self.limits = Limits(batch_size)
        #: Samples that could not be answered in time, found when their batch closed. Whoever reads them empties it.
        self.late: list[S] = []
        #: Told of those that come; None where nobody is waited for.
        self.returns: Returns | None = None
        self._rows = rows
        self._cost = cost
        self._priority = priority
        self._expires_at = expires_at
        self._weighs = rows is not None or cost is not None
        # Deadlines are lost only by a wait that the user asked for.
        self._holds = max_delay_s > 0 and expires_at is not None
        self._accounts = self._weighs or self._holds
        self._is_plain = not (self._weighs or sizes or priority)
        self._shares = Shares()
        self._buckets: dict[Hashable, Bucket[S]] = {}
        #: Samples that wait.
        self.count = 0

    def put(self, sample: S) -> None:
        """Add a sample; those of one bucket and priority keep their order.

        :raises TypeError: its bucket is not hashable.
        :raises ValueError: it has less than one row, or a cost that is negative or no number.
        """
        key = sample.bucket if self._priority is None else (self._priority(sample), sample.bucket)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._new_bucket(sample)
        if self._accounts:
            self._add(bucket, sample)
        bucket.append(sample)
        self.count += 1
        if self.returns is not None and self.returns.left:
            self.returns.came(sample.ready_at)

    def put_back(self, samples: Sequence[S]) -> None:
        """Add samples that a batch had already: they are the first of their buckets again, in this order."""
        for sample in reversed(samples):
            key = sample.bucket if self._priority is None else (self._priority(sample), sample.bucket)
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = self._new_bucket(sample)
            if self._accounts:
                self._add(bucket, sample)
            bucket.appendleft(sample)
            self.count += 1

    def close(self, now: float) -> list[S]:
        """The batch for a replica that is free `now`: empty when there is none yet. Drops dead samples."""
        formed = self._form(now, self.batch_size) if self.count else None
        return [] if formed is None else formed[1]

    def ready_at(self) -> float | None:
        """When `close` will have a batch if nothing more arrives; None when nothing waits."""
        if not self._holds:
            oldest = min((bucket[0].ready_at for bucket in self._buckets.values() if bucket), default=None)
            return None if oldest is None else oldest + self.max_delay_s
        return min((self._hold_until(bucket) for bucket in self._buckets.values() if bucket), default=None)

    # -- accounts

    def _new_bucket(self, sample: S) -> Bucket[S]:
        if self._priority is None:
            bucket = self._buckets[sample.bucket] = Bucket(sample.bucket, 1)
            return bucket
        priority = self._priority(sample)
        bucket = Bucket(sample.bucket, priority)
        for other in self._buckets.values():
            if other.key == bucket.key:
                bucket.siblings = other.siblings
                insort(bucket.siblings, bucket, key=lambda sibling: sibling.priority)
                break
        self._buckets[priority, sample.bucket] = bucket
        return bucket

    def _drop_empty_buckets(self) -> None:
        for bucket in self._buckets.values():
            if not bucket:
                bucket.siblings.remove(bucket)
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if bucket}

    def _add(self, bucket: Bucket[S], sample: S) -> None:
        if self._rows is not None:
            rows = self._rows(sample)
            if rows < 1:
                raise ValueError(f"a sample of {rows} rows: expected 1 or more")
            bucket.rows += rows
        if self._cost is not None:
            cost = self._cost(sample)
            if not cost >= 0:
                raise ValueError(f"a sample with a cost of {cost}: expected 0 or more")
            bucket.cost += cost
        if self._holds:
            assert self._expires_at is not None
            bucket.hold_until = None
            if not bucket:
                bucket.expires_at = self._expires_at(sample)
            elif bucket.expires_at is not None:
                bucket.expires_at = min(bucket.expires_at, self._expires_at(sample))

    def _pop(self, bucket: Bucket[S]) -> S:
        sample = bucket.popleft()
        self.count -= 1
        if self._rows is not None:
            bucket.rows -= self._rows(sample)
        if self._cost is not None:
            # Sums of floats drift; an empty bucket costs nothing.
            bucket.cost = bucket.cost - self._cost(sample) if bucket else 0.0
        bucket.expires_at = bucket.hold_until = None
        return sample

    # -- when a batch closes

    def _form(self, now: float, most: int) -> tuple[Bucket[S], list[S]] | None:
        """The next batch, of `most` rows at most, and the bucket that leads it; None when none is ready."""
        while (bucket := self._pick(now)) is not None:
            if self._is_plain and not self.limits.lowered:
                samples = self._draw(bucket, most, now)
            else:
                samples = self._take(bucket, most, now)
            if samples:  # else all were dead or late
                return bucket, samples
        return None

    def _pick(self, now: float) -> Bucket[S] | None:
        """The bucket that leads the next batch: of those that are ready the one whose first sample waits longest."""
        if self.max_delay_s == 0 and len(self._buckets) == 1:  # the common case, in a third of the time
            (bucket,) = self._buckets.values()
            return bucket or None
        best: Bucket[S] | None = None
        leaders: dict[int, Bucket[S]] = {}
        empty = 0
        for bucket in self._buckets.values():
            if self._priority is not None:
                best = leaders.get(bucket.priority)
            while bucket and (best is None or bucket[0].ready_at < best[0].ready_at):
                if bucket[0].dead:
                    self._pop(bucket)
                    continue
                if self.max_delay_s == 0 or now >= self._hold_until(bucket) or self._is_full(bucket, now):
                    best = bucket
                    if self._priority is not None:
                        leaders[bucket.priority] = bucket
                break
            if not bucket:
                empty += 1
        if empty > EMPTY_KEPT:
            self._drop_empty_buckets()
        return leaders[self._shares.leader(leaders)] if leaders else best

    def _has_full(self, now: float) -> bool:
        if self._is_plain and len(self._buckets) == 1 and not self.limits.lowered:
            return self.count >= self.batch_size
        return any(self._is_full(bucket, now) for bucket in self._buckets.values() if bucket)

    def _is_full(self, bucket: Bucket[S], now: float) -> bool:
        if self.max_batch_cost is not None and sum(each.cost for each in bucket.siblings) >= self.max_batch_cost:
            return True
        return self._waiting_rows(bucket) >= self._limit(bucket, now)

    def _hold_until(self, bucket: Bucket[S]) -> float:
        """How long a free replica may leave it waiting: never so long that its earliest deadline is lost."""
        if not self._holds:
            return bucket[0].ready_at + self.max_delay_s
        if bucket.hold_until is None:
            assert self._expires_at is not None
            if bucket.expires_at is None:
                bucket.expires_at = min(map(self._expires_at, bucket))
            longest = self.costs.high(bucket.key, self._size(bucket.cost, self._waiting_rows(bucket) + 1))
            latest = bucket.expires_at - longest - self.stage_s - MARGIN_S
            bucket.hold_until = min(bucket[0].ready_at + self.max_delay_s, latest)
        return bucket.hold_until

    def _share(self, replicas: int) -> int:
        """Rows of a batch where so many replicas are idle: each gets its part, rather than one of them everything.

        None gets less than its model runs without padding, nor less than what the user would have it wait for.
        """
        if self.max_delay_s:
            return self.batch_size
        rows = self.count if self._rows is None else sum(bucket.rows for bucket in self._buckets.values())
        share = max(1, -(-rows // replicas))
        if self.sizes and share <= self.sizes[-1]:
            share = self.sizes[bisect_left(self.sizes, share)]
        return min(share, self.batch_size)

    def _limit(self, bucket: Bucket[S], now: float) -> int:
        return self.limits.limit(bucket.key, now) if self.limits.lowered else self.batch_size

    def _waiting_rows(self, bucket: Bucket[S]) -> int:
        """Rows that a batch led by that bucket could have."""
        if self._rows is not None:
            return sum(each.rows for each in bucket.siblings)
        return len(bucket) if self._priority is None else sum(map(len, bucket.siblings))

    # -- what is in it

    def _take(self, bucket: Bucket[S], most: int, now: float) -> list[S]:
        limit = min(self._limit(bucket, now), most)
        if self.sizes:
            limit = self._preferred(bucket, limit)
        sources = [bucket, *(each for each in bucket.siblings if each is not bucket)]
        if self._weighs:
            samples = self._draw_weighed(sources, limit, now)
        else:
            samples = []
            for source in sources:
                samples += self._draw(source, limit - len(samples), now)
        if self._priority is not None and samples:
            self._shares.closed(bucket.priority, {other.priority for other in self._buckets.values() if other})
        return samples

    def _draw(self, bucket: Bucket[S], most: int, now: float) -> list[S]:
        """Take so many samples from a bucket, of those that can be answered."""
        samples: list[S] = []
        bucket.expires_at = bucket.hold_until = None
        while bucket and (room := most - len(samples)):
            if len(bucket) > room:
                drawn = [bucket.popleft() for _ in range(room)]
            else:
                drawn = list(bucket)
                bucket.clear()
            self.count -= len(drawn)
            samples += [sample for sample in drawn if not sample.dead]
            if self._expires_at is not None:
                samples = self._in_time(samples, bucket.key, now)
        return samples

    def _draw_weighed(self, sources: Sequence[Bucket[S]], limit: int, now: float) -> list[S]:
        """The same from several buckets, where samples have rows or costs."""
        most = float("inf") if self.max_batch_cost is None else self.max_batch_cost
        samples: list[S] = []
        rows, cost = 0, 0.0
        for bucket in sources:
            while bucket:
                sample = bucket[0]
                if sample.dead:
                    self._pop(bucket)
                    continue
                its_rows = 1 if self._rows is None else self._rows(sample)
                its_cost = 0.0 if self._cost is None else self._cost(sample)
                if samples and (rows + its_rows > limit or cost + its_cost > most):
                    break
                self._pop(bucket)
                if self._is_late(sample, self._size(its_cost, its_rows), now):
                    self.late.append(sample)
                    continue
                samples.append(sample)
                rows += its_rows
                cost += its_cost
        return samples

    def _in_time(self, samples: list[S], key: Hashable, now: float) -> list[S]:
        """Those of one row each that can be answered before their deadline; the others are late."""
        seconds = self.costs.low(key, self._size(0.0, 1))
        if not seconds:
            return samples
        assert self._expires_at is not None
        late = [sample for sample in samples if self._expires_at(sample) < now + seconds]
        if not late:
            return samples
        self.late += late
        return [sample for sample in samples if self._expires_at(sample) >= now + seconds]

    def _is_late(self, sample: S, size: float, now: float) -> bool:
        if self._expires_at is None:
            return False
        return self._expires_at(sample) < now + self.costs.low(sample.bucket, size)

    def _preferred(self, bucket: Bucket[S], limit: int) -> int:
        """Cut a batch down to a size that needs no padding, where the replica takes no longer so for each row."""
        rows = min(limit, self._waiting_rows(bucket))
        place = bisect_right(self.sizes, rows)
        if not place or self._cost is not None:
            return limit
        fits = self.sizes[place - 1]
        seconds, _ = self.costs.predict(bucket.key, fits)
        padded_seconds, _ = self.costs.predict(bucket.key, self._size(0.0, rows))
        if seconds is None or padded_seconds is None:
            return limit
        return fits if (seconds + self.stage_s) * rows <= (padded_seconds + self.stage_s) * fits else limit

    def _size(self, cost: float, rows: int) -> float:
        """What the seconds of a batch depend on: its cost where there is one, else its rows after padding."""
        if self._cost is not None:
            return cost
        if not self.sizes or rows > self.sizes[-1]:
            return rows
        return self.sizes[bisect_left(self.sizes, rows)]

    def _size_of(self, samples: Sequence[S]) -> float:
        if self._is_plain:
            return len(samples)
        if self._cost is not None:
            return sum(map(self._cost, samples))
        return self._size(0.0, self._rows_of(samples))

    def _rows_of(self, samples: Sequence[S]) -> int:
        return len(samples) if self._rows is None else sum(map(self._rows, samples))

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        buckets = sum(bool(bucket) for bucket in self._buckets.values())
        return f"<{type(self).__name__} {self.count} samples in {buckets} buckets>"
