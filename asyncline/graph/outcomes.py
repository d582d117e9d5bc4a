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
