"""CostModel: how long a batch takes, learned from those that ran.

A line for each bucket, s(x) = tau0 + alpha x, where x is the size of a batch: its rows, or its cost where the
Op says one. It is fitted with weights that fade over the last WINDOW runs. What could lead it astray:

    the first run of a bucket        compiles, tunes and pages in: it is not learned
    an outlier                       is cut to OUTLIER deviations before it is learned
    a device that changed for good   outliers on one side, RESTART of them running: the line begins anew
    runs of one size only            say nothing of the slope: the last one known is kept
    sizes never seen                 the lower bound believes no more than tau0 >= 0 and alpha >= 0
"""

from __future__ import annotations

from collections.abc import Hashable

WINDOW = 16
"""Over how many runs the weights fade."""
LEARNED = 3
"""Runs from which on a line is believed."""
OUTLIER = 4.0
"""How many deviations, and a tenth of what was expected on top, a run is believed to be off."""
RESTART = 5
"""Outliers running, all on one side, that are none."""
CAUTION = 3.0
"""How many deviations `high` and `low` are off the line."""
SPREAD = 0.05
"""Relative spread of sizes from which on they tell the slope."""
MOST_BUCKETS = 1024
"""Buckets remembered. The first learned is the first forgotten: keys are the user's and may never come again."""


class CostModel:
    """Seconds that a device takes for a batch, by bucket and size."""

    def __init__(self) -> None:
        #: None for a bucket that has run once.
        self._lines: dict[Hashable, _Line | None] = {}
        #: Those of them that are believed.
        self._known: dict[Hashable, _Line] = {}

    def learn(self, bucket: Hashable, size: float, seconds: float) -> None:
        """A batch of that size took so long."""
        if bucket not in self._lines:
            if len(self._lines) >= MOST_BUCKETS:
                oldest = next(iter(self._lines))
                del self._lines[oldest]
                self._known.pop(oldest, None)
            self._lines[bucket] = None
            return
        line = self._lines[bucket]
        if line is None or not line.learn(size, seconds):
            self._lines[bucket] = _Line(size, seconds)
            self._known.pop(bucket, None)
        elif line.runs == LEARNED:
            self._known[bucket] = line

    def predict(self, bucket: Hashable, size: float) -> tuple[float | None, float]:
        """The expected seconds, and how far runs are off on average; None and 0 where too little is known."""
        line = self._known.get(bucket)
        return (None, 0.0) if line is None else (line.at(size), line.deviation)

    def knows_slope(self, bucket: Hashable) -> bool:
        """Whether runs of different sizes have told what one size more takes; else `predict` takes tau0 for 0."""
        line = self._known.get(bucket)
        return line is not None and line.slope is not None

    def high(self, bucket: Hashable, size: float) -> float:
        """Seconds that it will hardly take; 0 where too little is known."""
        line = self._known.get(bucket)
        return 0.0 if line is None else line.at(size) + CAUTION * line.deviation

    def low(self, bucket: Hashable, size: float) -> float:
        """Seconds that it takes at the very least; 0 where too little is known."""
        line = self._known.get(bucket)
        return 0.0 if line is None else line.least(size)

    def __repr__(self) -> str:
        return f"<CostModel of {len(self._lines)} buckets>"


class _Line:
    """s(x) of one bucket, kept as fading means, variance and covariance."""

    __slots__ = (
        "covariance", "deviation", "mean_seconds", "mean_size", "outliers", "runs", "side", "slope",
        "smallest", "smallest_seconds", "variance",
    )  # fmt: skip

    def __init__(self, size: float, seconds: float) -> None:
        self.runs = 1
        self.mean_size = self.smallest = size
        #: `smallest_seconds`: what runs of the smallest size took.
        self.mean_seconds = self.smallest_seconds = seconds
        self.variance = self.covariance = 0.0
        self.slope: float | None = None
        self.deviation = 0.0
        self.outliers = 0
        self.side = 0

    def learn(self, size: float, seconds: float) -> bool:
        """Take in a run; False if those of late show that nothing learned before holds."""
        expected = self.at(size)
        off = seconds - expected
        if self.runs >= LEARNED:
            most = OUTLIER * self.deviation + expected / 10
            if abs(off) > most:
                side = 1 if off > 0 else -1
                self.outliers = self.outliers + 1 if side == self.side else 1
                self.side = side
                if self.outliers == RESTART:
                    return False
                off = side * most
                seconds = expected + off
            else:
                self.outliers = 0
        self.runs += 1
        weight = 1 / min(self.runs, WINDOW)
        if self.slope is not None or size == self.mean_size:  # else nobody could have expected anything
            self.deviation += weight * (abs(off) - self.deviation)
        wider, longer = size - self.mean_size, seconds - self.mean_seconds
        self.mean_size += weight * wider
        self.mean_seconds += weight * longer
        self.variance = (1 - weight) * (self.variance + weight * wider * wider)
        self.covariance = (1 - weight) * (self.covariance + weight * wider * longer)
        if self.variance > (SPREAD * self.mean_size) ** 2:
            self.slope = self.covariance / self.variance
        if size < self.smallest:
            self.smallest, self.smallest_seconds = size, seconds
        elif size == self.smallest:
            self.smallest_seconds += weight * (seconds - self.smallest_seconds)
        return True

    def at(self, size: float) -> float:
        mean_seconds, mean_size, slope = self.mean_seconds, self.mean_size, self.slope
        steepest = mean_seconds / mean_size if mean_size else 0.0  # that of tau0 = 0
        if slope is None:
            return steepest * size if size > mean_size else mean_seconds
        if slope > steepest:
            slope = steepest
        return mean_seconds + slope * (size - mean_size) if slope > 0 else mean_seconds

    def least(self, size: float) -> float:
        seconds = min(self.smallest_seconds, self.at(self.smallest)) - CAUTION * self.deviation
        if size < self.smallest:
            seconds *= size / self.smallest
        return seconds if seconds > 0 else 0.0

    def __repr__(self) -> str:
        return f"<_Line of {self.runs} runs>"
