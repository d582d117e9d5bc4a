"""A small net of convolutions on the CPU: a Model in an Engine against the raw loop of its Session, and malloc."""

import importlib.util
import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from loadtest.models_contest import Contest, Speed
from loadtest.models_nets import CONVOLUTIONS, SIDE, conv_net
from loadtest.models_onnx import save
from loadtest.pairs import Spread, interleave, number
from loadtest.report import Budget, Report, Row

CORES = len(os.sched_getaffinity(0))
BATCHES = (1, 4, 8)
SWEEPS, SWEEP_S = 5, 0.3
TURN_S = 0.6
"""Short, for other work on the machine to meet both of a pair alike."""
MIN_PAIRS = 11
MALLOC_BATCH = 8
MODULE = "loadtest.models_torch:conv_net"
WHAT = f"net of {len(CONVOLUTIONS)} convolutions, 3 × {SIDE} × {SIDE}"


def measure(pairs: int) -> Report:
    """At least MIN_PAIRS pairs for each backend; the baseline is the raw loop that a sweep finds to be the fastest."""
    report = Report()
    with TemporaryDirectory() as folder:
        file = save(conv_net(), Path(folder, "net.onnx"))
        _add_served(report, "onnxruntime", str(file), 0.95, pairs)
    if importlib.util.find_spec("torch") is None:
        reason = "not measured: torch is not installed"
        report.rows += [Row(f"{WHAT}, torch", not_measured=reason), Row("torch, malloc tuned", not_measured=reason)]
        return report
    _add_served(report, "torch", MODULE, 0.93, pairs)
    _add_malloc(report, pairs)
    return report


def _add_served(report: Report, backend: str, source: str, least: float, pairs: int) -> None:
    """The row of one backend."""
    contests = [Contest(source, threads, replicas) for threads, replicas in sorted({(1, CORES), (CORES, 1)})]
    with ExitStack() as others:
        for contest in contests:
            others.enter_context(contest)
        ways = [(contest, batch) for contest in contests for batch in BATCHES]
        swept = interleave(SWEEPS, *(partial(contest.raw, batch, SWEEP_S) for contest, batch in ways))
        speeds = [float(np.median([turn[place].per_s for turn in swept])) for place in range(len(ways))]
        contest, batch = ways[int(np.argmax(speeds))]
        turns = interleave(
            max(pairs, MIN_PAIRS), partial(contest.ours, batch, TURN_S), partial(contest.raw, batch, TURN_S)
        )
    report.rows.append(
        Row.compared(f"{WHAT}, {backend}; raw loop of its Session", "images/s", "per_s", turns, Budget("≥", least))
    )
    found = ", ".join(
        f"{way.name} of {size}: {number(speed)}/s" for (way, size), speed in zip(ways, speeds, strict=True)
    )
    report.notes.append(
        f"Models, {backend}: {len(turns)} pairs of {TURN_S:g} s; {contest.name}, batches of {batch}, the best of a "
        f"sweep of raw loops ({found}). CPU of an image {_cpu_ms(turns)}. Equal answers."
    )


def _add_malloc(report: Report, pairs: int) -> None:
    """The row of what `tune_malloc` gains; each batch in one thread, which waits for no other."""
    tuned, plain = Contest(MODULE, 1, CORES), Contest(MODULE, 1, CORES, tuned=False)
    with tuned, plain:
        turns = interleave(
            max(pairs, MIN_PAIRS), *(partial(contest.raw, MALLOC_BATCH, TURN_S) for contest in (tuned, plain))
        )
    report.rows.append(
        Row.compared(
            f"torch, batches of {MALLOC_BATCH}, malloc tuned; as it comes", "images/s", "per_s", turns, Budget("≥", 1.3)
        )
    )
    report.notes.append(f"Malloc: {len(turns)} pairs, {tuned.name}, raw; CPU of an image {_cpu_ms(turns)}.")


def _cpu_ms(turns: Sequence[tuple[Speed, ...]]) -> str:
    """CPU time, which other work on the machine changes less than the rate."""
    ours, theirs = (float(np.median([turn[place].cpu_ms for turn in turns])) for place in range(2))
    ratio = Spread.of(turn[1].cpu_ms / turn[0].cpu_ms for turn in turns)
    return f"{number(ours)} ms for {number(theirs)} ms, ratio {ratio}"
