"""Clients in process, and the rate at which they are answered."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import numpy as np

from loadtest.report import BenchmarkFailed

Submit = Callable[[Any], Awaitable[Any]]


async def keep_busy(submit: Submit, values: Sequence[Any], clients: int, seconds: float) -> list[float]:
    """For so long `clients` have a request in flight each; when they were answered, ascending."""
    answered_at: list[float] = []
    until = time.perf_counter() + seconds

    async def client(turn: int) -> None:
        while time.perf_counter() < until:
            await submit(values[turn % len(values)])
            answered_at.append(time.perf_counter())
            turn += 1

    async with asyncio.TaskGroup() as tasks:
        for place in range(clients):
            tasks.create_task(client(place))
    return answered_at


def steady_per_s(answered_at: Iterable[float]) -> float:
    """Answers a second: the slope of their count over time.

    Their number over the seconds would be off by up to a batch at either end, which in a turn of a second is more
    than what is looked for.

    :raises BenchmarkFailed: there are too few.
    """
    times = np.sort(np.fromiter(answered_at, float))
    if len(times) < 2 or times[0] == times[-1]:
        raise BenchmarkFailed(f"{len(times)} answers in a turn are too few to tell a rate")
    return float(np.polyfit(times - times[0], np.arange(len(times)), 1)[0])
