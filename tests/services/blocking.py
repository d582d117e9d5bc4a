"""Hooks that keep the event loop: one sleeps, and one calls C code that keeps the interpreter too."""

from __future__ import annotations

import asyncio
import re
import time

from asyncline import Graph, Op, Request, Text, op


@op(cpu="inline")
def sleep(by: str) -> str:
    if by == "sleep":
        time.sleep(0.5)
    return by


class Match(Op):
    async def preprocess(self, by: str) -> str:
        await asyncio.sleep(0)
        if by == "match":
            re.match("(a+)+b", "a" * 24)  # half a second
        return by


graph = Graph("blocking", Match(sleep(Request(by=Text()).by)))
