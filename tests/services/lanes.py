"""An app with a hook for every lane, and one that no worker can make."""

from __future__ import annotations

import hashlib
from typing import Any

from asyncline import Graph, Json, Op, Request, op


@op(cpu="process")
async def begin(number: int) -> int:
    return number


@op(cpu="process")
def trivial(number: int) -> int:
    return number + 1


@op(cpu="process")
def native(number: int) -> str:
    return hashlib.sha256(bytes(4_000_000)).hexdigest()


class Python(Op):
    cpu = "thread"

    def load_model(self, device: str) -> int:
        return 2

    def example(self) -> int:
        return 7

    def preprocess(self, number: int) -> int:
        return sum(n * n for n in range(10_000 + number))

    def process(self, batch: list[int]) -> list[int]:
        return [self.model * number for number in batch]

    def postprocess(self, result: int, number: int) -> int:
        return result - number


@op(cpu="inline")
def leave(number: int) -> int:
    raise SystemExit(3)


def _hidden() -> Any:
    class Hidden(Op):
        def preprocess(self, number: int) -> int:
            return sum(n * n for n in range(10_000))

    return Hidden


_number = begin(Request(number=Json(int)).number)
graph = Graph("lanes", trivial=trivial(_number), native=native(_number), python=Python(_number), leave=leave(_number))
hidden = Graph("hidden", _hidden()(Request()))
