"""Returns: whether those whom a batch answers soon ask again, and how soon.

Clients that each wait for an answer before they ask again fall into groups: one is answered while another runs, and so
for good, though all of them together would take little longer than one group. So as long as nearly as many samples come
shortly after each batch as it had, those that wait may be left to run with them, where that is faster.

Requests that come whenever they like are not taken for such: hardly as many of them come in a part of the shortest run
as in a whole one. One client alone has nobody to wait for.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import ceil

from asyncline.engine.batching.cost import CostModel

MOST = 0.75
"""Longest time for those who return, in runs of one sample."""
MOST_S = 5e-3
"""And in seconds."""
LEAST_S = 1e-3
"""Nobody is waited for where it would be shorter: the timers of a loop have milliseconds."""
SHORTEST_S = LEAST_S / MOST
GAIN = 1.1
"""How much faster one run of two batches has to be, with the wait before it, than the two."""
SHARE = 7 / 8
"""Part of a batch that has to be back: one who is slow does not keep the others."""
SEEN = 16
"""Batches from which on something is believed."""
BELIEVED = 0.8
"""Part of them, of late, whose samples have to have been back in time."""
CAUTION = 2.0
"""How many deviations past the mean they are waited for."""
WEIGHT = 1 / 16
"""Of the last batch in that part: four that wait in vain end it."""


class Returns:
    """Of one replica. Times are in seconds.

    :param costs: how long its batches take.
    """

    def __init__(self, costs: CostModel) -> None:
        self._costs = costs
        self._batches = 0
        self._in_time = 0.0
        #: Whether they come back in time, of late.
        self.believed = False
        self._times = CostModel()
        self._answered_at = 0.0
        self._samples = 0
        self._most_s = 0.0
        #: How many are to come until the batch that was answered last is back.
        self.left = 0

    def answered(self, samples: int, bucket: Hashable, seconds: float, now: float) -> None:
        """A batch is over, which ran for so long."""
        if self.left:
            self._miss()
        if seconds < SHORTEST_S:
            return
        shortest_s, _ = self._costs.predict(bucket, 1)
        self._most_s = min(MOST * shortest_s, MOST_S) if shortest_s is not None else 0.0
        self.left = ceil(SHARE * samples) if self._most_s >= LEAST_S else 0
        self._samples = samples
        self._answered_at = now

    def came(self, now: float) -> None:
        """A sample has come, while some were `left`."""
        after_s = now - self._answered_at
        if after_s > self._most_s:
            self._miss()
            return
        self.left -= 1
        if not self.left:
            self._learn(after_s, True)

    def _miss(self) -> None:
        self.left = 0
        self._learn(2 * self._most_s, False)  # who knows when

    def _learn(self, after_s: float, in_time: bool) -> None:
        self._times.learn(None, self._samples, after_s)
        self._batches += 1
        self._in_time += max(WEIGHT, 1 / self._batches) * (in_time - self._in_time)
        self.believed = self._batches >= SEEN and self._in_time >= BELIEVED

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

    def gain(self, bucket: Hashable, waiting: int, more: int, most: int, wait_s: float) -> bool:
        """Whether those that wait had better run together with so many that come later, `most` at most, than alone."""
        sizes = (waiting, more, min(waiting + more, most))
        alone_s, others_s, together_s = (self._costs.predict(bucket, size)[0] for size in sizes)
        if alone_s is None or others_s is None or together_s is None:
            return False
        # What more of them take is told by trying.
        return not self._costs.knows_slope(bucket) or GAIN * (together_s + wait_s) <= alone_s + others_s

    def _predict(self, samples: int) -> tuple[float | None, float]:
        if not self.believed:
            return None, 0.0
        if not self._times.knows_slope(None):
            samples = self._samples  # as soon as those, until it is tried
        mean_s, deviation_s = self._times.predict(None, samples)
        return (None, 0.0) if mean_s is None or mean_s > self._most_s else (mean_s, deviation_s)

    def __repr__(self) -> str:
        return f"<Returns: {self._in_time:.0%} in time, {self.left} of {self._samples} to come>"
