"""Recorder: keeps what happened, in rings of bounded size."""

from __future__ import annotations

import sys
from array import array
from collections import deque
from typing import Generic, TypeVar

import numpy as np

from asyncline.engine.engine import Engine
from asyncline.engine.hooks import Observer
from asyncline.engine.lanes.base import Batch, Job
from asyncline.graph.op import HOOKS
from asyncline.graph.plan import Node
from asyncline.observe.gathering import Block, Gathering
from asyncline.observe.timeline.kept import JOB_COLUMNS, Kept, KeptItems
from asyncline.observe.timeline.records import BatchRecord, GaugeRecord

# What a record takes of memory, with its numbers; measured on CPython 3.11.
_BATCH_NBYTES = 360
_SAMPLE_NBYTES = 65
_GAUGE_NBYTES = 400
_ROWS_NBYTES = 700
"""Of an array, beside its numbers, and its place in the ring. An `array` has up to a sixteenth of room to grow."""

_HOOK_PLACES = {hook: float(place) for place, hook in enumerate(HOOKS)}
_JOBS_ENOUGH = 256 * len(JOB_COLUMNS)
"""Numbers of jobs that are put into the ring at once."""

_Entry = TypeVar("_Entry")


class _Ring(Generic[_Entry]):
    """The newest of what was put, as much as there is room for.

    :param max_nbytes: the most that they take together.
    """

    def __init__(self, max_nbytes: float) -> None:
        self._max_nbytes = max_nbytes
        self._entries: deque[tuple[_Entry, int]] = deque()
        self.nbytes = 0

    def put(self, entry: _Entry, nbytes: int) -> None:
        self._entries.append((entry, nbytes))
        self.nbytes += nbytes
        while self.nbytes > self._max_nbytes:
            self.nbytes -= self._entries.popleft()[1]

    def list(self) -> list[_Entry]:
        return [entry for entry, _ in self._entries]


class Recorder(Observer):
    """Keeps the newest records.

    :param gathering: has the Items.
    :param max_nbytes: about the most memory they take, in all.
    """

    def __init__(self, engine: Engine, gathering: Gathering, max_nbytes: int) -> None:
        self._engine = engine
        self._gathering = gathering
        gathering.takers.append(self._take)
        self._items: _Ring[KeptItems] = _Ring(0.45 * max_nbytes)
        self._jobs: _Ring[np.ndarray] = _Ring(0.35 * max_nbytes)
        self._job_numbers = array("d")
        self._batches: _Ring[BatchRecord] = _Ring(0.15 * max_nbytes)
        self._gauges: _Ring[GaugeRecord] = _Ring(0.05 * max_nbytes)

    def _take(self, block: Block) -> None:
        texts: list[int | str | None] = []
        for note, place in zip(block.notes, block.places, strict=True):
            texts += (place, note.log_id, note.traceparent, note.code)
        nbytes = sum(map(sys.getsizeof, texts)) + sys.getsizeof(texts) if texts else 0
        self._items.put(KeptItems(block.rows, texts), _ROWS_NBYTES + block.rows.nbytes * 17 // 16 + nbytes)

    def job_done(self, job: Job) -> None:
        if job.ended_at > job.started_at:
            self._job_numbers.fromlist([
                job.node.index, _HOOK_PLACES[job.hook], job.worker, job.item.data_id,
                job.ready_at, job.started_at, job.ended_at, job.error is not None,
            ])  # fmt: skip
            if len(self._job_numbers) >= _JOBS_ENOUGH:
                self._keep_jobs()

    def _keep_jobs(self) -> None:
        rows = np.frombuffer(self._job_numbers).reshape(-1, len(JOB_COLUMNS))
        self._job_numbers = array("d")
        self._jobs.put(rows, _ROWS_NBYTES + rows.nbytes * 17 // 16)

    def batch_done(self, node: Node, batch: Batch) -> None:
        samples = batch.samples
        record = BatchRecord(
            node.index, batch.replica, batch.started_at, batch.ended_at, batch.rows,
            tuple([sample.visit.item.data_id for sample in samples]),
            tuple([sample.ready_at for sample in samples]),
            batch.error is not None,
        )  # fmt: skip
        self._batches.put(record, _BATCH_NBYTES + len(samples) * _SAMPLE_NBYTES)

    def gauge(self, lag_s: float, memory_nbytes: int) -> None:
        """Note what the loop and the Channels are like now."""
        engine = self._engine
        depths = tuple([len(runner.channel) for runner in engine.runners])
        record = GaugeRecord(engine.clock(), engine.admission.in_flight, lag_s, depths, memory_nbytes)
        self._gauges.put(record, _GAUGE_NBYTES)

    @property
    def nbytes(self) -> int:
        """About the memory that the records take now."""
        return self._items.nbytes + self._jobs.nbytes + self._batches.nbytes + self._gauges.nbytes

    def records(self) -> Kept:
        """All that is kept. Call it on the loop: it costs some 100 µs, and 300 more where Statistics count meanwhile.

        What is made of it belongs into a thread.
        """
        self._gathering.hand_over()
        if self._job_numbers:
            self._keep_jobs()
        rings = self._items.list(), self._jobs.list(), self._batches.list(), self._gauges.list()
        return Kept(self._engine.plan, *rings)
