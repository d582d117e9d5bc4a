"""Figures: what a window of time looked like, in numbers, for tracer, dashboard, `asyncline top` and verdict.

Times are in milliseconds where the name says so, shares lie between 0 and 1, rates are for a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PERCENTILES = (50, 60, 70, 80, 90, 95, 99)


@dataclass(frozen=True)
class Latency:
    """Of requests that had an answer, from admission to outcome."""

    count: int = 0
    mean_ms: float = 0.0
    percentiles_ms: Mapping[int, float] = field(default_factory=dict)
    """By the numbers of PERCENTILES."""


@dataclass(frozen=True)
class OpFigures:
    """One Op. The `_ms` are means for a request that it finished in the window."""

    name: str
    count: int = 0
    """Requests that it finished."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """Requests that it failed, by code."""
    in_ms: float = 0.0
    """Waiting: in its Channel, for a lane and in a batch that was forming. An idle Op does not wait."""
    prep_ms: float = 0.0
    midp_ms: float = 0.0
    """As the request saw it: all of the time of its batch."""
    postp_ms: float = 0.0
    out_ms: float = 0.0
    """From its end in a worker until the loop has handed it on."""
    idle: float = 1.0
    """Share of the time in which its replicas, or the workers that its hooks may take, did nothing for it."""
    batches: int = 0
    batch_size: float = 0.0
    """Rows, mean."""
    batch_ms: float = 0.0
    """Of a batch in `process`, mean."""
    fixed_ms: float | None = None
    """What a batch takes whatever its size; None where batches have been too alike to tell."""
    batch_sizes: Mapping[str, int] = field(default_factory=dict)
    """Batches by size: `1`, `2`, `3-4`, `5-8`, ..."""
    depth: int = 0
    """Items in its Channel now."""
    depth_max: int = 0
    """Most in the window."""
    channel_size: int = 0

    @property
    def cost_ms(self) -> float:
        """What a request costs at this Op: op_cost = pre + mid + post."""
        return self.prep_ms + self.midp_ms + self.postp_ms


@dataclass(frozen=True)
class Use:
    """How busy something of which there is only so much was, and with what."""

    kind: str
    """device, process, thread, io (async hooks) or loop."""
    servers: float
    """How many there are: replicas, workers, most requests at once."""
    busy: float
    """Share of their time."""
    work: Mapping[str, float]
    """Busy seconds by Op and hook, `detect.preprocess`."""
    cpu: float | None = None
    """Share of that in which it had a core to itself, and did not wait; None where nobody knows.

    The loop does not wait for others while it is busy: what is left is its wait for a core.
    """


@dataclass(frozen=True)
class Figures:
    """All of it, for one window."""

    seconds: float
    """How long it was."""
    at: float
    """Its end, in seconds since the epoch."""
    latency: Latency
    ops: tuple[OpFigures, ...]
    outcomes: Mapping[str, int]
    """Requests by `ok` or the code of their error."""
    rejected: Mapping[str, int]
    """Requests refused at the door, by code."""
    uses: tuple[Use, ...]
    in_flight: int
    in_flight_max: int
    """Most that may be."""
    in_flight_mean: float
    limit: str = "service.max_in_flight"
    """The setting that makes it so."""
    loop_lag_ms: float = 0.0
    """Largest delay of the event loop."""
    cores: float = 0.0
    """Cores that this server and its workers kept busy."""
    cores_there: int = 1
    cores_idle: float | None = None
    """Cores of the machine with nothing to do; None where that is not known."""
    blocked: Mapping[str, float] = field(default_factory=dict)
    """Seconds that the loop was blocked, by the Op and hook that did it; by "" where it was none of them."""

    @property
    def count(self) -> int:
        return sum(self.outcomes.values())

    @property
    def qps(self) -> float:
        return self.count / self.seconds if self.seconds > 0 else 0.0

    @property
    def success(self) -> float:
        """Share of the requests that ended well; 1 where there were none."""
        return self.outcomes.get("ok", 0) / self.count if self.count else 1.0

    def op(self, name: str) -> OpFigures:
        return next(op for op in self.ops if op.name == name)
