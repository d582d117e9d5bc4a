"""Canaries in a process of their own: a line of JSON on stdin for each run, and one on stdout.

A canary asks at a fixed rate, whatever the answers do. On a machine whose cores are all taken, by the server and by
who loads it, the canaries' process would wait for a core for longer than for its answers: it goes first where it may.
"""

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
import uvloop

from asyncline.client import AsyncClient

FLOATS = 16


@dataclass(frozen=True)
class Run:
    """What is to be done."""

    urls: dict[str, str]
    """Of each wire."""
    seconds: float
    per_s: float


@dataclass(frozen=True)
class Done:
    """What was done."""

    latencies_ms: dict[str, list[float]]
    realtime: bool
    """Whether this process went before all others that wanted a core."""


async def canary(url: str, seconds: float, per_s: float, late_s: float) -> list[float]:
    """:raises RequestError: a request failed."""
    loop = asyncio.get_running_loop()
    payload = {"x": np.arange(FLOATS, dtype=np.float32)}
    latencies = []

    async def ask(client: AsyncClient) -> None:
        asked_at = time.perf_counter()  # the loop's own clock and timers have milliseconds
        answer = await client("echo", payload, timeout=10)
        latencies.append((time.perf_counter() - asked_at) * 1e3)
        if not np.array_equal(answer["y"] if isinstance(answer, dict) else answer, payload["x"]):
            raise RuntimeError(f"{url} is no echo")

    async with AsyncClient(url, retries=0) as client:
        await ask(client)  # connects
        latencies.clear()
        began_at = loop.time() + late_s
        async with asyncio.TaskGroup() as tasks:
            for number in range(round(seconds * per_s)):
                due_at = began_at + number / per_s
                await asyncio.sleep(due_at - loop.time())
                tasks.create_task(ask(client))
    return latencies


def go_first() -> bool:
    """Whether it may."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:  # no right to it, or a machine that has no such thing
        return False
    return True


async def canaries(run: Run, realtime: bool) -> Done:
    """Not at the same moment: those of several wires take turns."""
    async with asyncio.TaskGroup() as tasks:
        asked = {
            wire: tasks.create_task(canary(url, run.seconds, run.per_s, place / len(run.urls) / run.per_s))
            for place, (wire, url) in enumerate(run.urls.items())
        }
    return Done({wire: task.result() for wire, task in asked.items()}, realtime)


def main() -> None:
    realtime = go_first()
    for line in sys.stdin:
        print(json.dumps(asdict(uvloop.run(canaries(Run(**json.loads(line)), realtime)))), flush=True)


if __name__ == "__main__":
    main()
