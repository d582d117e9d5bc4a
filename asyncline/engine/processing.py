"""Processing: `process` of one Op at work.

    Samples → Batcher → replicas → results, gathered for each Item

What runs together, when and where, and what follows from a failure, the Batcher says; here it is done. All of
it runs on the loop, by calls and callbacks.

Samples that come in one turn of the loop are fed together in the next: a burst of requests, or those with which the
clients of a batch answer its end. The first of them would else run alone, and all others wait for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from copy import copy
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from asyncline.engine.alarm import Alarm
from asyncline.engine.batching import Batcher
from asyncline.engine.batching.rows import split
from asyncline.engine.lanes.accelerator import DeviceLost
from asyncline.engine.lanes.base import Batch, Replica
from asyncline.engine.lanes.call import WrongNumber
from asyncline.engine.visit import Sample, Visit
from asyncline.errors import (
    BadRequest,
    DeadlineExceeded,
    OpError,
    Overloaded,
    ProductError,
    RequestError,
    Unavailable,
    hook_error,
)
from asyncline.graph.collate import gather
from asyncline.graph.outcomes import Each, Reply, Rows
from asyncline.graph.plan import Node

if TYPE_CHECKING:
    from asyncline.engine.engine import Engine

MOST_SAMPLES = 10_000
"""Most samples of one Item at an Op: they are queued in one go, during which the loop serves nobody else."""

NOT_THE_SAMPLES = (WrongNumber, Unavailable, Overloaded, DeadlineExceeded)
"""Errors of a batch that another run of its halves would not change."""

GRACE_S = 1.0
"""How long past the deadlines of all its samples a batch may run before its replica is said to hang."""


class Processing:
    """The replicas of one Op, and what waits for them.

    :param done: called with an Item's Visit, the result of `process` and the time at which it was there.
    :param failed: called with a Visit, its error and the time.
    """

    def __init__(
        self,
        engine: Engine,
        node: Node,
        replicas: Sequence[Replica],
        done: Callable[[Visit, Any, float], None],
        failed: Callable[[Visit, RequestError, float], None],
    ) -> None:
        self.replicas = replicas
        self._engine = engine
        self._node = node
        self._done = done
        self._failed = failed
        self._clock = engine.clock
        op = node.op
        self._own_bucket: Callable[[Any], Hashable] | None = op.hook("bucket")
        self._cost: Callable[[Any], float] | None = op.hook("cost") if node.settings.max_batch_cost else None
        self._collate = op.collate
        self._has_buckets = self._own_bucket is not None or self._collate is not None
        self._batch_size = node.settings.batch_size
        self.batcher = self._make_batcher()
        self._feed_alarm = Alarm(engine.loop, self._feed_now)
        #: Calls `_feed_now` in the next turn of the loop.
        self._next_turn: asyncio.Handle | None = None
        #: Whether samples are fed now that are fewer than fill a batch.
        self._is_due = False
        #: Batches that each replica has, oldest first.
        self._given: list[deque[Batch]] = [deque() for _ in replicas]
        #: Since when replicas hang.
        self.hung: dict[int, float] = {}
        self._hang_alarm = Alarm(engine.loop, self._look_for_hung)

    def start(self) -> None:
        """The replicas have loaded their models, which may prefer some sizes of batches."""
        self.batcher = self._make_batcher()

    def _make_batcher(self) -> Batcher[Sample]:
        settings = self._node.settings
        sizes = {size for replica in self.replicas for size in replica.batch_sizes}
        return Batcher(
            settings.batch_size,
            settings.max_delay_ms / 1e3,
            replicas=len(self.replicas),
            depth=min(replica.depth for replica in self.replicas),
            retry=settings.retry,
            max_batch_cost=settings.max_batch_cost,
            sizes=sorted(size for size in sizes if size <= settings.batch_size),
            rows=None if self._collate is None else attrgetter("count"),
            cost=None if self._cost is None else attrgetter("cost"),
            priority=attrgetter("visit.item.priority") if self._engine.has_priorities else None,
            expires_at=attrgetter("visit.expires_at"),
        )

    # -- in -----------------------------------------------------------------------------------------

    def put(self, visit: Visit, value: Any, now: float) -> None:
        """Take what `preprocess` returned; `done` or `failed` is called, perhaps at once."""
        hook = "preprocess"
        try:
            if type(value) in (Each, Rows):
                pieces, rows = self._pieces(value)
            else:
                pieces, rows = (value,), None
            if not pieces:
                self._done(visit, [], now)
                return
            visit.is_each, visit.rows = type(value) is Each, rows
            visit.results = [None] * len(pieces)
            visit.samples_left = len(pieces)
            visit.ready_at = now
            for index, piece in enumerate(pieces):
                count = None if rows is None else rows[index]
                hook = "bucket"
                bucket = self._bucket(piece, count) if self._has_buckets else None
                sample = Sample(visit, index, piece, bucket, now, count)
                if self._cost is not None:
                    hook = "cost"
                    sample.cost = self._cost(piece)
                self.batcher.put(sample)
        except OpError as error:
            self._failed(visit, error, now)
        except Exception as error:
            self._failed(visit, hook_error(error, self._node.name, hook), now)

    def _pieces(self, value: Each | Rows) -> tuple[Sequence[Any], list[int] | None]:
        """The samples in what `preprocess` returned, and of a Rows how many rows each has."""
        if isinstance(value, Each):
            if len(value.samples) > MOST_SAMPLES:
                raise self._error(f"Each of {len(value.samples)} samples, more than {MOST_SAMPLES}")
            return value.samples, None
        if self._collate is None:
            raise self._error("Rows without `collate`: say how rows are laid together, collate = Stack()")
        places = split(len(value), self._node.settings.batch_size)
        if len(places) > MOST_SAMPLES:
            raise self._error(f"Rows of {len(value)}: more than {MOST_SAMPLES} batches")
        return [value.cut(place) for place in places], [place.stop - place.start for place in places]

    def _error(self, text: str) -> OpError:
        return OpError(f"op {self._node.name!r} preprocess: {text}")

    def _bucket(self, piece: Any, count: int | None) -> Hashable:
        own = None if self._own_bucket is None else self._own_bucket(piece)
        if self._collate is None:
            return own
        fits = self._collate.bucket(piece, is_rows=count is not None)
        return fits if self._own_bucket is None else (own, fits)

    # -- to the replicas ----------------------------------------------------------------------------

    def feed(self) -> bool:
        """Give the replicas what they can take; whether any sample has left, dead ones too."""
        batcher = self.batcher
        replicas = batcher.replicas
        waiting = batcher.count
        is_due, self._is_due = self._is_due, False
        if not replicas.take_more or (0 < waiting < self._batch_size and not is_due and self._waits_a_turn()):
            return False
        now = self._clock()
        while (feed := batcher.feed(now)) is not None:
            if feed.late:
                for sample in feed.late:
                    text = f"op {self._node.name!r}: would not be done before the deadline"
                    self._fail(sample, DeadlineExceeded(text), now)
            for samples, error in feed.failed:
                self._fail_all(samples, error, now)
            if feed.replica is not None:
                batch = Batch(feed.samples, self._over, feed.replica)
                self._given[feed.replica].append(batch)
                self._hang_alarm.set(now + GRACE_S, now)
                self.replicas[feed.replica].submit(batch)
                if not replicas.take_more:
                    return batcher.count < waiting
        if batcher.count and (at := batcher.next_feed_at()) is not None:
            self._feed_alarm.set(at, self._clock())
        return batcher.count < waiting

    def _waits_a_turn(self) -> bool:
        """Whether an idle replica leaves what is there to the next turn of the loop, as more may come in this one."""
        if self._next_turn is None:
            if not self.batcher.replicas.idle:
                return False  # the Batcher knows when to close a batch behind a running one
            self._next_turn = self._engine.loop.call_soon(self._feed_now)
        return True

    def _feed_now(self) -> None:
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        self._is_due = True
        self._wake()

    def _wake(self) -> None:
        self._engine.wake(self._engine.runners[self._node.index])
        self._engine.turn()

    def _over(self, batch: Batch) -> None:
        """A replica hands a Batch back."""
        given = self._given[batch.replica]
        given.popleft()
        if batch.abandoned:
            # Its replica hung. It takes batches again when it has handed back all that it had.
            if not given and self.hung.pop(batch.replica, None) is not None:
                self.batcher.restored(batch.replica)
        else:
            if batch.samples and self._engine.hooks.batch_done:
                self._engine.hooks.emit(self._engine.hooks.batch_done, self._node, batch)
            self._settle(batch)
        self._wake()

    def _settle(self, batch: Batch) -> None:
        where, began, ended = batch.replica, batch.started_at, batch.ended_at
        for sample in batch.samples:
            visit = sample.visit
            if not visit.started_at:
                visit.started_at = began
        if batch.staged_s:
            self.batcher.staged(batch.rows, batch.staged_s)
        if batch.error is None:
            failed = self.batcher.finished(where, began, ended)
            for sample, result in zip(batch.samples, batch.results, strict=True):
                self._take(sample, result, ended)
        elif isinstance(batch.error, NOT_THE_SAMPLES):
            failed = self.batcher.finished(where, began, ended)
            self._fail_all(batch.samples, batch.error, ended)
        elif batch.fault is None:
            may_retry = not isinstance(batch.error, BadRequest | ProductError)
            failed = self.batcher.failed(where, began, ended, batch.error, retry=may_retry)
        elif isinstance(batch.fault, DeviceLost):
            failed = self.batcher.lost(where, batch.error)
            self._engine.fault(f"op {self._node.name!r}: {batch.fault}")
        else:
            failed = self.batcher.out_of_memory(where, began, ended, batch.error)
        for samples, error in failed:
            self._fail_all(samples, error, ended)

    def _take(self, sample: Sample, result: Any, now: float) -> None:
        visit = sample.visit
        if visit.item.done:
            return
        if isinstance(result, BaseException):
            self._fail(sample, hook_error(result, self._node.name, "process"), now)
        elif type(result) is Reply:
            visit.item.reply(result.value)
        else:
            visit.results[sample.index] = result
            visit.samples_left -= 1
            if visit.samples_left:
                return
            if visit.rows is not None:
                try:
                    result = gather(visit.results, visit.rows)
                except Exception as error:  # pieces of different kinds fail in many ways
                    self._failed(visit, OpError(f"op {self._node.name!r} process: {error}"), now)
                    return
            elif visit.is_each:
                result = visit.results
            self._done(visit, result, now)

    def _fail_all(self, samples: Sequence[Sample], error: BaseException, now: float) -> None:
        for sample in samples:
            # One for each: an error knows its request.
            self._fail(sample, copy(error), now)  # type: ignore[arg-type]  # all are ours

    def _fail(self, sample: Sample, error: RequestError, now: float) -> None:
        if not sample.visit.item.done:
            self._failed(sample.visit, error, now)

    # -- replicas that hang -------------------------------------------------------------------------

    def _look_for_hung(self) -> None:
        """See whether batches are over some time after all their deadlines.

        As long as there are any, a look comes each GRACE_S, so that none is late before it has been looked at.
        """
        now = self._clock()
        for replica, given in enumerate(self._given):
            if not given or replica in self.hung:
                continue
            batch = given[0]
            if not batch.late_at:
                batch.late_at = max([sample.visit.expires_at for sample in batch.samples], default=now) + GRACE_S
            if now < batch.late_at:
                self._hang_alarm.set(min(batch.late_at, now + GRACE_S), now)
                continue
            self.hung[replica] = now
            for batch in given:
                batch.abandoned = True
            error = OpError(f"op {self._node.name!r} process: replica {replica} hangs")
            if self._engine.hooks.replica_hung:
                self._engine.hooks.emit(self._engine.hooks.replica_hung, self._node, replica)
            for samples, why in self.batcher.lost(replica, error):
                self._fail_all(samples, why, now)
            self._wake()

    def problem(self) -> str | None:
        """Why requests should not come here; None where all is well."""
        if not self.hung:
            return None
        replica, since = next(iter(self.hung.items()))
        return f"op {self._node.name!r}: replica {replica} hangs in process, for {self._clock() - since:.0f} s by now"

    def close(self) -> None:
        if self._next_turn is not None:
            self._next_turn.cancel()
        self._feed_alarm.cancel()
        self._hang_alarm.cancel()

    def __repr__(self) -> str:
        return f"<Processing {self._node.name!r} {self.batcher!r}>"
