"""Kept: what a Recorder has, in the compact form in which it has it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from asyncline.engine.item import DATA_ID, STARTED_AT, TOTAL
from asyncline.graph.op import HOOKS
from asyncline.graph.plan import STAGES, Plan
from asyncline.observe.timeline.records import BatchRecord, GaugeRecord, ItemRecord, JobRecord, Records

JOB_COLUMNS = ("op", "hook", "worker", "data_id", "ready_at", "started_at", "ended_at", "failed")
"""Of the rows of jobs, as in JobRecord; `hook` is its place among HOOKS."""
_JOB_DATA_ID, _JOB_ENDED_AT = JOB_COLUMNS.index("data_id"), JOB_COLUMNS.index("ended_at")


class KeptItems(NamedTuple):
    """A Block as it is kept. Python's collector finds one list to go through, however much it holds."""

    rows: np.ndarray
    """As in the Block."""
    texts: list[int | str | None]
    """Of each of its notes, one after the other: place, log_id, traceparent, code."""

    @property
    def ends(self) -> np.ndarray:
        """When each ended."""
        found: np.ndarray = self.rows[:, STARTED_AT] + self.rows[:, TOTAL]
        return found

    @property
    def data_ids(self) -> np.ndarray:
        """int64."""
        return self.rows[:, DATA_ID].astype(np.int64)

    @property
    def traceparents(self) -> list[tuple[int, str]]:
        """Places of those that came with a trace context, and that."""
        found: Any = zip(self.texts[::4], self.texts[2::4], strict=True)
        return [(place, traceparent) for place, traceparent in found if traceparent is not None]


@dataclass(frozen=True)
class Kept:
    """A copy: any thread may read it. Records are made only of what is asked for."""

    plan: Plan
    items: list[KeptItems]
    jobs: list[np.ndarray]
    """float64, [jobs, JOB_COLUMNS] each."""
    batches: list[BatchRecord]
    gauges: list[GaugeRecord]

    def between(self, since: float, until: float) -> Records:
        """What ended between two times."""

        def ended_then(ends: np.ndarray) -> np.ndarray:
            return (since <= ends) & (ends <= until)

        return Records(
            self.plan,
            list(self.items_where(lambda kept: ended_then(kept.ends))),
            list(self._jobs(lambda rows: ended_then(rows[:, _JOB_ENDED_AT]))),
            [batch for batch in self.batches if since <= batch.ended_at <= until],
            [gauge for gauge in self.gauges if since <= gauge.at <= until],
        )

    def of(self, data_id: int) -> Records:
        """What there is of one request."""
        return Records(
            self.plan,
            list(self.items_where(lambda kept: kept.rows[:, DATA_ID] == data_id)),
            list(self.jobs_of([data_id])),
            [batch for batch in self.batches if data_id in batch.data_ids],
            [],
        )

    def items_where(self, choose: Callable[[KeptItems], np.ndarray]) -> Iterator[ItemRecord]:
        """:param choose: which of some to make records of, as bool."""
        slots = [*(each.get(stage) for each in self.plan.stage_slots for stage in STAGES), TOTAL]
        for kept in self.items:
            rows, texts = kept
            places = np.flatnonzero(choose(kept)).tolist()
            found: dict[Any, Any] = {}
            if places:
                found = {place: about for place, *about in zip(*[iter(texts)] * 4, strict=True)}
            for place in places:
                row = rows[place].tolist()
                log_id, traceparent, code = found.get(place, ("", None, "ok"))
                times = [0.0 if slot is None else row[slot] for slot in slots]
                yield ItemRecord(int(row[DATA_ID]), log_id, traceparent, row[STARTED_AT], times, code)

    def jobs_of(self, data_ids: Collection[int]) -> Iterator[JobRecord]:
        """Those of some requests."""
        wanted = np.array([*data_ids], np.float64)
        yield from self._jobs(lambda rows: np.isin(rows[:, _JOB_DATA_ID], wanted))

    def _jobs(self, choose: Callable[[np.ndarray], np.ndarray]) -> Iterator[JobRecord]:
        for rows in self.jobs:
            for op, hook, worker, data_id, ready_at, started_at, ended_at, failed in rows[choose(rows)].tolist():
                yield JobRecord(
                    int(op), HOOKS[int(hook)], int(worker), int(data_id), ready_at, started_at, ended_at, bool(failed)
                )
