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
    """From `preprocess`: one request that is a batch by itself, an array or a list `[rows, ...]`.

    It counts as that many samples, is cut where it is larger than `batch_size`, and gathered again:
    `postprocess` gets an array or a list with all rows. `process` gets each piece as one sample, or, where the Op
    has a `collate`, its rows among those of others. One without rows skips `process`: its result is an empty list.
    """

    __slots__ = ("rows",)

    def __init__(self, rows: Any) -> None:
        len(rows)  # fails here for what has none
        self.rows = rows

    def __repr__(self) -> str:
        return f"Rows({len(self.rows)} rows)"


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
