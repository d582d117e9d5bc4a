"""Rows: the arithmetic of samples that are batches themselves."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, pairwise


def split(rows: int, most: int) -> list[slice]:
    """Where to cut a sample of so many rows: full pieces first, so that only the last one shares a batch.

    :raises ValueError: `most` is below 1.
    """
    if most < 1:
        raise ValueError(f"pieces of {most} rows: expected 1 or more")
    return [slice(start, min(start + most, rows)) for start in range(0, rows, most)]


def spans(rows: Iterable[int]) -> list[slice]:
    """Where the rows of each sample lie in a batch, given how many rows each has."""
    return [slice(start, stop) for start, stop in pairwise(accumulate(rows, initial=0))]
