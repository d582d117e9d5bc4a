"""Dynamic batching in process: what it gains, what it costs a lone client, fixed timers beside it, a bad sample."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import uvloop

from asyncline import Engine, Graph, Op, OpError, Request
from asyncline.backends import Model
from loadtest.batching_clients import Submit, keep_busy, steady_per_s
from loadtest.batching_timer import TimedBatcher
from loadtest.models_nets import DEPTH, INPUT, WIDTH, dense_net
from loadtest.models_onnx import save
from loadtest.pairs import Spread, interleave, number
from loadtest.report import BenchmarkFailed, Budget, Report, Row

TURN_S = 0.5
"""Short, for other work on the machine to meet both of a pair alike."""
MIN_PAIRS = 9

GAIN_SIZE, GAIN_CLIENTS = 64, 128
LONE_SIZE, LONE_REQUESTS, LONE_PAIRS = 32, 200, 21
SAMPLES = 16

BASE_S, ROW_S = 5e-3, 100e-6
"""A batch of n takes the simulated device BASE_S + n ROW_S."""
DEVICE_SIZE = 32
SATURATED, FEW = 128, 16
"""Clients: more than batches hold that run and wait, and fewer than fill one."""
TIMERS_MS = (0, 1, 2, 5, 10)
SWEEPS = 3

POISON_SIZE, MOST_EXTRA = 32, 10
POISON = -1
COLLECT_MS = 1000
"""A batch closes earlier, when it is full: all of a round are in one."""


def simulated(batch: list[int]) -> list[int]:
    """`process` of a device that does its work elsewhere."""
    time.sleep(BASE_S + ROW_S * len(batch))
    return batch


class Simulated(Op):
    def process(self, batch: list[int]) -> list[int]:
        return simulated(batch)


class Poisoned(Op):
    """A model that fails on any batch with POISON in it; else the answer is the sample, negated."""

    def init_op(self) -> None:
        self.sizes: list[int] = []  # of its runs; what init_op makes is the replicas' too

    def process(self, batch: list[int]) -> list[int]:
        self.sizes.append(len(batch))
        if POISON in batch:
            raise ValueError("poison")
        return [-sample for sample in batch]


class Loop:
    """An event loop that Engines and batchers live on in turns, and what is asked of them."""

    def __init__(self, runner: asyncio.Runner, stack: AsyncExitStack) -> None:
        self.run = runner.run
        self._stack = stack

    def engine(self, graph: Graph) -> Engine:
        # Nothing watches the loop, which stands still between turns.
        engine: Engine = self.run(self._stack.enter_async_context(Engine(graph, blocked_s=None)))
        return engine

    def batcher(self, process: Callable[[list[Any]], Sequence[Any]], size: int, timer_ms: float) -> TimedBatcher:
        batcher: TimedBatcher = self.run(self._stack.enter_async_context(TimedBatcher(process, size, timer_ms / 1e3)))
        return batcher

    def per_s(self, submit: Submit, values: Sequence[Any], clients: int) -> float:
        return steady_per_s(self.run(keep_busy(submit, values, clients, TURN_S)))

    def lone_p50_us(self, submit: Submit, values: Sequence[Any]) -> float:
        """Of LONE_REQUESTS requests, one after the other."""

        async def client() -> list[float]:
            times_s = []
            for place in range(LONE_REQUESTS):
                began_at = time.perf_counter()
                await submit(values[place % len(values)])
                times_s.append(time.perf_counter() - began_at)
            return times_s

        return 1e6 * float(np.median(self.run(client())))


def measure(pairs: int) -> Report:
    """At least MIN_PAIRS pairs of each."""
    pairs = max(pairs, MIN_PAIRS)
    report = Report()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, TemporaryDirectory() as folder:
        file = save(dense_net(), Path(folder, "dense.onnx"))
        for add in (partial(_add_gain, file), partial(_add_lone, file), _add_timers, _add_poison):
            stack = AsyncExitStack()
            try:
                add(report, Loop(runner, stack), pairs)
            finally:
                runner.run(stack.aclose())
    return report


def _dense(file: Path, batch_size: int) -> Graph:
    return Graph("dense", Model(file, batch_size=batch_size, threads=1))


def _payloads() -> list[dict[str, Any]]:
    return [{INPUT: sample} for sample in dense_net().samples(SAMPLES)]


def _add_gain(file: Path, report: Report, loop: Loop, pairs: int) -> None:
    """The row of what batching gains."""
    batched, single = (loop.engine(_dense(file, size)) for size in (GAIN_SIZE, 1))
    payloads = _payloads()
    turns = interleave(
        pairs, *(partial(loop.per_s, engine.submit, payloads, GAIN_CLIENTS) for engine in (batched, single))
    )
    report.rows.append(
        _row(
            f"dense net {DEPTH} × {WIDTH}, {GAIN_CLIENTS} clients, batch_size {GAIN_SIZE}; 1",
            "requests/s",
            turns,
            Budget("≥", 4),
        )
    )


def _add_lone(file: Path, report: Report, loop: Loop, pairs: int) -> None:
    """The row of what a client pays for batching who is alone."""
    batched, single = (loop.engine(_dense(file, size)) for size in (LONE_SIZE, 1))
    payloads = _payloads()
    turns = interleave(
        max(pairs, LONE_PAIRS), *(partial(loop.lone_p50_us, engine.submit, payloads) for engine in (batched, single))
    )
    report.rows.append(_row(f"the same, one client, p50, batch_size {LONE_SIZE}; 1", "µs", turns, Budget("≤", 1.05)))
    report.notes.append(
        f"Batching: at least {pairs} pairs of {TURN_S:g} s, in process; one client: {len(turns)} pairs of "
        f"{LONE_REQUESTS} requests."
    )


def _add_timers(report: Report, loop: Loop, pairs: int) -> None:
    """The rows of fixed timers, each beside the best one of a sweep. The clients begin together, and go in step."""
    engine = loop.engine(Graph("simulated", Simulated(Request(), batch_size=DEVICE_SIZE)))
    batchers = [loop.batcher(simulated, DEVICE_SIZE, timer_ms) for timer_ms in TIMERS_MS]
    ideal = DEVICE_SIZE / (BASE_S + ROW_S * DEVICE_SIZE)
    report.notes.append(
        f"Simulated device: {BASE_S * 1e3:g} ms and {ROW_S * 1e3:g} ms a sample, batches of up to {DEVICE_SIZE}, so "
        f"{number(ideal)}/s at most. Baseline: a batch closes when it is full or its timer is over."
    )
    for clients in (SATURATED, FEW):
        submits: list[Submit] = [engine.submit, *(batcher.submit for batcher in batchers)]
        ours, *timed = (partial(loop.per_s, submit, range(SAMPLES), clients) for submit in submits)
        swept = [float(np.median(speeds)) for speeds in zip(*interleave(SWEEPS, *timed), strict=True)]
        best = int(np.argmax(swept))
        turns = interleave(pairs, ours, timed[best])
        what = f"simulated device, {clients} clients; best fixed timer, {TIMERS_MS[best]} ms"
        report.rows.append(_row(what, "requests/s", turns, Budget("≥", 0.95)))
        found = ", ".join(f"{timer} ms: {number(speed)}/s" for timer, speed in zip(TIMERS_MS, swept, strict=True))
        report.notes.append(f"Fixed timers, {clients} clients: {found}.")


def _add_poison(report: Report, loop: Loop, pairs: int) -> None:
    """The remark on a bad sample, once in each place of a batch.

    :raises BenchmarkFailed: a good one has no answer, or another's, or it took more than MOST_EXTRA further runs.
    """

    async def ask(engine: Engine, bad: int) -> list[Any]:
        samples = [POISON if place == bad else place for place in range(POISON_SIZE)]
        return await asyncio.gather(*map(engine.submit, samples), return_exceptions=True)

    extra = []
    for bad in range(POISON_SIZE):
        # A new one each: extra runs are paid for by good ones, of which there are none between.
        op = Poisoned(Request(), batch_size=POISON_SIZE, max_delay_ms=COLLECT_MS)
        answers = loop.run(ask(loop.engine(Graph("poisoned", op)), bad))
        if op.sizes[0] != POISON_SIZE:
            raise BenchmarkFailed(f"the bad sample was to be in a batch of {POISON_SIZE}, not of {op.sizes[0]}")
        extra.append(len(op.sizes) - 1)
        error = answers.pop(bad)
        if answers != [-place for place in range(POISON_SIZE) if place != bad]:
            raise BenchmarkFailed(f"with a bad sample in place {bad} the answers are {answers}")
        if not isinstance(error, OpError):
            raise BenchmarkFailed(f"the bad sample in place {bad} was answered: {error!r}")
    if max(extra) > MOST_EXTRA:
        raise BenchmarkFailed(f"a bad sample in {POISON_SIZE} took {max(extra)} extra runs, more than {MOST_EXTRA}")
    report.notes.append(
        f"One bad sample in a batch of {POISON_SIZE}, in each place once: {POISON_SIZE - 1} right answers, "
        f"{min(extra)} to {max(extra)} extra runs (at most {MOST_EXTRA} are allowed)."
    )


def _row(what: str, unit: str, turns: list[tuple[float, ...]], budget: Budget) -> Row:
    return Row(
        what,
        unit,
        Spread.of(ours for ours, _ in turns),
        Spread.of(theirs for _, theirs in turns),
        Spread.of(ours / theirs for ours, theirs in turns),
        budget,
    )
