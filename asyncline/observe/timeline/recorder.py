"""Recorder: keeps what happened, in rings of bounded size."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from asyncline.engine.engine import Engine
from asyncline.engine.hooks import Observer
from asyncline.engine.item import Item
from asyncline.engine.lanes.base import Batch, Job
from asyncline.graph.plan import Node, Plan
from asyncline.observe.statistics import code_label

# What a record takes of memory, with its numbers; measured on CPython 3.11.
_ITEM_NBYTES = 300
_ITEM_OP_NBYTES = 190
_JOB_NBYTES = 230
_BATCH_NBYTES = 1400
"""Of 16 samples."""
_GAUGE_NBYTES = 400


_make = tuple.__new__
"""Makes a record for half the price of its class."""


class ItemRecord(NamedTuple):
    """A request that has its outcome. Times are seconds of the engine's clock."""

    data_id: int
    log_id: str
    traceparent: str | None
    """W3C trace context."""
    started_at: float
    times: list[float]
    """As `Item.times`."""
    code: str
    """`ok`, or that of its error."""

    @property
    def ended_at(self) -> float:
        return self.started_at + self.times[-1]


class JobRecord(NamedTuple):
    """A hook that has run in a lane."""

    op: int
    """Index of its Node."""
    hook: str
    worker: int
    data_id: int
    ready_at: float
    started_at: float
    ended_at: float
    failed: bool


class BatchRecord(NamedTuple):
    """A batch that a replica has run."""

    op: int
    replica: int
    started_at: float
    ended_at: float
    rows: int
    data_ids: tuple[int, ...]
    ready_at: tuple[float, ...]
    """When each of its samples was ready."""
    failed: bool


class GaugeRecord(NamedTuple):
    """What could be measured at a moment."""

    at: float
    in_flight: int
    lag_s: float
    depths: tuple[int, ...]
    """Items in the Channel of each Op."""
    memory_nbytes: int
    """Resident, of the server's process; 0 where it was not looked at."""


_Record = TypeVar("_Record", ItemRecord, JobRecord, BatchRecord)


@dataclass(frozen=True)
class Records:
    """What was kept, in order of the ends. A copy: any thread may read it."""

    plan: Plan
    items: list[ItemRecord]
    jobs: list[JobRecord]
    batches: list[BatchRecord]
    gauges: list[GaugeRecord]

    def between(self, since: float, until: float) -> Records:
        """What ended between two times."""
        return Records(
            self.plan,
            list(_between(self.items, since, until)),
            list(_between(self.jobs, since, until)),
            list(_between(self.batches, since, until)),
            [gauge for gauge in self.gauges if since <= gauge.at <= until],
        )

    def of(self, data_id: int) -> Records:
        """What there is of one request."""
        return Records(
            self.plan,
            [item for item in self.items if item.data_id == data_id],
            [job for job in self.jobs if job.data_id == data_id],
            [batch for batch in self.batches if data_id in batch.data_ids],
            [],
        )

    def __bool__(self) -> bool:
        return bool(self.items or self.jobs or self.batches)


class Recorder(Observer):
    """Keeps the newest records.

    :param max_nbytes: about the most memory they take, in all.
    """

    def __init__(self, engine: Engine, max_nbytes: int) -> None:
        self._engine = engine
        item_nbytes = _ITEM_NBYTES + len(engine.plan.nodes) * _ITEM_OP_NBYTES
        self._items: deque[ItemRecord] = deque(maxlen=max(1, int(0.45 * max_nbytes / item_nbytes)))
        self._jobs: deque[JobRecord] = deque(maxlen=max(1, int(0.35 * max_nbytes / _JOB_NBYTES)))
        self._batches: deque[BatchRecord] = deque(maxlen=max(1, int(0.15 * max_nbytes / _BATCH_NBYTES)))
        self._gauges: deque[GaugeRecord] = deque(maxlen=max(1, int(0.05 * max_nbytes / _GAUGE_NBYTES)))

    def item_done(self, item: Item) -> None:
        error = item.error
        code = "ok" if error is None else code_label(error)
        fields = item.data_id, item.log_id, item.traceparent, item.started_at, item.times, code
        self._items.append(_make(ItemRecord, fields))

    def job_done(self, job: Job) -> None:
        if job.ended_at > job.started_at:
            self._jobs.append(
                JobRecord(
                    job.node.index, job.hook, job.worker, job.item.data_id,
                    job.ready_at, job.started_at, job.ended_at, job.error is not None,
                )
            )  # fmt: skip

    def batch_done(self, node: Node, batch: Batch) -> None:
        samples = batch.samples
        self._batches.append(
            BatchRecord(
                node.index, batch.replica, batch.started_at, batch.ended_at, batch.rows,
                tuple([sample.visit.item.data_id for sample in samples]),
                tuple([sample.ready_at for sample in samples]),
                batch.error is not None,
            )
        )  # fmt: skip

    def gauge(self, lag_s: float, memory_nbytes: int) -> None:
        """Note what the loop and the Channels are like now."""
        engine = self._engine
        depths = tuple([runner.channel.qsize() for runner in engine.runners])
        record = GaugeRecord(engine.clock(), engine.admission.in_flight, lag_s, depths, memory_nbytes)
        self._gauges.append(record)

    def records(self) -> Records:
        """All that is kept. Call it on the loop: it costs some 100 µs; what is made of it belongs into a thread."""
        kept = (list(self._items), list(self._jobs), list(self._batches), list(self._gauges))
        return Records(self._engine.plan, *kept)


def _between(kept: Iterable[_Record], since: float, until: float) -> Iterator[_Record]:
    return (record for record in kept if since <= record.ended_at <= until)
