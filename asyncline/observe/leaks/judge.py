"""Judge: is it a leak, and of what? Policy: no clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from asyncline.observe.leaks.sample import Sample
from asyncline.observe.leaks.trend import Trend, trend

LEAST_SAMPLES = 16
"""Fewer tell nothing."""
SUSTAINED = 0.5
"""Part of the whole slope that the latter half must have: memory of a cache that fills levels off."""
BLOCK_NBYTES = 100_000
"""Where there are more bytes to a new block of Python's, they are not Python's."""

OWN_BLOCKS = 20
"""Python's blocks for each sample, that looking may leave behind."""

Kind = Literal[
    "none", "tasks", "descriptors", "threads", "arena slots", "python objects", "native memory", "worker processes",
    "cache warm-up", "too early",
]  # fmt: skip
LEAKS: tuple[Kind, ...] = (
    "tasks", "descriptors", "threads", "arena slots", "python objects", "native memory", "worker processes",
)  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """What growth is told by, and how much of it there may be."""

    unit: str
    of: Callable[[Sample], float]
    """Where a sample stands on it."""
    most_nbytes: float
    """Bytes per unit that memory may rise."""
    most_count: float
    """Tasks, descriptors or threads per unit that may be added."""
    least_nbytes: float = 0.0
    """Growth in all, below which nothing is said: with few requests, chance is much for each of them."""


@dataclass(frozen=True)
class Finding:
    kind: Kind
    nbytes: Trend
    """Of the process's memory, in bytes, per unit of the axis that it was found by."""
    text: str

    @property
    def is_leak(self) -> bool:
        return self.kind in LEAKS


def judge(samples: Sequence[Sample], *axes: Axis) -> Finding:
    """Judge samples that were taken after the warm-up, by each of `axes`; the first leak is told, by all of them."""
    findings = [_judge(samples, axis, [other for other in axes if other is not axis]) for axis in axes]
    return next((found for found in findings if found.is_leak), findings[0])


def _memory(sample: Sample) -> float:
    return sample.rss - sample.own


def _judge(samples: Sequence[Sample], axis: Axis, others: Sequence[Axis]) -> Finding:
    xs = [axis.of(sample) for sample in samples]
    memory = [_memory(sample) for sample in samples]
    rss = trend(xs, memory)
    if len(samples) < LEAST_SAMPLES:
        return Finding("too early", rss, f"too early to say: {len(samples)} samples of at least {LEAST_SAMPLES}")

    def grows(ys: Sequence[float]) -> Trend | None:
        found = trend(xs, ys)
        is_much = found.low > axis.most_nbytes and found.slope * (xs[-1] - xs[0]) >= axis.least_nbytes
        return found if is_much and _goes_on(xs, ys, found) else None

    def told(of: Callable[[Sample], float], found: Trend) -> str:
        """By this axis, with the interval, and by the others."""
        ys = [of(sample) for sample in samples]
        slopes = [(other, trend([other.of(sample) for sample in samples], ys)) for other in others]
        rest = "".join(f", {slope.slope:,.0f} B a {other.unit}" for other, slope in slopes)
        return f"{_nbytes(found, axis.unit)}{rest}"

    counts: tuple[Kind, ...] = ("tasks", "descriptors", "threads")
    for kind in counts:
        ys = [getattr(sample, kind) for sample in samples]
        found = trend(xs, ys)
        # By one each now and then could be chance.
        if found.low > axis.most_count and ys[-1] - ys[0] >= LEAST_SAMPLES / 2 and _goes_on(xs, ys, found):
            return Finding(kind, rss, f"{kind} grow by {found.slope:.3g} a {axis.unit}: {ys[0]} have become {ys[-1]}")
    if (arena := grows([sample.arena for sample in samples])) is not None:
        text = f"slots of the CPU pool's arena are kept: {told(lambda sample: sample.arena, arena)} more"
        return Finding("arena slots", rss, text)
    if (workers := grows([sample.workers_rss for sample in samples])) is not None:
        text = f"processes of the CPU pool grow by {told(lambda sample: sample.workers_rss, workers)}"
        return Finding("worker processes", rss, text)
    if rss.low <= axis.most_nbytes or rss.slope * (xs[-1] - xs[0]) < axis.least_nbytes:
        return Finding("none", rss, f"no leak: memory rises by {told(_memory, rss)}")
    if grows(memory) is None:
        return Finding("cache warm-up", rss, f"no leak: memory rose by {told(_memory, rss)}, and levels off")
    blocks = trend(xs, [sample.blocks - n * OWN_BLOCKS for n, sample in enumerate(samples)])
    if blocks.low > 0 and blocks.slope * BLOCK_NBYTES >= rss.slope:
        text = f"Python objects: memory grows by {told(_memory, rss)}, Python's blocks by {blocks.slope:.3g}"
        return Finding("python objects", rss, text)
    malloc = trend(xs, [sample.malloc_used for sample in samples])
    what = "native memory" if 2 * malloc.slope >= rss.slope else "memory that is not malloc's, or its fragments"
    return Finding("native memory", rss, f"{what}: it grows by {told(_memory, rss)}, Python's blocks do not")


def _goes_on(xs: Sequence[float], ys: Sequence[float], whole: Trend) -> bool:
    half = len(xs) // 2
    return trend(xs[half:], ys[half:]).slope >= SUSTAINED * whole.slope


def _nbytes(found: Trend, unit: str) -> str:
    return f"{found.slope:,.0f} B a {unit} ({found.low:,.0f} to {found.high:,.0f})"
