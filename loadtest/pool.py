"""The CPU pool: handing a task to a process and taking its result back, against the standard library's way.

Both have one worker process and CALLERS tasks under way, each followed by the next; the task copies what it
gets. Ours is the process lane itself, used as an Op's Runner uses it: a call, and a callback with the result.
Stock is `await loop.run_in_executor(pool, ...)`; of its time, the coroutine and the future take some 3 µs.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import uvloop

from asyncline import Engine, Graph, Request, WorkerCrashed
from asyncline.engine.item import Item
from asyncline.engine.lanes.base import Job
from asyncline.engine.visit import Visit
from asyncline.settings import Settings, Source, merge
from loadtest.pairs import Spread
from loadtest.pool_ops import Mortal, Same, same
from loadtest.report import BenchmarkFailed, Budget, Report, Row

CALLERS = 8
STARTS = 5
"""How often both pools are started: one worker differs from the next by a tenth."""
MIN_PAIRS = 30
"""Of all STARTS, for a minute: for seconds at a time two busy cores of this machine take half as long again."""
KILLS = 5

PAYLOADS: tuple[tuple[str, Any, int, int, float], ...] = (
    ("a no-op", 1, 4000, 1000, 5),
    ("150 kB in and out", np.zeros(150_000, np.uint8), 2000, 400, 5),
    ("a 1080p frame in and out", np.zeros((1080, 1920, 3), np.uint8), 200, 24, 30),
)
"""What goes, how often through ours and through stock in each turn, and the budget of the ratio."""


def _one_worker(graph: Graph) -> Settings:
    code = {op.name: op.code_settings for op in graph.ops}
    return merge(graph.name, code, Source("benchmark", {"dag": {"cpu_workers": 1}}))


@dataclass(frozen=True)
class Cost:
    """Of one task, in µs."""

    wall: float
    cpu: float
    """Of this process, all its threads."""


async def _cost(start: Callable[[int], Awaitable[None]], count: int) -> Cost:
    began, cpu = time.perf_counter(), time.process_time()
    await start(count)
    return Cost((time.perf_counter() - began) / count * 1e6, (time.process_time() - cpu) / count * 1e6)


async def _through_lane(engine: Engine, value: Any, count: int) -> None:
    lane, node = engine.works.lanes["process"], engine.plan.nodes[0]
    loop = asyncio.get_running_loop()
    item = Item(engine, 0, "", None, loop.time(), loop.time() + 3600)
    visit = Visit(item, (value,), item.expires_at, None)
    ended = loop.create_future()
    to_start, to_end = count, count

    def start() -> None:
        nonlocal to_start
        if to_start:
            to_start -= 1
            lane.submit(Job(lane, node, "preprocess", visit, (value,), done))

    def done(job: Job) -> None:
        nonlocal to_end
        to_end -= 1
        if job.error is not None:
            ended.set_exception(BenchmarkFailed(str(job.error)))
        elif not to_end:
            ended.set_result(None)
        start()

    for _ in range(CALLERS):
        start()
    await ended


async def _through_stock(pool: ProcessPoolExecutor, value: Any, count: int) -> None:
    loop = asyncio.get_running_loop()
    to_start = iter(range(count))

    async def caller() -> None:
        for _ in to_start:
            await loop.run_in_executor(pool, same, value)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CALLERS):
            tasks.create_task(caller())


async def _turns(pairs: int) -> list[list[tuple[Cost, Cost]]]:
    """Of each of PAYLOADS `pairs` pairs (ours, stock), with new pools."""
    graph = Graph("pool", Same(Request()))
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("forkserver"))
    found = []
    try:
        async with Engine(graph, _one_worker(graph)) as engine:
            for _, value, count, stock_count, _ in PAYLOADS:
                ours_of, stock_of = partial(_through_lane, engine, value), partial(_through_stock, pool, value)
                await ours_of(count // 4)  # until what is expected of the task is known
                await stock_of(CALLERS)
                found.append([(await _cost(ours_of, count), await _cost(stock_of, stock_count)) for _ in range(pairs)])
    finally:
        pool.shutdown()
    return found


def _compare(pairs: int) -> Report:
    report = Report()
    starts = [uvloop.run(_turns(-(-pairs // STARTS))) for _ in range(STARTS)]
    for (what, _, _, _, budget), *of_starts in zip(PAYLOADS, *starts, strict=True):
        turns = list(chain.from_iterable(of_starts))
        ours = Spread.of(1e6 / lane.wall for lane, _ in turns)
        theirs = Spread.of(1e6 / stock.wall for _, stock in turns)
        ratio = Spread.of(stock.wall / lane.wall for lane, stock in turns)
        report.rows.append(
            Row(f"CPU pool, {what}; `ProcessPoolExecutor`", "/s", ours, theirs, ratio, Budget("≥", budget))
        )
        if "150 kB" in what:
            cpu = Spread.of(lane.cpu for lane, _ in turns)
            report.rows.append(Row(f"CPU pool, {what}, the server's CPU", "µs", cpu, budget=Budget("≤", 25, "µs")))
    report.notes.append(
        f"CPU pool: one worker process, started {STARTS} times, {CALLERS} tasks under way; baseline: `run_in_executor`."
    )
    return report


async def _kill() -> Report:
    """A worker that dies: how long until its request has the error, and until the next one has its answer."""
    graph = Graph("killed", Mortal(Request()))
    errors, answers = [], []
    for _ in range(KILLS):  # a new Engine each: a pool whose worker dies again and again waits
        async with Engine(graph, _one_worker(graph)) as engine:
            await engine.submit("live")
            began = time.perf_counter()
            try:
                await engine.submit("die")
                raise BenchmarkFailed("the request that killed its worker was answered")
            except WorkerCrashed:
                errors.append((time.perf_counter() - began) * 1e3)
            await engine.submit("live")
            answers.append((time.perf_counter() - began) * 1e3)
    return Report(
        [
            Row("worker killed, to the error", "ms", Spread.of(errors), budget=Budget("≤", 100, "ms")),
            Row("worker killed, to an answer of the new one", "ms", Spread.of(answers), budget=Budget("≤", 2000, "ms")),
        ]
    )


def measure(pairs: int) -> Report:
    """At least MIN_PAIRS pairs of each size, and KILLS killed workers."""
    report = _compare(max(pairs, MIN_PAIRS))
    killed = uvloop.run(_kill())
    return Report(report.rows + killed.rows, report.notes)
