"""Uses: how busy everything was of which there is only so much, and with what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from asyncline.engine.engine import Engine
from asyncline.engine.lanes.loop import WIDTH
from asyncline.graph.op import is_async
from asyncline.graph.plan import Node
from asyncline.observe.figures import Use

CONTENDED = 0.7
"""Cores that this process keeps busy from which on its threads may stand in each other's way."""
_STAGES = {"preprocess": "pre", "postprocess": "post"}


def uses(
    engine: Engine,
    seconds: float,
    loop_s: tuple[float, float],
    cpu_s: Mapping[int, float],
    jobs: Mapping[tuple[str, str], float],
    batches: Mapping[str, float],
    stages: Mapping[tuple[str, str], np.ndarray],
) -> tuple[Use, ...]:
    """:param seconds: of the window.
    :param loop_s: CPU time of the loop's thread in it, without and with what it waited for a core.
    :param cpu_s: CPU time of this process, by 0, and of each worker process.
    :param jobs: seconds in lanes by Op and hook.
    :param batches: seconds in `process` by Op.
    :param stages: count and seconds of requests by Op and stage.
    """
    found: list[Use] = []
    inline: dict[str, float] = {}
    lanes: dict[str, dict[str, float]] = {"process": {}, "thread": {}}
    for node in engine.plan.nodes:
        waiting: dict[str, float] = {}
        for hook, lane in node.lanes.items():
            where = f"{node.name}.{hook}"
            if hook == "process":
                kind = "io" if lane == "loop" else "device"
                found.append(_use(kind, node.settings.replicas, seconds, {where: batches.get(node.name, 0.0)}))
            elif lane == "inline":
                inline[where] = float(stages[node.name, _STAGES[hook]][1])
            elif lane == "loop":
                waiting[where] = jobs.get((node.name, hook), 0.0)
            else:
                lanes[lane][where] = jobs.get((node.name, hook), 0.0)
        if waiting:
            found.append(_use("io", node.settings.concurrency or WIDTH, seconds, waiting))
    statistics = engine.statistics().lanes
    found += [
        _use(lane, max(1, statistics[lane].alive), seconds, work)
        for lane, work in lanes.items()
        if work and lane in statistics
    ]
    inline_s = sum(inline.values())
    loop_busy, loop_worked = (max(spent, inline_s, 1e-9) / seconds for spent in (loop_s[1], loop_s[0]))
    found.append(Use("loop", 1, min(1.0, loop_busy), inline, loop_worked / loop_busy))
    return tuple(_with_cpu(found, seconds, loop_s[0], cpu_s))


def _use(kind: str, servers: int, seconds: float, work: dict[str, float]) -> Use:
    # What ends in a window may have begun before it.
    return Use(kind, servers, min(1.0, sum(work.values()) / (servers * seconds)), work)


def _with_cpu(found: list[Use], seconds: float, loop_s: float, cpu_s: Mapping[int, float]) -> Iterator[Use]:
    """The same, with how much of their time was CPU time."""
    own_s = cpu_s.get(0, 0.0)
    spent = {"process": sum(cpu_s.values()) - own_s, "thread": own_s - loop_s, "device": own_s - loop_s}
    work = {"process": 0.0, "thread": 0.0, "device": 0.0}
    for use in found:
        if use.kind in work:
            work["process" if use.kind == "process" else "thread"] += sum(use.work.values())
    work["device"] = work["thread"]
    for use in found:
        # Threads that wait for the interpreter, which another of them has, do not wait for anything else.
        is_contended = use.kind in ("thread", "device") and own_s >= CONTENDED * seconds
        if own_s and use.kind in work and work[use.kind]:
            yield replace(use, cpu=1.0 if is_contended else min(1.0, spent[use.kind] / work[use.kind]))
        else:
            yield use


def idle(node: Node, found: tuple[Use, ...], seconds: float) -> float:
    """Share of the time in which an Op's replicas did nothing, or the workers of its hooks nothing for it."""
    process = node.op.hook("process")
    if process is not None:
        kind = "io" if is_async(process) else "device"
        mine = f"{node.name}.process"
        return 1.0 - next(use.busy for use in found if use.kind == kind and mine in use.work)
    own = {f"{node.name}.{hook}" for hook in node.lanes}
    busy = [sum(use.work[where] for where in own & use.work.keys()) / (use.servers * seconds) for use in found]
    return max(0.0, 1.0 - max(busy, default=0.0))
