"""A graph with all that the dashboard draws: fan-out, edges that skip layers, a join, batches, a pool, errors."""

from __future__ import annotations

import time
from typing import Any

from asyncline import Graph, Json, Op, ProductError, Request, op


class Clean(Op):
    """Takes the <b>dust</b> off."""

    cpu = "process"

    def preprocess(self, n: int) -> int:
        time.sleep(0.002)
        return n


class Measure(Op):
    """Length and width of each part."""

    batch_size = 8

    def process(self, batch: list[int]) -> list[int]:
        time.sleep(0.01 + 0.001 * len(batch))
        return [2 * n for n in batch]


class Weigh(Op):
    """Weighs one part at a time."""

    cpu = "thread"

    def preprocess(self, n: int) -> int:
        time.sleep(0.001)
        return n

    def process(self, batch: list[int]) -> list[int]:
        time.sleep(0.005)
        return batch


@op(cpu="thread")
def paint(n: int) -> int:
    if n % 10 == 7:
        raise ProductError("no_paint", f"part {n}: <img src=x onerror=alert(1)> is out of paint")
    time.sleep(0.003)
    return n


@op(cpu="inline")
def assemble(a: int, b: int, c: int, n: int) -> dict[str, Any]:
    return {"sum": a + b + c, "n": n}


n = Request(n=Json(int)).n
part = Clean(n)
graph = Graph("workshop", assemble(Measure(part), Weigh(part, concurrency=2), paint(part), n))
