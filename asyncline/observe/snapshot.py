"""Snapshot: all counts at one moment. The difference of two is what happened between them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from asyncline.engine.engine import Engine
from asyncline.graph.plan import Plan
from asyncline.observe.cpu import CpuTimes
from asyncline.observe.figures import PERCENTILES, Figures, Latency, OpFigures
from asyncline.observe.histogram import LogHistogram
from asyncline.observe.pulse import Beat
from asyncline.observe.statistics import SIZES, Statistics
from asyncline.observe.uses import idle, uses

_Key = TypeVar("_Key")
_Number = TypeVar("_Number", int, float)
TakeCpu = Callable[[Iterable[int]], CpuTimes]

CORES = len(os.sched_getaffinity(0))
_SIZE_NAMES = ("1", "2", *(f"{low + 1:.0f}-{high:.0f}" for low, high in pairwise(SIZES[1:])), "more")


@dataclass(frozen=True)
class Snapshot:
    at: float
    """Seconds of the engine's clock."""
    latency: LogHistogram
    outcomes: Mapping[str, int]
    rejected: Mapping[str, int]
    stages: np.ndarray
    """float64, [places of `Plan.time_slots`, 2]: how many requests, and their seconds in all."""
    op_errors: Mapping[tuple[str, str], int]
    batches: Mapping[str, np.ndarray]
    """By Op: float64, [3 + sizes]: batches, rows, seconds, then batches by size."""
    jobs: Mapping[tuple[str, str], float]
    """Seconds of hooks in lanes, by Op and hook."""
    late: Mapping[str, float]
    """Seconds that the loop was kept by a hook."""
    fixed_s: Mapping[str, float | None]
    """By Op: seconds of a batch whatever its size, as far as is known by then."""
    cpu: CpuTimes
    beat: Beat
    """What lies between this one and the one before."""

    @classmethod
    def take(cls, engine: Engine, statistics: Statistics, beat: Beat, cpu: TakeCpu = CpuTimes.take) -> Snapshot:
        """Call it on the loop. Costs some 100 µs, and where many requests have ended what `Statistics.fold` takes."""
        statistics.fold()
        lanes = engine.statistics().lanes
        pids = [pid for lane in lanes.values() for pid in lane.pids]
        return cls(
            at=engine.clock(),
            latency=statistics.latency.copy(),
            outcomes=dict(statistics.outcomes),
            rejected=dict(statistics.rejections),
            stages=np.array([(found.count, found.sum) for found in statistics.op_seconds.values()], np.float64),
            op_errors=dict(statistics.op_errors),
            batches={
                name: np.array([sizes.count, sizes.sum, statistics.batch_seconds[name].sum, *sizes.counts])
                for name, sizes in statistics.batch_sizes.items()
            },
            jobs=dict(statistics.job_seconds),
            late=dict(statistics.late_seconds),
            fixed_s={name: _fixed_s(found) for name, found in statistics.executions.items()},
            cpu=cpu(pids),
            beat=beat,
        )


def _fixed_s(executions: Mapping[int, tuple[int, float]]) -> float | None:
    """Seconds of a batch that do not come of its size: where the line through the mean times of the sizes begins.

    None where they are too few, or too alike.
    """
    known = [(rows, runs, seconds / runs) for rows, (runs, seconds) in executions.items()]
    if not known or max(known)[0] < 1.5 * min(known)[0]:
        return None
    rows, runs, means = np.array(known).T
    slope, start = np.polyfit(rows, means, 1, w=np.sqrt(runs))
    # A line that falls, or begins below 0, is noise.
    return float(np.clip(start if slope > 0 else np.average(means, weights=runs), 0.0, None))


def figures(snapshots: list[Snapshot], engine: Engine) -> Figures:
    """What happened from the first of `snapshots` to the last; those between tell of peaks.

    Where there is one only, nothing has.
    """
    first, last = snapshots[0], snapshots[-1]
    beat = Beat.joined([snapshot.beat for snapshot in snapshots[1:]])
    seconds = max(last.at - first.at, 1e-9)
    now = engine.statistics()
    latency = last.latency.since(first.latency)
    percentiles = latency.percentiles(PERCENTILES)
    stages = dict(zip(engine.plan.time_slots, last.stages - first.stages, strict=True))
    errors = _since(first.op_errors, last.op_errors)
    batches = {name: last.batches[name] - first.batches[name] for name in last.batches}
    spent = {name: float(counted[2]) for name, counted in batches.items()}
    cpu_s = last.cpu.spent(first.cpu)
    loop_s = last.cpu.loop_s - first.cpu.loop_s
    # Where other programs have the cores, the loop waits for one: it is no less busy for that.
    loop = loop_s, loop_s + last.cpu.loop_waited_s - first.cpu.loop_waited_s
    found = uses(engine, seconds, loop, cpu_s, _since(first.jobs, last.jobs), spent, stages)
    return Figures(
        seconds=seconds,
        at=time.time() - (engine.clock() - last.at),
        latency=Latency(
            latency.count,
            latency.mean * 1e3,
            {number: value * 1e3 for number, value in zip(PERCENTILES, percentiles, strict=True)},
        ),
        ops=tuple(
            OpFigures(
                name=node.name,
                count=int(stages[node.name, "wait"][0]),
                errors={code: count for (name, code), count in errors.items() if name == node.name},
                in_ms=_mean_ms(stages, node.name, "wait"),
                prep_ms=_mean_ms(stages, node.name, "pre"),
                midp_ms=_mean_ms(stages, node.name, "mid"),
                postp_ms=_mean_ms(stages, node.name, "post"),
                out_ms=_mean_ms(stages, node.name, "out"),
                idle=idle(node, found, seconds),
                **_of_batches(batches.get(node.name), last.fixed_s.get(node.name)),
                depth=now.channels[node.name].depth,
                depth_max=max(beat.depths.get(node.name, 0), now.channels[node.name].depth),
                channel_size=now.channels[node.name].size,
            )
            for node in engine.plan.nodes
        ),
        outcomes=_since(first.outcomes, last.outcomes),
        rejected=_since(first.rejected, last.rejected),
        uses=found,
        in_flight=now.in_flight,
        in_flight_max=now.max_in_flight,
        in_flight_mean=beat.in_flight,
        limit=_limit(engine.plan),
        loop_lag_ms=beat.lag_s * 1e3,
        cores=sum(cpu_s.values()) / seconds,
        cores_there=CORES,
        cores_idle=last.cpu.idle_cores(first.cpu),
        blocked=_since(first.late, last.late),
    )


def _since(first: Mapping[_Key, _Number], last: Mapping[_Key, _Number]) -> dict[_Key, _Number]:
    return {key: count - first.get(key, 0) for key, count in last.items() if count != first.get(key, 0)}


def _mean_ms(stages: Mapping[tuple[str, str], np.ndarray], op: str, stage: str) -> float:
    counted = stages.get((op, stage))
    return float(counted[1] / counted[0]) * 1e3 if counted is not None and counted[0] else 0.0


def _of_batches(counted: np.ndarray | None, fixed_s: float | None) -> dict[str, Any]:
    if counted is None or not counted[0]:
        return {}
    count, rows, seconds, *sizes = counted.tolist()
    by_size = {name: int(n) for name, n in zip(_SIZE_NAMES, sizes, strict=True) if n}
    return {
        "batches": int(count),
        "batch_size": rows / count,
        "batch_ms": seconds / count * 1e3,
        "fixed_ms": None if fixed_s is None else fixed_s * 1e3,
        "batch_sizes": by_size,
    }


def _limit(plan: Plan) -> str:
    """The setting that bounds the requests in flight: see `Plan.max_in_flight`."""
    smallest = min(plan.nodes, key=lambda node: node.channel_size)
    if smallest.channel_size >= plan.settings.service.max_in_flight:
        return "service.max_in_flight"
    return f"op.{smallest.name}.channel_size" if smallest.settings.channel_size else "dag.channel_size"
