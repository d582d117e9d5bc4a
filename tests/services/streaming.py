"""Answers that come in parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from asyncline import Graph, Json, Op, ProductError, Request


class Count(Op):
    """Numbers up to `n`, as a language model gives its tokens: one each `pause_ms`, padded to `nbytes`.

    How many there were, and how many streams have ended, an order with `ask` is told.
    """

    made = 0
    ended = 0

    async def preprocess(self, order: dict[str, Any]) -> AsyncIterator[Any]:
        if "ask" in order:
            yield {"made": self.made, "ended": self.ended}
            return
        try:
            for number in range(order["n"]):
                if number == order.get("fail_at"):
                    raise ProductError(7, "not this one")
                await asyncio.sleep(order.get("pause_ms", 0) / 1e3)
                self.made += 1
                yield {"n": number, "pad": "x" * order["nbytes"]} if "nbytes" in order else number
        finally:
            self.ended += 1


count = Graph("count", Count(Request(order=Json(dict[str, Any])).order))
