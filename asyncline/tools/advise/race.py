"""Race: what a second thread gains by a hook, told apart from what other processes take away. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from asyncline.tools.advise.policy import RELEASES

ROUNDS = 9
FAIR_ROUNDS = 5
"""Rounds after which a race is decided against the hook: so many, and so many of them fair."""
QUICK_ROUNDS = 5
"""Rounds after which it may be decided for the hook."""


class Span(NamedTuple):
    """Calls by one thread, or the same number by each of two at once: their seconds, and those of CPU."""

    seconds: float
    cpu_s: float


@dataclass
class Race:
    """Rounds of calls by one thread and by two, of the hook and of a control, which is known to release the GIL.

    Other processes make a round longer, never shorter, so the best of each kind counts. That two threads of the
    hook had a chance is shown by those of the control, which ran right after them.
    """

    one: list[Span] = field(default_factory=list)
    two: list[Span] = field(default_factory=list)
    control_one: list[Span] = field(default_factory=list)
    control_two: list[Span] = field(default_factory=list)

    def add(self, one: Span, two: Span, control_one: Span, control_two: Span) -> None:
        self.one.append(one)
        self.two.append(two)
        self.control_one.append(control_one)
        self.control_two.append(control_two)

    @property
    def speed_up(self) -> float:
        """Work of two threads over that of one: 1 to 2, or less where they hinder each other."""
        return 2 * min(self.one).seconds / min(self.two).seconds

    @property
    def cores(self) -> float:
        """Cores that one thread's calls fill."""
        best = min(self.one)
        return best.cpu_s / best.seconds

    @property
    def fair(self) -> int:
        """Rounds in which two threads of the control gained."""
        best = min(self.control_one).seconds
        return sum(2 * best / span.seconds > RELEASES for span in self.control_two)

    @property
    def is_over(self) -> bool:
        """Whether more rounds would tell no more."""
        if self.speed_up > RELEASES:
            return len(self.one) >= QUICK_ROUNDS and self.is_decided
        return len(self.one) >= ROUNDS and self.is_decided

    @property
    def is_decided(self) -> bool:
        """Whether `speed_up` is the hook's, and not that of a machine busy with other things."""
        return self.fair >= (1 if self.speed_up > RELEASES else min(len(self.one), FAIR_ROUNDS))
