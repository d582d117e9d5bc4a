"""Trend: how steeply a series rises, whatever some of its values are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z = 2.576
"""Of a normal distribution: 99 % lie within."""


@dataclass(frozen=True)
class Trend:
    slope: float
    """Per unit of x."""
    low: float
    high: float
    """The slope lies between these with 99 % confidence, if the values scatter by chance."""


def trend(xs: Sequence[float], ys: Sequence[float]) -> Trend:
    """Theil's and Sen's slope, the median of those of all pairs, and Sen's interval (1968, J. Am. Stat. Ass. 63).

    Takes some ms for 100 points. Of fewer than 3, or where all x are one, nothing is known.
    """
    x, y = np.asarray(xs, float), np.asarray(ys, float)
    first, second = np.triu_indices(len(x), 1)
    run = x[second] - x[first]
    slopes = np.sort((y[second] - y[first])[run > 0] / run[run > 0])
    count = len(slopes)
    if len(x) < 3 or not count:
        return Trend(0.0, -np.inf, np.inf)
    n = len(x)
    spread = Z * np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low, high = int((count - spread) / 2), int(np.ceil((count + spread) / 2))
    if low < 0 or high >= count:
        return Trend(float(np.median(slopes)), -np.inf, np.inf)
    return Trend(float(np.median(slopes)), float(slopes[low]), float(slopes[high]))
