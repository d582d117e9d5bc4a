"""Measuring in turns, and what is said of the results."""

import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

_T = TypeVar("_T")


@dataclass(frozen=True)
class Spread:
    """A measurement that was repeated."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        p10, median, p90 = np.percentile(list(values), [10, 50, 90])
        return cls(float(median), float(p10), float(p90))

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.p10)}..{number(self.p90)})"


def interleave(count: int, *measures: Callable[[], _T]) -> list[tuple[_T, ...]]:
    """Take `measures` in turns, A B A B ..., `count` times; a tuple for each turn."""
    return [tuple(measure() for measure in measures) for _ in range(count)]


def number(value: float) -> str:
    """Three digits that matter: 23,360, 1.31, 0.052."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3}f}"


def machine() -> str:
    """The machine and how busy it is before the measuring starts."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    load = ", ".join(f"{average:.2f}" for average in os.getloadavg())
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, Python {platform.python_version()}; load average before: {load}"
