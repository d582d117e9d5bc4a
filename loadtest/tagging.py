"""The tagging case in process: the graph against the same functions in a single Op, which runs them in order."""

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import uvloop

from asyncline import Engine, Graph
from asyncline.settings import Source, from_file, merge
from loadtest.child import ROOT
from loadtest.pairs import interleave, number
from loadtest.report import BenchmarkFailed, Report, Row
from loadtest.tagging_sequential import OneOp, OneProcess, OneThread, sequential
from ops.tagging import graph
from ops.tagging_pictures import picture

CLIENTS = 8
PHOTOS, SIDE = 8, 1200
"""Photos of 1.2 megapixels or so; SIDE is the longer one."""
MIN_PAIRS = 5
WARM_S = 0.5
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
REQUEST_S = 30.0
SCORE = 0.01
"""By how much scores of equal photos may differ: a model's sums depend on the size of its batch."""


@dataclass(frozen=True)
class Speed:
    """What one arrangement did in one turn."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cores: float
    """CPU seconds, of all processes, in a second."""
    cpu_ms: float
    """CPU time of one request."""
    others: float
    """Cores that were busy with other work on the machine: what the arrangement could not have."""


class Arrangement:
    """A way to run the case, in an Engine of its own, and CLIENTS clients with a photo in flight each."""

    def __init__(self, name: str, graph: Graph, source: Source, photos: Sequence[bytes]) -> None:
        self.name = name
        settings = merge(graph.name, {op.name: op.code_settings for op in graph.ops}, source)
        # Nothing watches the loop, which stands still while the others have their turns.
        self._engine = Engine(graph, settings, blocked_s=None)
        self._photos = photos

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._loop = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
            self._loop.run(self._engine.start())
            stack.callback(lambda: self._loop.run(self._engine.close()))
            self.answers = self._loop.run(self._answers())
            self.speed(WARM_S)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def speed(self, seconds: float) -> Speed:
        """Keep all clients busy for so long."""
        cpu_s, busy_s, started_at = _cpu_s(os.getpid()), _busy_s(), time.perf_counter()
        latencies_s = self._loop.run(self._load(started_at + seconds))
        elapsed_s = time.perf_counter() - started_at
        cpu_s, busy_s = _cpu_s(os.getpid()) - cpu_s, _busy_s() - busy_s
        p50_ms, p99_ms = 1e3 * np.percentile(latencies_s, [50, 99])
        return Speed(
            per_s=len(latencies_s) / elapsed_s,
            p50_ms=float(p50_ms),
            p99_ms=float(p99_ms),
            cores=cpu_s / elapsed_s,
            cpu_ms=1e3 * cpu_s / len(latencies_s),
            others=max(0.0, busy_s - cpu_s) / elapsed_s,
        )

    async def _answers(self) -> list[dict[str, Any]]:
        return [await self._engine.submit({"image": photo}, timeout=REQUEST_S) for photo in self._photos]

    async def _load(self, until: float) -> list[float]:
        latencies_s: list[float] = []

        async def client(number: int) -> None:
            while (began_at := time.perf_counter()) < until:
                photo = self._photos[number % len(self._photos)]
                await self._engine.submit({"image": photo}, timeout=REQUEST_S)
                latencies_s.append(time.perf_counter() - began_at)
                number += 1

        async with asyncio.TaskGroup() as clients:
            for place in range(CLIENTS):
                clients.create_task(client(place))
        return latencies_s


def measure(pairs: int, seconds: float) -> Report:
    """At least MIN_PAIRS turns of `seconds` for each arrangement."""
    photos = [picture(seed, SIDE).jpeg() for seed in range(PHOTOS)]
    config = from_file(ROOT / "config" / "tagging.yml")
    ours = Arrangement("the graph", graph, config, photos)
    # What the graph's model gets, and as many processes as its pool has.
    one_op = Source("one Op", {"op": {"one_op": config.values["op"]["classify"]}})
    one_process = Source("processes", {"dag": config.values["dag"]})
    workers = config.values["dag"]["cpu_workers"]
    others = [
        Arrangement("one Op, colours then classifier", sequential(OneOp), one_op, photos),
        Arrangement("one thread for everything", sequential(OneThread), Source("one thread"), photos),
        Arrangement(f"{workers} processes for everything", sequential(OneProcess), one_process, photos),
    ]
    with ExitStack() as stack:
        for way in (ours, *others):
            stack.enter_context(way)
            _compare(way, ours)
        turns = interleave(max(pairs, MIN_PAIRS), *(partial(way.speed, seconds) for way in (ours, *others)))
    report = Report()
    for place, way in enumerate((ours, *others)):
        report.notes.append(_note(way.name, [turn[place] for turn in turns]))
        if place:
            report.rows.append(_row(way.name, [(turn[0], turn[place]) for turn in turns]))
    report.notes.append(
        f"Tagging: {len(turns)} turns of {seconds:g} s, {CLIENTS} clients in process, {PHOTOS} photos of 1.2 MP, "
        "equal answers."
    )
    return report


def _row(name: str, pairs: list[tuple[Speed, Speed]]) -> Row:
    return Row.compared(f"tagging, {CLIENTS} clients; {name}", "requests/s", "per_s", pairs)


def _note(name: str, speeds: list[Speed]) -> str:
    per_s, p50_ms, p99_ms, cores, cpu_ms, others = (
        number(float(np.median([getattr(speed, field.name) for speed in speeds]))) for field in fields(Speed)
    )
    return (
        f"Tagging, {name}: {per_s} requests/s, p50 {p50_ms} ms, p99 {p99_ms} ms; {cores} cores busy, "
        f"{cpu_ms} ms of CPU a request; {others} cores busy with other work."
    )


def _compare(way: Arrangement, reference: Arrangement) -> None:
    """:raises BenchmarkFailed: `way` says something else of a photo."""
    for place, (said, expected) in enumerate(zip(way.answers, reference.answers, strict=True)):
        for question in ("category", "pattern"):
            mine, other = said[question], expected[question]
            if mine["label"] != other["label"] or abs(mine["score"] - other["score"]) > SCORE:
                raise BenchmarkFailed(f"{way.name} says {mine} of photo {place}, {reference.name} {other}")
        if said["colours"] != expected["colours"]:
            raise BenchmarkFailed(f"{way.name} finds other colours in photo {place} than {reference.name}")


def _cpu_s(pid: int) -> float:
    """CPU seconds so far of a process and all below it, in steps of 10 ms; 0 where it has ended."""
    try:
        # After the name, which may hold spaces: state is field 3, utime 14 and stime 15.
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        tasks = [task / "children" for task in Path(f"/proc/{pid}/task").iterdir()]
        children = [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return 0.0
    return (int(stat[11]) + int(stat[12])) / TICKS_PER_S + sum(map(_cpu_s, children))


def _busy_s() -> float:
    """CPU seconds so far of all that runs on the machine."""
    # user nice system idle iowait irq softirq
    ticks = [int(field) for field in Path("/proc/stat").read_text().split(maxsplit=8)[1:8]]
    return (sum(ticks) - ticks[3] - ticks[4]) / TICKS_PER_S
