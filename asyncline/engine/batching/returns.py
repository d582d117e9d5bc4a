"""Returns: whether those who are answered by a batch soon ask again, and how soon.

Clients that each wait for an answer before they ask again fall into groups: one is answered while another runs, and so
for good, though all of them together would take little longer than one group. As long as nearly as many samples come
shortly after each batch as it had, a batch may therefore wait for them. That says nothing of requests that come
whenever they like: of these, hardly as many come in half of the shortest run as in a whole one.
"""

from __future__ import annotations

from math import ceil

from asyncline.engine.batching.cost import CostModel

MOST = 0.75
"""Longest wait for those who return, in runs of one sample."""
MOST_S = 5e-3
LEAST_S = 1e-3
"""What is shorter than that, the timers of a loop cannot wait for."""
SHARE = 7 / 8
"""Part of a batch that has to be back: one who is slow does not keep the others."""
SEEN = 8
"""Batches from which on something is believed."""
BELIEVED = 0.75
"""Part of them, of late, whose samples were back in time."""
CAUTION = 2.0
"""How many deviations past the mean they are waited for."""
WEIGHT = 1 / 8
"""Of the last batch in that part: three that wait in vain end it."""


class Returns:
    """Of one replica. Times are in seconds."""

    def __init__(self) -> None:
        self._batches = 0
        self._in_time = 0.0
        self._times = CostModel()
        self._answered_at = 0.0
        self._samples = 0
        self._most_s = 0.0
        #: How many are to come until the batch that was answered last is back.
        self.left = 0

    def answered(self, samples: int, now: float, shortest_s: float | None) -> None:
        """A batch is over.

        :param shortest_s: what a run of one sample takes; None where too little is known.
        """
        if self.left:
            self._learn(False)
            self._times.learn(None, self._samples, 2 * self._most_s)
        self._most_s = min(MOST * shortest_s, MOST_S) if shortest_s is not None else 0.0
        self.left = _most_of(samples) if self._most_s >= LEAST_S else 0
        self._samples = samples
        self._answered_at = now

    def came(self, now: float) -> None:
        """A sample has come, while some were `left`."""
        after_s = now - self._answered_at
        if after_s > self._most_s:
            self.left = 0
            self._learn(False)
            self._times.learn(None, self._samples, 2 * self._most_s)
            return
        self.left -= 1
        if not self.left:
            self._learn(True)
            self._times.learn(None, self._samples, after_s)

    def _learn(self, in_time: bool) -> None:
        self._batches += 1
        self._in_time += max(WEIGHT, 1 / self._batches) * (in_time - self._in_time)

    def back_s(self, samples: int) -> float | None:
        """How soon after a batch of so many they are back; None where they are not, or not soon enough."""
        return self._predict(samples)[0]

    def until(self, now: float) -> float | None:
        """When nearly surely those of the last batch are back who are not yet; None where nobody is waited for."""
        if not self.left:
            return None
        mean_s, deviation_s = self._predict(self._samples)
        if mean_s is None:
            return None
        until = self._answered_at + min(mean_s + CAUTION * deviation_s, self._most_s)
        return until if now < until else None

    def _predict(self, samples: int) -> tuple[float | None, float]:
        if self._batches < SEEN or self._in_time < BELIEVED:
            return None, 0.0
        if not self._times.knows_slope(None):
            samples = self._samples  # as soon as those, until it is tried
        mean_s, deviation_s = self._times.predict(None, samples)
        return (None, 0.0) if mean_s is None or mean_s > self._most_s else (mean_s, deviation_s)

    def __repr__(self) -> str:
        return f"<Returns: {self._in_time:.0%} in time, {self.left} of {self._samples} to come>"


def _most_of(samples: int) -> int:
    return ceil(SHARE * samples)
