"""Histograms: counts by bucket. `Histogram` has bounds that are given, `LogHistogram` a bounded relative error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

SUB_BITS = 6
"""Buckets in an octave, as a power of two: a bucket is at most 1/64 of its value wide."""
LEAST_EXPONENT, MOST_EXPONENT = -20, 14
"""From 2^-20 to 2^14: a microsecond to four and a half hours, in seconds. What lies outside counts at the end."""

_SHIFT = 52 - SUB_BITS
_FIRST = (1023 + LEAST_EXPONENT) << SUB_BITS
_COUNT = (MOST_EXPONENT - LEAST_EXPONENT) << SUB_BITS
_BOUNDS = ((np.arange(_COUNT + 1, dtype=np.int64) + _FIRST) << _SHIFT).view(np.float64)
"""float64, [buckets + 1]: bucket i holds what is at least bound i and below bound i + 1."""


class Histogram:
    """Counts by bucket, and the sum. `counts` has one more entry than `bounds`: above the last."""

    def __init__(self, bounds: np.ndarray) -> None:
        self.bounds = bounds
        self.counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self.sum = 0.0

    def observe(self, values: np.ndarray | list[float]) -> None:
        places = np.searchsorted(self.bounds, values)
        self.counts += np.bincount(places, minlength=len(self.counts))
        self.sum += float(np.sum(values))

    @property
    def count(self) -> int:
        return int(self.counts.sum())


@dataclass
class LogHistogram:
    """Counts of positive numbers in buckets of equal relative width, their exact number and sum.

    A percentile is within 0.8 % of an exact one: the place of a number is its exponent and the first bits of its
    mantissa, as in HdrHistogram (Tene). 17 kB.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(_COUNT, dtype=np.int64))
    count: int = 0
    sum: float = 0.0

    def observe(self, values: np.ndarray) -> None:
        """:param values: float64, [n], contiguous."""
        places = (values.view(np.int64) >> _SHIFT) - _FIRST
        np.clip(places, 0, _COUNT - 1, out=places)
        self.counts += np.bincount(places, minlength=_COUNT)
        self.count += len(values)
        self.sum += float(values.sum())

    def copy(self) -> LogHistogram:
        return LogHistogram(self.counts.copy(), self.count, self.sum)

    def since(self, earlier: LogHistogram) -> LogHistogram:
        """What has come since `earlier`, a copy of this one, was made."""
        return LogHistogram(self.counts - earlier.counts, self.count - earlier.count, self.sum - earlier.sum)

    @property
    def mean(self) -> float:
        return self.sum / self.count if self.count else 0.0

    def percentiles(self, which: Sequence[float]) -> list[float]:
        """The numbers below which that many hundredths lie; 0 where there are none."""
        if not self.count:
            return [0.0] * len(which)
        below = np.cumsum(self.counts)
        ranks = np.asarray(which, dtype=np.float64) / 100 * self.count
        places = np.minimum(np.searchsorted(below, ranks, side="right"), np.flatnonzero(self.counts)[-1])
        # Those of a bucket are taken as spread evenly over it.
        inside = (ranks - (below[places] - self.counts[places])) / np.maximum(self.counts[places], 1)
        low, high = _BOUNDS[places], _BOUNDS[places + 1]
        found: list[float] = (low + (high - low) * np.clip(inside, 0.0, 1.0)).tolist()
        return found
