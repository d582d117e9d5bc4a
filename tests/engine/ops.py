"""Small Ops that engine tests wire in many ways."""

from __future__ import annotations

import asyncio
from typing import Any

from asyncline import Each, Graph, Op, Request, op
from asyncline.graph.request import Input


@op(cpu="inline")
def double(x: int) -> int:
    return 2 * x


@op(cpu="inline")
def add(a: int, b: int) -> int:
    return a + b


class Square(Op):
    """A batch of numbers, squared; one below zero fails."""

    cpu = "inline"

    def process(self, batch: list[int]) -> list[Any]:
        return [n * n if n >= 0 else ValueError(f"{n} is negative") for n in batch]


class Split(Op):
    """Squares of all numbers of a list, each a sample."""

    cpu = "inline"

    def preprocess(self, numbers: list[int]) -> Each:
        return Each(numbers)

    def process(self, batch: list[int]) -> list[int]:
        return [n * n for n in batch]

    def postprocess(self, squares: list[int], numbers: list[int]) -> list[int]:
        return squares


class Slow(Op):
    """In the simulated pool."""

    def preprocess(self, x: Any) -> Any:
        return x

    def postprocess(self, result: Any, x: Any) -> Any:
        return result


class Forever(Op):
    """An async hook that waits until it is cancelled."""

    def __init__(self, *inputs: Input, **settings: Any) -> None:
        super().__init__(*inputs, **settings)
        self.entered: list[int] = []
        self.cancelled = 0

    async def preprocess(self, x: int) -> int:
        self.entered.append(x)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return x


def graph_of(kind: type[Op], **settings: Any) -> Graph:
    """A graph of one Op over the whole payload."""
    return Graph("test", kind(Request(), **settings))
