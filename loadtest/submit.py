"""Engine.submit in process: the CPU time of one request, and of one more Op on its way."""

import asyncio
import time

import uvloop

from asyncline import Engine, Graph, Request
from loadtest.echo_graph import echo
from loadtest.pairs import Spread, interleave
from loadtest.report import Budget, Report, Row

CALLERS = 16
REQUESTS_EACH = 2000
MIN_PAIRS = 5
LONG = 5
"""Ops of the longer chain."""
PAYLOAD = {"text": "hello pipeline"}


def chain(length: int) -> Graph:
    """`length` inline Ops, one after the other."""
    value = echo(Request(), name="echo_1")
    for place in range(2, length + 1):
        value = echo(value, name=f"echo_{place}")
    return Graph(f"chain_{length}", value)


async def cpu_us(graph: Graph) -> float:
    """CPU time of one request of `graph` in this process, all its threads, in µs."""
    async with Engine(graph) as engine:

        async def caller(count: int) -> None:
            for _ in range(count):
                await engine.submit(PAYLOAD)

        async def callers(count: int) -> None:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(CALLERS):
                    tasks.create_task(caller(count))

        await callers(REQUESTS_EACH // 10)  # the first ones fill caches
        before = time.process_time()
        await callers(REQUESTS_EACH)
        return (time.process_time() - before) / (CALLERS * REQUESTS_EACH) * 1e6


def measure(pairs: int) -> Report:
    """At least MIN_PAIRS pairs of a short and a long chain."""
    short, long = chain(1), chain(LONG)
    turns = interleave(max(pairs, MIN_PAIRS), lambda: uvloop.run(cpu_us(short)), lambda: uvloop.run(cpu_us(long)))
    one = Spread.of(a for a, _ in turns)
    more = Spread.of((b - a) / (LONG - 1) for a, b in turns)
    return Report(
        [
            Row(f"Engine.submit, one inline Op, {CALLERS} callers", "µs CPU", one, budget=Budget("≤", 15, "µs")),
            Row("one more inline Op in the chain", "µs CPU", more, budget=Budget("≤", 5, "µs")),
        ],
        [f"Engine.submit: {len(turns)} runs of {CALLERS * REQUESTS_EACH:,} requests; chains of 1 and {LONG} Ops."],
    )
