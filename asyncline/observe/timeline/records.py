"""Records: what a request, a hook and a batch did and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from asyncline.graph.plan import Plan


class ItemRecord(NamedTuple):
    """A request that has its outcome. Times are seconds of the engine's clock."""

    data_id: int
    log_id: str
    traceparent: str | None
    """W3C trace context."""
    started_at: float
    times: list[float]
    """Seconds at each Op: those of all STAGES of Op 0, then of Op 1, ..., and at last of it all."""
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


@dataclass(frozen=True)
class Records:
    """What there is of a time or of a request, in order of the ends."""

    plan: Plan
    items: list[ItemRecord]
    jobs: list[JobRecord]
    batches: list[BatchRecord]
    gauges: list[GaugeRecord]

    def __bool__(self) -> bool:
        return bool(self.items or self.jobs or self.batches)
