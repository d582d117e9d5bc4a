"""Ops to wire: none of them ever runs here."""

from __future__ import annotations

from typing import Any

from asyncline import Op


class Copy(Op):
    def preprocess(self, value: Any) -> Any:
        return value


class Join(Op):
    def preprocess(self, left: Any, right: Any) -> Any:
        return left, right


class Model(Op):
    def process(self, batch: list[Any]) -> list[Any]:
        return batch


class Threshold(Op):
    """Has arguments of its own."""

    def __init__(self, *inputs: Any, least: float, labels: tuple[str, ...] = (), **settings: Any) -> None:
        super().__init__(*inputs, **settings)
        self.least = least
        self.labels = labels

    def preprocess(self, value: Any) -> Any:
        return value >= self.least


class Subtract(Op):
    """Takes its inputs by keyword."""

    def __init__(self, *, minuend: Any, subtrahend: Any) -> None:
        super().__init__(minuend, subtrahend)

    def preprocess(self, minuend: Any, subtrahend: Any) -> Any:
        return minuend - subtrahend
