"""Splitter: finds the bad samples of a batch that raised, by halving it.

    a batch of n raises          n = 1: it is bad. Else its halves run, then the halves of a half that raised, ...
    one bad sample               2 ceil(log2 n) extra runs, and n - 1 right answers; so many for each bad one
    both halves raise            for two batches running: the fault is not in the samples. All fail at once, also
                                 those of later batches, until a batch succeeds
    too much of it               extra runs are paid with SHARE of the device's time. Without credit nothing is
                                 split; once it has begun, a bad sample is found on credit, further ones are not

A half runs only with those of its samples that still wait for an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

SHARE = 0.1
"""Part of the device's time that extra runs may take."""
BURST_S = 0.02
"""Most device time that is saved up; the credit at the start. Once begun, a search is paid for on credit, so that more
only makes more of them run at once, while all others wait: of a GPU's batches of 1 ms, with one sample in a hundred
bad and a load of 0.95, 58 % of the good ones are answered within 30 ms, and 11 % with 0.1 s saved up."""
SYSTEMIC = 2
"""Batches running of which both halves raised that show a fault outside the samples."""


class Mortal(Protocol):
    @property
    def dead(self) -> bool: ...


S = TypeVar("S", bound=Mortal)

Failed = tuple[Sequence[S], BaseException]
"""Samples that fail, and why."""


class Verdict(NamedTuple, Generic[S]):
    """What follows from a run."""

    reruns: list[list[S]]
    """Each is to run as a batch of its own, under the same Isolation."""
    isolation: Isolation[S] | None
    failed: list[Failed[S]]


class Isolation(Generic[S]):
    """The search for the bad samples of one batch."""

    __slots__ = ("both", "found", "pending", "runs", "runs_each", "splits", "suspects")

    def __init__(self, samples: Sequence[S], error: BaseException) -> None:
        #: Parts known to hold a bad sample, the next one to split last.
        self.suspects: list[Failed[S]] = [(samples, error)]
        self.runs_each = 2 * (len(samples) - 1).bit_length()
        self.runs = 0
        self.splits = 0
        self.found = 0
        #: Halves that are out.
        self.pending = 0
        #: Halves of the first split that raised.
        self.both = 0

    def __repr__(self) -> str:
        return f"<Isolation {self.runs} runs, {self.found} found, {len(self.suspects)} suspects>"


class Splitter(Generic[S]):
    """Splits the batches of one Op that raise."""

    def __init__(self, share: float = SHARE, burst_s: float = BURST_S) -> None:
        self._share = share
        self._burst_s = burst_s
        self._credit_s = burst_s
        self._systemic = 0

    def succeeded(self, seconds: float) -> None:
        """An ordinary batch took so many seconds of a device."""
        self._systemic = 0
        self._credit_s = min(self._burst_s, self._credit_s + self._share * seconds)

    def raised(self, samples: Sequence[S], error: BaseException) -> Verdict[S]:
        """An ordinary batch raised."""
        if len(samples) == 1 or self._credit_s <= 0:
            return Verdict([], None, [(samples, error)])
        return self._go_on(Isolation(samples, error), [])

    def half_succeeded(self, isolation: Isolation[S], seconds: float) -> Verdict[S]:
        """A rerun is over and well, or had no sample left that waits for an answer."""
        return self._half_over(isolation, seconds, [])

    def half_raised(
        self, isolation: Isolation[S], samples: Sequence[S], error: BaseException, seconds: float
    ) -> Verdict[S]:
        """A rerun raised."""
        isolation.both += isolation.splits == 1
        failed: list[Failed[S]] = []
        if len(samples) == 1:
            isolation.found += 1
            failed.append((samples, error))
        else:
            isolation.suspects.append((samples, error))
        return self._half_over(isolation, seconds, failed)

    def _half_over(self, isolation: Isolation[S], seconds: float, failed: list[Failed[S]]) -> Verdict[S]:
        self._credit_s -= seconds
        isolation.pending -= 1
        if isolation.pending:
            return Verdict([], isolation, failed)
        if isolation.splits == 1:
            self._systemic = self._systemic + 1 if isolation.both == 2 else 0
        return self._go_on(isolation, failed)

    def _go_on(self, isolation: Isolation[S], failed: list[Failed[S]]) -> Verdict[S]:
        while isolation.suspects:
            samples, error = isolation.suspects.pop()
            alive = [sample for sample in samples if not sample.dead]
            middle = len(alive) // 2
            halves = [half for half in (alive[:middle], alive[middle:]) if half]
            if halves and not self._may_run(isolation, len(halves)):
                failed.append((alive, error))
            elif halves:
                isolation.runs += len(halves)
                isolation.splits += 1
                isolation.pending = len(halves)
                return Verdict(halves, isolation, failed)
        return Verdict([], isolation, failed)

    def _may_run(self, isolation: Isolation[S], count: int) -> bool:
        if self._systemic >= SYSTEMIC or (isolation.found and self._credit_s <= 0):
            return False
        return isolation.runs + count <= isolation.runs_each * (1 + isolation.found)

    def __repr__(self) -> str:
        return f"<Splitter, credit {self._credit_s:.3f} s>"
