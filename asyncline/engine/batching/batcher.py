"""Batcher: which samples run together, when, and on which replica."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple

from asyncline.engine.batching.backlog import MARGIN_S, Backlog, S
from asyncline.engine.batching.cost import CostModel
from asyncline.engine.batching.replicas import Load, Replicas, Run
from asyncline.engine.batching.returns import Returns
from asyncline.engine.batching.splitter import Failed, Splitter, Verdict

STAGE_S = 100e-6
"""From closing a batch until a replica begins with it: a wake-up of its thread, a launch. What laying it together
takes comes on top, as learned."""


class Feed(NamedTuple, Generic[S]):
    """What is to be done now."""

    replica: int | None
    """Which replica gets `samples`; None where none does."""
    samples: list[S]
    late: Sequence[S]
    """Samples whose deadline would pass before their end."""
    failed: Sequence[Failed[S]]
    """Samples that fail, with the error of the batch that they were in."""


@dataclass(frozen=True)
class BatcherStatistics:
    waiting: int
    running: int
    """Batches that run, at most one for each replica."""
    staged: int
    """Batches that wait behind a running one."""
    late: int
    """Samples refused so far because their deadline would have passed."""
    reruns: int
    """Batches tried again so far, whole or in halves."""
    limited: int
    """Buckets whose batches are smaller since the device ran out of memory."""


class Batcher(Backlog[S]):
    """Feeds the replicas of one Op.

    After `put` and after a batch is over call `feed` until it returns None, then again at `next_feed_at`. Every
    batch that `feed` gave to a replica is over by one call of `finished`, `failed` or `out_of_memory`, in the order
    of the replica's batches; these return the samples that fail by it. A replica that hangs is `lost`.

    The parameters of a Backlog, and

    :param replicas: how many there are.
    :param depth: 2 where a replica may be given a second batch while one runs, else 1.
    :param stage_s: seconds from closing a batch until a replica begins with it, without those that `staged` is told.
    :param retry: how often a batch that raised is tried again as a whole before it is split.
    :raises ValueError: a parameter is out of range.
    """

    def __init__(
        self,
        batch_size: int,
        max_delay_s: float = 0.0,
        *,
        replicas: int = 1,
        depth: int = 1,
        stage_s: float = STAGE_S,
        retry: int = 0,
        max_batch_cost: float | None = None,
        sizes: Sequence[int] = (),
        rows: Callable[[S], int] | None = None,
        cost: Callable[[S], float] | None = None,
        priority: Callable[[S], int] | None = None,
        expires_at: Callable[[S], float] | None = None,
    ) -> None:
        super().__init__(
            batch_size,
            max_delay_s,
            max_batch_cost=max_batch_cost,
            sizes=sizes,
            stage_s=stage_s,
            rows=rows,
            cost=cost,
            priority=priority,
            expires_at=expires_at,
        )
        if replicas < 1 or depth not in (1, 2) or retry < 0:
            raise ValueError(f"replicas {replicas}, depth {depth}, retry {retry}: expected from 1, 1 or 2, and from 0")
        self.replicas: Replicas[S] = Replicas(replicas, depth)
        self.splitter: Splitter[S] = Splitter()
        self.retry = retry
        self._stages = CostModel()
        if replicas == 1 and batch_size > 1 and self._is_plain and not max_delay_s:
            self.returns = Returns(self.costs)
        self._reruns: deque[Run[S]] = deque()
        self._late_count = 0
        self._rerun_count = 0

    # -- what to do

    def feed(self, now: float) -> Feed[S] | None:
        """The next thing to do: None when there is nothing until a sample comes, a batch is over, or `next_feed_at`."""
        if not (self.count or self._reruns):
            return None
        may_grow, most = False, self.batch_size
        idle = self.replicas.idle
        if idle:
            load = idle[-1]
            if len(idle) > 1:
                most = self._share(len(idle))
            may_grow = (
                self.returns is not None
                and self.returns.believed
                and self._awaits(self.returns, now)
                and not self._has_full(now)
            )
        else:
            soonest = self.replicas.soonest(now)
            if soonest is None:
                return None
            load = soonest
            may_grow = not self._has_full(now) and (now < self._close_at(load) or self._joins(load))
        failed: Sequence[Failed[S]] = ()
        run: Run[S] | None = None
        if self._reruns:
            run, failed = self._next_rerun(now)
        # Being full is the sign only: an older bucket that is not goes first, lest it starve beside one that always is.
        if run is None and not may_grow and (formed := self._form(now, most)) is not None:
            bucket, samples = formed
            run = Run(samples, bucket.key, self._size_of(samples))
        late: Sequence[S] = ()
        if self.late:
            late, self.late = self.late, []
            self._late_count += len(late)
        if run is None:
            return Feed(None, [], late, failed) if late or failed else None
        run.mean_s, run.deviation_s = self.costs.predict(run.bucket, run.size)
        self.replicas.give(load, run, now)
        return Feed(load.index, run.samples, late, failed)

    def next_feed_at(self) -> float | None:
        """When `feed` has something to do that it had not just now, if nothing happens before; None: never."""
        if self.replicas.idle:
            until = None if self.returns is None or not self.count else self.returns.until(0.0)
            return self.ready_at() if until is None else until
        load = self.replicas.soonest(0.0)
        if load is None or (ready_at := self.ready_at()) is None or self._joins(load):
            return None
        return max(ready_at, self._close_at(load))

    def _awaits(self, returns: Returns, now: float) -> bool:
        """Whether an idle replica waits for those whom its last batch answered."""
        until = returns.until(now)
        return until is not None and self._had_better_wait(returns, returns.left, until - now, now)

    def _joins(self, load: Load[S]) -> bool:
        """Whether what waits does so for those whom the running batch will answer, to run with them."""
        returns = self.returns
        if returns is None or not returns.believed or load.running is None:
            return False
        more = len(load.running.samples)
        back_s = returns.back_s(min(self.count + more, self.batch_size))
        return back_s is not None and self._had_better_wait(returns, more, back_s + self.stage_s, load.ends_at)

    def _had_better_wait(self, returns: Returns, more: int, wait_s: float, now: float) -> bool:
        if len(self._buckets) > 1 or not 0 < self.count < self.batch_size or self.limits.lowered:
            return False
        ((key, bucket),) = self._buckets.items()
        if not returns.gain(key, self.count, more, self.batch_size, wait_s):
            return False
        latest = now + wait_s + self.costs.high(key, self.batch_size) + MARGIN_S
        return self._expires_at is None or latest < self._expires_at(bucket[0])

    def _close_at(self, load: Load[S]) -> float:
        """When to close the batch that follows the one running there: just in time for its expected end.

        Where that end is uncertain: too early, and what comes in between waits for one batch more; too late, and
        the replica stands still for the stage. So the later, the wider the deviation is beside the stage, as to hit
        the end is luck then; and the earlier, the fuller the batch is, as a replica at its limit has no time to lose.
        """
        assert load.running is not None
        deviation_s = load.running.deviation_s
        slack = max(0.0, 1 - self.count / self.batch_size)
        stage_s = self.stage_s + (self._stages.predict(None, min(self.count, self.batch_size))[0] or 0.0)
        later = 2 * slack * deviation_s / stage_s - 1 if stage_s else -1.0
        return load.ends_at - stage_s + later * deviation_s

    def _next_rerun(self, now: float) -> tuple[Run[S] | None, list[Failed[S]]]:
        failed: list[Failed[S]] = []
        while self._reruns:
            run = self._reruns.popleft()
            alive = [sample for sample in run.samples if not sample.dead]
            late = [sample for sample in alive if self._is_late(sample, self._size_of([sample]), now)]
            self.late += late
            run.samples = [sample for sample in alive if sample not in late] if late else alive
            if run.samples:
                return run, failed
            if run.isolation is not None:
                failed += self._follow(run, self.splitter.half_succeeded(run.isolation, 0.0))
        return None, failed

    # -- what became of a batch

    def finished(self, replica: int, started_at: float, ended_at: float) -> Sequence[Failed[S]]:
        """The oldest batch of a replica is over, and well.

        :param started_at: when the device began with it: its own seconds are learned, not those that it waited. The
            same as `ended_at` where it did not run, all its samples having died before.
        """
        run = self.replicas.over(replica, ended_at)
        seconds = ended_at - started_at
        if seconds > 0:
            self.costs.learn(run.bucket, run.size, seconds)
            if self.returns is not None:
                self.returns.answered(len(run.samples), run.bucket, seconds, ended_at)
        if run.isolation is not None:
            return self._follow(run, self.splitter.half_succeeded(run.isolation, seconds))
        if seconds > 0:
            self.splitter.succeeded(seconds)
        return ()

    def staged(self, rows: int, seconds: float) -> None:
        """To lay a batch of so many rows together took so long, before the device could have it."""
        self._stages.learn(None, rows, seconds)

    def failed(
        self, replica: int, started_at: float, ended_at: float, error: BaseException, *, retry: bool = True
    ) -> Sequence[Failed[S]]:
        """The oldest batch of a replica raised `error`: it is tried again, or split until the bad samples are found.

        :param retry: whether it makes sense to try it again as a whole.
        """
        run = self.replicas.over(replica, ended_at)
        if run.isolation is not None:
            seconds = ended_at - started_at
            return self._follow(run, self.splitter.half_raised(run.isolation, run.samples, error, seconds))
        if retry and run.attempt < self.retry:
            self._rerun(Run(run.samples, run.bucket, run.size, run.attempt + 1))
            return ()
        return self._follow(run, self.splitter.raised(run.samples, error))

    def out_of_memory(
        self, replica: int, started_at: float, ended_at: float, error: BaseException
    ) -> Sequence[Failed[S]]:
        """The oldest batch of a replica was too large: smaller ones from now on, its samples first."""
        run = self.replicas.over(replica, ended_at)
        self.limits.out_of_memory(run.bucket, self._rows_of(run.samples), ended_at)
        failed: list[Failed[S]] = []
        if len(run.samples) == 1:
            failed.append((run.samples, error))
        else:
            self.put_back([sample for sample in run.samples if not sample.dead])
            self._rerun_count += 1
        if run.isolation is not None:
            failed += self._follow(run, self.splitter.half_succeeded(run.isolation, ended_at - started_at))
        return failed

    def lost(self, replica: int, error: BaseException) -> Sequence[Failed[S]]:
        """A replica takes no more until it is `restored`: its running batch fails, the staged one goes elsewhere."""
        running, staged = self.replicas.lose(replica)
        if staged is not None:
            self._reruns.appendleft(staged)
        if running is None:
            return ()
        failed: list[Failed[S]] = [(running.samples, error)]
        if running.isolation is not None:
            failed += self._follow(running, self.splitter.half_succeeded(running.isolation, 0.0))
        return failed

    def restored(self, replica: int) -> None:
        """A lost replica takes batches again."""
        self.replicas.restore(replica)

    def _follow(self, run: Run[S], verdict: Verdict[S]) -> Sequence[Failed[S]]:
        for half in verdict.reruns:
            self._rerun(Run(half, run.bucket, self._size_of(half), isolation=verdict.isolation))
        return verdict.failed

    def _rerun(self, run: Run[S]) -> None:
        self._reruns.append(run)
        self._rerun_count += 1

    def statistics(self) -> BatcherStatistics:
        return BatcherStatistics(
            waiting=self.count,
            running=self.replicas.running,
            staged=self.replicas.staged,
            late=self._late_count,
            reruns=self._rerun_count,
            limited=len(self.limits.lowered),
        )
