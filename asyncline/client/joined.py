"""How requests that are batches share a request to a remote model."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncline.client.signature import Sample
from asyncline.graph.collate import Collate
from asyncline.wire.oip.datatypes import Array


@dataclass(frozen=True)
class Joined:
    """Rows of several samples, one after the other."""

    columns: Sample
    """`[rows, ...]` of every input."""
    samples: int


class JoinedRows(Collate):
    """Samples of which each is a tuple of arrays, one for each input, or the array of the only one."""

    def bucket(self, sample: Array | Sample, *, is_rows: bool) -> Hashable:
        return tuple([array.shape[1:] if is_rows else array.shape for array in _columns(sample)])

    def join(self, samples: Sequence[Array | Sample], rows: Sequence[int | None]) -> tuple[Any, ...]:
        pairs = zip(samples, rows, strict=True)
        batches = [[a[None] if count is None else a for a in _columns(sample)] for sample, count in pairs]
        columns = zip(*batches, strict=True)
        joined = tuple([column[0] if len(column) == 1 else np.concatenate(column) for column in columns])
        return (Joined(joined, len(samples)),)


def _columns(sample: Array | Sample) -> Sample:
    return sample if isinstance(sample, tuple) else (sample,)
