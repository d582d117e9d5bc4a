"""How the samples of a batch are laid together for `process`, and its results taken apart again.

    class Embed(Op):
        collate = Pad(to=32)
        def process(self, tokens, lengths): ...     # [n, padded length], [n]

Without `collate`, `process` gets the list of samples. Where an Op has one, only samples that fit together
share a batch; what its own `bucket` says counts too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Collate(ABC):
    """Lays samples together. One that came from `Rows` has a leading dimension, the others get one."""

    arguments = 1
    """How many `process` gets."""

    @abstractmethod
    def bucket(self, sample: Any, *, is_rows: bool) -> Hashable:
        """What samples have to have in common to share a batch.

        :raises ValueError: it cannot be laid together with any.
        """

    @abstractmethod
    def join(self, samples: Sequence[Any], rows: Sequence[int | None]) -> tuple[Any, ...]:
        """The arguments of `process`.

        :param rows: how many each sample has; None for a lone one.
        """


class Stack(Collate):
    """Arrays of equal shape and dtype become one, `[rows, ...]`."""

    def bucket(self, sample: Any, *, is_rows: bool) -> Hashable:
        array = _array(sample)
        return (array.shape[1:] if is_rows else array.shape), array.dtype

    def join(self, samples: Sequence[Any], rows: Sequence[int | None]) -> tuple[Any, ...]:
        if len(samples) == 1:  # not copied
            return (_array(samples[0]) if rows[0] is not None else _array(samples[0])[None],)
        if all(count is None for count in rows):
            return (np.stack(samples),)
        pairs = zip(samples, rows, strict=True)
        return (np.concatenate([array[None] if count is None else array for array, count in pairs]),)


class Pad(Collate):
    """Arrays that differ in length along one axis become one: shorter ones are filled up.

    `process` gets the array, `[rows, ...]`, and the true lengths, int64 `[rows]`.

    :param to: lengths are rounded up to a multiple of it; samples of one rounded length share a batch.
    :param axis: of a sample that has no leading dimension of rows.
    :param value: what is filled in.
    """

    arguments = 2

    def __init__(self, to: int, *, axis: int = 0, value: Any = 0) -> None:
        if to < 1 or axis < 0:
            raise ValueError(f"Pad(to={to}, axis={axis}): expected `to` of 1 or more and an axis of 0 or more")
        self.to = to
        self.axis = axis
        self.value = value

    def bucket(self, sample: Any, *, is_rows: bool) -> tuple[tuple[int, ...], np.dtype[Any]]:
        array = _array(sample)
        shape = list(array.shape[1:] if is_rows else array.shape)
        if len(shape) <= self.axis:
            raise ValueError(f"a sample of shape {shape} has no axis {self.axis} to pad")
        shape[self.axis] = -(-max(1, shape[self.axis]) // self.to) * self.to
        return tuple(shape), array.dtype

    def join(self, samples: Sequence[Any], rows: Sequence[int | None]) -> tuple[Any, ...]:
        shape, dtype = self.bucket(samples[0], is_rows=rows[0] is not None)
        counts = [1 if count is None else count for count in rows]
        padded = np.full((sum(counts), *shape), self.value, dtype)
        lengths = np.empty(len(padded), np.int64)
        place: list[slice] = [slice(None)] * padded.ndim
        for sample, start, count in zip(samples, accumulate(counts, initial=0), counts, strict=False):
            length = sample.shape[self.axis + sample.ndim - len(shape)]
            place[0], place[self.axis + 1] = slice(start, start + count), slice(length)
            padded[tuple(place)] = sample
            lengths[start : start + count] = length
        return padded, lengths


def take_apart(results: Any, rows: Sequence[int | None]) -> list[Any]:
    """What `process` returned for a joined batch, one result for each sample: a row, or as many as the sample has.

    :param results: an array `[rows, ...]` or a list with an element for each row; or several outputs, a tuple or
        a mapping of such.
    :raises ValueError: it is none of these, or has another number of rows.
    """
    if isinstance(results, tuple) and results:
        return list(zip(*(take_apart(output, rows) for output in results), strict=True))
    if isinstance(results, dict) and results:
        columns = [take_apart(output, rows) for output in results.values()]
        return [dict(zip(results, values, strict=True)) for values in zip(*columns, strict=True)]
    counts = [1 if count is None else count for count in rows]
    if not isinstance(results, np.ndarray | list) or (isinstance(results, np.ndarray) and not results.ndim):
        raise ValueError(f"expected {sum(counts)} rows, got {type(results).__name__}")
    if len(results) != sum(counts):
        raise ValueError(f"expected {sum(counts)} rows, got {len(results)}")
    starts = accumulate(counts, initial=0)
    return [
        results[start] if count is None else results[start : start + count]
        for start, count in zip(starts, rows, strict=False)
    ]


def gather(results: Sequence[Any], rows: Sequence[int]) -> Any:
    """The results of the pieces of one `Rows` as that of the whole: an array, a list, or a tuple or mapping of such.

    :raises ValueError: one has another number of rows than its piece.
    """
    first = results[0]
    if isinstance(first, tuple) and first:
        return tuple(gather(pieces, rows) for pieces in zip(*results, strict=True))
    if isinstance(first, dict) and first:
        return {name: gather([result[name] for result in results], rows) for name in first}
    for result, count in zip(results, rows, strict=True):
        if not isinstance(result, np.ndarray | list) or (isinstance(result, np.ndarray) and not result.ndim):
            raise ValueError(f"expected {count} rows, got {type(result).__name__}")
        if len(result) != count:
            raise ValueError(f"expected {count} rows, got {len(result)}")
    if len(results) == 1:
        return first
    if isinstance(first, np.ndarray):
        return np.concatenate(results)
    return [row for result in results for row in result]


def _array(sample: Any) -> Array:
    if not isinstance(sample, np.ndarray):
        raise ValueError(f"expected a sample that is an array, got {type(sample).__name__}")
    return sample
