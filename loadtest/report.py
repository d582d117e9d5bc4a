"""What a benchmark found, and the table of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from loadtest.pairs import Spread, number

COLUMNS = ("what", "ours", "baseline", "ratio (median of pairs, p10..p90)", "budget", "holds")


class BenchmarkFailed(Exception):
    """What was measured is not what it was taken for: a text differs, a request failed, a server did not start."""


@dataclass(frozen=True)
class Budget:
    """A bound for a median."""

    sign: str
    """`≥` or `≤`"""
    limit: float
    unit: str = ""

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.sign == "≥" else value <= self.limit

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:g} {self.unit}".rstrip()


@dataclass(frozen=True)
class Row:
    """One line of the table. The budget is of the ratio, or of `ours` where there is no baseline."""

    what: str
    unit: str = ""
    ours: Spread | None = None
    baseline: Spread | None = None
    ratio: Spread | None = None
    budget: Budget | None = None
    not_measured: str = ""
    """Why there are no numbers."""

    @classmethod
    def compared(
        cls, what: str, unit: str, of: str, turns: Iterable[tuple[Any, Any]], budget: Budget | None = None
    ) -> "Row":
        """Of turns of ours and a baseline.

        :param of: the attribute of both that is compared.
        """
        ours, theirs = zip(*((getattr(a, of), getattr(b, of)) for a, b in turns), strict=True)
        ratio = Spread.of(a / b for a, b in zip(ours, theirs, strict=True))
        return cls(what, unit, Spread.of(ours), Spread.of(theirs), ratio, budget)

    @property
    def holds(self) -> bool | None:
        """None where there is nothing to hold, or nothing was measured."""
        judged = self.ratio or self.ours
        if self.budget is None or judged is None:
            return None
        return self.budget.holds(judged.median)

    @property
    def verdict(self) -> str:
        if self.not_measured:
            return f"**{self.not_measured}**"
        return {True: "yes", False: "**NO**", None: "–"}[self.holds]

    def cells(self) -> tuple[str, ...]:
        ours, baseline = (
            "–" if value is None else f"{number(value.median)} {self.unit}" for value in (self.ours, self.baseline)
        )
        if self.ours is not None and self.ratio is None:
            ours = f"{self.ours} {self.unit}"
        return self.what, ours, baseline, str(self.ratio or "–"), str(self.budget or "–"), self.verdict


@dataclass
class Report:
    """Rows of the table, and remarks to print below it."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
