"""Counts and times of requests, Ops and batches."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from asyncline.engine.engine import Engine
from asyncline.engine.item import STARTED_AT, TOTAL, Item
from asyncline.engine.lanes.base import Batch, Job
from asyncline.errors import RequestError
from asyncline.graph.plan import Node
from asyncline.observe.gathering import Block, Gathering, Note, code_label
from asyncline.observe.histogram import Histogram, LogHistogram

SECONDS = np.array([m * 10.0**e for e in range(-5, 2) for m in (1.0, 2.5, 5.0)])
"""Upper bounds of the time buckets: 10 µs to 50 s, three in a decade."""
SIZES = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0])

FOLD_AFTER = 2**15
"""Times of Items that are kept as they are before they are counted together, in some 300 us.

Counting a few costs nearly what counting many does: in a busy server nothing of it is in the core's caches.
"""
FOLD_BATCHES_AFTER = FOLD_LAGS_AFTER = 1024
LAST_FAILURES = 32
"""Failed requests that are remembered one by one."""
LAST_BLOCKAGES = 8


@dataclass(frozen=True)
class Failure:
    """A request that had no answer."""

    at: float
    """Seconds since the epoch."""
    data_id: int
    log_id: str
    code: str
    message: str


@dataclass(frozen=True)
class Blockage:
    """A time in which the event loop stood still."""

    at: float
    """Its end, in seconds since the epoch."""
    op: str
    """The Op and the hook that kept it; empty where it was none of them."""
    hook: str
    seconds: float
    """From when the guard asked the loop for an answer: up to a tenth of a second less than it was."""


class Traced(NamedTuple):
    """A request that came with a trace context."""

    seconds: float
    trace_id: str
    """32 hexadecimal digits."""
    at: float
    """Its end, in seconds since the epoch."""


@dataclass
class Failures:
    """Requests that an Op failed, and the seconds that they had spent at it."""

    count: int = 0
    seconds: float = 0.0


class Statistics(Gathering):
    """Counts everything since the start. Call `fold` before you read."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        plan = engine.plan
        #: Requests by outcome: `ok` or the code of the error (`product` for the business's own).
        self.outcomes: Counter[str] = Counter()
        self.request_seconds = Histogram(SECONDS)
        #: The newest traced request of each bucket of `request_seconds`.
        self.exemplars: dict[int, Traced] = {}
        #: Delays of the event loop, as it was looked at.
        self.loop_lag = Histogram(SECONDS)
        #: Seconds of those that had an answer, for percentiles.
        self.latency = LogHistogram()
        self.last_failures: deque[Failure] = deque(maxlen=LAST_FAILURES)
        #: Of graphs that stream: time from admission to the first part of the answer.
        self.first_part_seconds = Histogram(SECONDS) if plan.streams else None
        #: Of those that had no answer.
        self.failed_seconds = 0.0
        #: When the last of them began, by the engine's clock; None before the first.
        self.last_started_at: float | None = None
        #: Rows of requests that had an answer, where the graph takes rows.
        self.rows = 0
        #: Requests refused at the door, by reason; they are no Items and in no other count.
        self.rejections: Counter[str] = Counter()
        #: Connections that are open, by wire; that have ended, by wire and reason; and that were refused, likewise.
        self.connections: Counter[str] = Counter()
        self.connections_closed: Counter[tuple[str, str]] = Counter()
        self.connections_refused: Counter[tuple[str, str]] = Counter()
        #: Seconds of requests at an Op, by its name and the stage, for the stages that it has.
        self.op_seconds = {key: Histogram(SECONDS) for key in plan.time_slots}
        #: Requests that an Op failed, by its name and the code.
        self.op_errors: Counter[tuple[str, str]] = Counter()
        self.op_failures = {node.name: Failures() for node in plan.nodes}
        batching = [node.name for node in plan.nodes if "process" in node.lanes]
        self.batch_sizes = {name: Histogram(SIZES) for name in batching}
        self.batch_seconds = {name: Histogram(SECONDS) for name in batching}
        #: Batches that did not raise: how many there were of a number of rows, and their seconds.
        self.executions: dict[str, dict[int, tuple[int, float]]] = {name: {} for name in batching}
        #: Seconds of hooks in lanes, by Op and hook.
        self.job_seconds: dict[tuple[str, str], float] = defaultdict(float)
        self.workers_lost = 0
        self.blockages = 0
        self.last_blockages: deque[Blockage] = deque(maxlen=LAST_BLOCKAGES)
        #: Seconds that the loop was kept by one hook, by Op and hook.
        self.late_seconds: dict[str, float] = defaultdict(float)
        self.hangs = 0
        self._plan = plan
        self._blocks: list[Block] = []
        self._numbers = 0
        self._lags: list[float] = []
        self.takers.append(self._take)
        #: By Op: rows and seconds of its batches, and whether they were run to the end.
        self._batches: dict[str, list[tuple[int, float, bool]]] = {name: [] for name in batching}

    def _take(self, block: Block) -> None:
        self._blocks.append(block)
        self._numbers += block.rows.size
        if self._numbers >= FOLD_AFTER:
            self._fold_items()

    def fold(self) -> None:
        """Count the Items and batches kept since the last time."""
        for name in self._batches:
            self._fold_batches(name)
        self.hand_over()
        if self._blocks:
            self._fold_items()
        if self._lags:
            self._fold_lags()

    def _fold_items(self) -> None:
        blocks, self._blocks, self._numbers = self._blocks, [], 0
        columns = np.ascontiguousarray(np.concatenate([block.rows for block in blocks]).T)
        total = columns[TOTAL]
        self.last_started_at = float(columns[STARTED_AT].max())
        self.request_seconds.observe(total)
        # Places of those that failed, and of those that only some Ops were done with, by these.
        failed: list[int] = []
        partial: dict[tuple[int, ...], list[int]] = {}
        before = 0
        for block in blocks:
            for note, row in zip(block.notes, block.places, strict=True):
                place = before + row
                self._count_note(note, float(total[place]))
                if note.code != "ok":
                    failed.append(place)
                    self.last_failures.append(Failure(note.at, note.data_id, note.log_id, note.code, note.message))
                if note.done is not None:
                    partial.setdefault(note.done, []).append(place)
            before += len(block.rows)
        if failed:
            self.failed_seconds += float(total[failed].sum())
            total = np.delete(total, failed)
        if len(total):
            self.outcomes["ok"] += len(total)
            self.latency.observe(total)
        for done, places in partial.items():
            self._count_stages(columns[:, places], done)
        if partial:
            columns = np.delete(columns, list(chain(*partial.values())), axis=1)
        self._count_stages(columns, range(len(self._plan.nodes)))

    def _count_note(self, note: Note, seconds: float) -> None:
        if note.code != "ok":
            self.outcomes[note.code] += 1
        if note.traceparent:
            self.exemplars[bisect_left(SECONDS, seconds)] = Traced(seconds, note.traceparent[3:35], note.at)
        if note.first_part_s is not None and self.first_part_seconds is not None:
            self.first_part_seconds.observe([note.first_part_s])
        self.rows += note.size

    def _count_stages(self, columns: np.ndarray, done: Iterable[int]) -> None:
        """:param columns: of Items that the Ops of those indices were done with."""
        for index in done:
            for stage, slot in self._plan.stage_slots[index].items():
                self.op_seconds[self._plan.nodes[index].name, stage].observe(columns[slot])

    def op_failed(self, node: Node, item: Item, error: RequestError) -> None:
        self.op_errors[node.name, code_label(error)] += 1
        failures = self.op_failures[node.name]
        failures.count += 1
        failures.seconds += sum([item.times[slot] for slot in self._plan.stage_slots[node.index].values()])

    def job_done(self, job: Job) -> None:
        self.job_seconds[job.node.name, job.hook] += job.ended_at - job.started_at

    def batch_done(self, node: Node, batch: Batch) -> None:
        kept = self._batches[node.name]
        kept.append((batch.rows, batch.ended_at - batch.started_at, batch.error is None))
        if len(kept) >= FOLD_BATCHES_AFTER:
            self._fold_batches(node.name)

    def _fold_batches(self, name: str) -> None:
        if not self._batches[name]:
            return
        batches, self._batches[name] = self._batches[name], []
        sizes, seconds, _ = np.array(batches).T
        self.batch_sizes[name].observe(sizes)
        self.batch_seconds[name].observe(seconds)
        executions = self.executions[name]
        for size, took, whole in batches:
            if whole and size:
                runs, total = executions.get(size, (0, 0.0))
                executions[size] = runs + 1, total + took

    def replica_hung(self, node: Node, replica: int) -> None:
        self.hangs += 1

    def note_lag(self, seconds: float) -> None:
        """The event loop was looked at, and was late by so much."""
        self._lags.append(max(0.0, seconds))
        if len(self._lags) >= FOLD_LAGS_AFTER:
            self._fold_lags()

    def _fold_lags(self) -> None:
        self.loop_lag.observe(self._lags)
        self._lags = []

    def rejected(self, reason: str) -> None:
        self.rejections[reason] += 1

    def connection_opened(self, wire: str) -> None:
        self.connections[wire] += 1

    def connection_closed(self, wire: str, reason: str) -> None:
        self.connections[wire] -= 1
        self.connections_closed[wire, reason] += 1

    def connection_refused(self, wire: str, reason: str) -> None:
        self.connections_refused[wire, reason] += 1

    def worker_lost(self, op: str, hook: str, reason: str) -> None:
        self.workers_lost += 1

    def loop_late(self, op: str, hook: str, share_s: float) -> None:
        self.late_seconds[f"{op}.{hook}"] += share_s

    def loop_blocked(self, op: str, hook: str, seconds: float, stack: str) -> None:
        self.blockages += 1
        self.last_blockages.append(Blockage(time.time(), op, hook, seconds))
