"""Small graphs over tensors, for clients of the Open Inference Protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from asyncline import Graph, Op, Request, Tensor, op


@op(cpu="inline")
def twice(x: Any) -> Any:
    return 2 * x


class Nap(Op):
    """Answers after as many seconds as the first number says."""

    concurrency = 1000

    async def preprocess(self, x: Any) -> Any:
        await asyncio.sleep(float(x[0]))
        return x


class Count(Op):
    """Answers in as many parts as the number says."""

    async def preprocess(self, n: Any) -> AsyncIterator[Any]:
        for i in range(int(n[0])):
            yield n * 0 + i


class Flood(Op):
    """Parts of a megabyte without end."""

    async def preprocess(self, n: Any) -> AsyncIterator[Any]:
        while True:
            yield n.repeat(250_000)


graph = Graph("pair", y=twice(Request(x=Tensor("FP32", [-1, 4])).x))
nap = Graph("nap", y=Nap(Request(x=Tensor("FP32", [1])).x))
count = Graph("count", i=Count(Request(n=Tensor("INT32", [1])).n))
flood = Graph("flood", i=Flood(Request(n=Tensor("INT32", [1])).n))
