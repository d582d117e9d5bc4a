"""What a hook may return beside a plain value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Each:
    """From `preprocess`: many samples of one request, batched across requests and gathered again in order.

    `postprocess` then gets the list of results, one for each sample; an empty `Each` skips `process`.
    """

    __slots__ = ("samples",)

    def __init__(self, samples: Iterable[Any]) -> None:
        self.samples = list(samples)

    def __repr__(self) -> str:
        return f"Each({len(self.samples)} samples)"


class Rows:
    """From `preprocess`: one request that is a batch by itself, an array `[rows, ...]`, or a tuple of such.

    It counts as that many samples, is cut where it is larger than `batch_size`, and gathered again: `process` gets
    its rows among those of others, laid together by the Op's `collate`, and `postprocess` an array or a list
    with all of them. One without rows skips `process`: its result is an empty list.

    :raises ValueError: the arrays of a tuple differ in rows.
    """

    __slots__ = ("_count", "rows")

    def __init__(self, rows: Any) -> None:
        counts = {len(part) for part in rows} if isinstance(rows, tuple) else {len(rows)}
        if len(counts) != 1:
            raise ValueError(f"Rows of arrays with {sorted(counts)} rows: expected equal numbers")
        (self._count,) = counts
        self.rows = rows

    def cut(self, place: slice) -> Any:
        """Some of the rows."""
        return tuple([part[place] for part in self.rows]) if isinstance(self.rows, tuple) else self.rows[place]

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"Rows({self._count} rows)"


class Skip:
    """From `preprocess`: skip `process`; `value` takes the place of its result."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Skip({self.value!r})"


class Reply:
    """From any hook: end the request early with this answer, whatever other Ops are doing for it."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Reply({self.value!r})"


OUTCOMES = frozenset({Each, Rows, Skip, Reply})


def settled(value: Any) -> Any:
    """The result of an Op without `process`, of which this is what `preprocess` returned."""
    kind = type(value)
    if kind is Skip:
        return value.value
    if kind is Each:
        return value.samples
    return value.rows if kind is Rows else value
