"""Judge: is it a leak, and of what? Policy: no clock of its own."""

from __future__ import annotations

from collections.abc import Sequence
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

Kind = Literal[
    "none", "tasks", "descriptors", "threads", "python objects", "native memory", "worker processes", "cache warm-up",
    "too early",
]  # fmt: skip
LEAKS: tuple[Kind, ...] = ("tasks", "descriptors", "threads", "python objects", "native memory", "worker processes")


@dataclass(frozen=True)
class Finding:
    kind: Kind
    nbytes: Trend
    """Of the process's resident memory, in bytes, per unit of x."""
    text: str

    @property
    def is_leak(self) -> bool:
        return self.kind in LEAKS


def judge(xs: Sequence[float], samples: Sequence[Sample], unit: str, most_nbytes: float, most_count: float) -> Finding:
    """Judge samples that were taken after the warm-up.

    :param xs: when each was taken: minutes, or requests.
    :param unit: of x, for the text.
    :param most_nbytes: bytes per unit that memory may rise.
    :param most_count: tasks, descriptors or threads per unit that may be added.
    """
    rss = trend(xs, [sample.rss for sample in samples])
    if len(samples) < LEAST_SAMPLES:
        return Finding("too early", rss, f"too early to say: {len(samples)} samples of at least {LEAST_SAMPLES}")
    counts: tuple[Kind, ...] = ("tasks", "descriptors", "threads")
    for kind in counts:
        ys = [getattr(sample, kind) for sample in samples]
        found = trend(xs, ys)
        # By one each now and then could be chance.
        if found.low > most_count and ys[-1] - ys[0] >= LEAST_SAMPLES / 2 and _goes_on(xs, ys, found):
            return Finding(kind, rss, f"{kind} grow by {found.slope:.3g} a {unit}: {ys[0]} have become {ys[-1]}")
    workers = [sample.workers_rss for sample in samples]
    found = trend(xs, workers)
    if found.low > most_nbytes and _goes_on(xs, workers, found):
        return Finding("worker processes", rss, f"processes of the CPU pool grow by {_nbytes(found, unit)}")
    if rss.low <= most_nbytes:
        return Finding("none", rss, f"no leak: memory rises by {_nbytes(rss, unit)}")
    if not _goes_on(xs, [sample.rss for sample in samples], rss):
        return Finding("cache warm-up", rss, f"no leak: memory rose by {_nbytes(rss, unit)}, and levels off")
    blocks = trend(xs, [sample.blocks for sample in samples])
    if blocks.low > 0 and blocks.slope * BLOCK_NBYTES >= rss.slope:
        text = f"Python objects: memory grows by {_nbytes(rss, unit)}, Python's blocks by {blocks.slope:.3g}"
        return Finding("python objects", rss, text)
    text = f"native memory, or its fragments: it grows by {_nbytes(rss, unit)}, Python's blocks do not"
    return Finding("native memory", rss, text)


def _goes_on(xs: Sequence[float], ys: Sequence[float], whole: Trend) -> bool:
    half = len(xs) // 2
    return trend(xs[half:], ys[half:]).slope >= SUSTAINED * whole.slope


def _nbytes(found: Trend, unit: str) -> str:
    return f"{found.slope:,.0f} B a {unit} ({found.low:,.0f} to {found.high:,.0f})"
