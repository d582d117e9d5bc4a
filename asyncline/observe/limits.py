"""Limits: how many requests a second each thing allows, and what more of it would bring. Pure.

The formulas are those of Paddle Serving's tuning guide: op_cost = pre + mid + post; throughput = 1 / slowest op_cost x
concurrency. They are turned round, as shares of busy time are measured: what is busy for a tenth of the time at 10
requests/s allows 100.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from asyncline.graph.plan import Node, Plan
from asyncline.observe.figures import Figures, OpFigures, Use

WAITING = 0.3
"""Share of CPU time below which what runs in a lane waits for others more than it computes."""
NO_CORE = 0.1
"""Share of the cores below which those that are idle make no room for another worker."""
LEAST_LOOP = 0.05
"""Share of the loop's time below which most of it may be what a server does that has no requests."""


@dataclass(frozen=True)
class Promise:
    """What turning a knob brings at most."""

    qps: float
    then: str = ""
    """What limits from there on."""

    def __str__(self) -> str:
        return f"for up to {rate(self.qps)} requests/s" + (f" (then {self.then})" if self.then else "")


def rate(value: float) -> str:
    """Three digits that matter, none as a power of ten."""
    return f"{float(f'{value:.3g}'):,.12g}"


def waits(use: Use, figures: Figures) -> bool:
    """Whether its hooks wait for others, though they block a worker."""
    return use.kind in ("thread", "process") and _is_waiting(use, figures)


def needs_cores(use: Use, figures: Figures) -> bool:
    """Whether more of it needs idle cores."""
    return use.kind in ("thread", "process", "device") and not _is_waiting(use, figures)


def _is_waiting(use: Use, figures: Figures) -> bool:
    # Where other programs have all the cores, it may be these that it waits for.
    has_cores = figures.cores_idle is None or figures.cores_idle > NO_CORE * figures.cores_there
    return has_cores and use.cpu is not None and use.cpu < WAITING


def spare_cores(figures: Figures) -> float:
    """Cores that another worker could have."""
    own = max(0.0, figures.cores_there - figures.cores)
    return own if figures.cores_idle is None else min(own, figures.cores_idle)


def has_spare_cores(figures: Figures) -> bool:
    return spare_cores(figures) > NO_CORE * figures.cores_there


def batch_ms(op: OpFigures, rows: float) -> float:
    """What a batch of so many rows takes: where it is not known how much of that comes of its size, nothing does."""
    fixed = op.batch_ms if op.fixed_ms is None else min(op.fixed_ms, op.batch_ms)
    return fixed + (op.batch_ms - fixed) * rows / op.batch_size


def batch_gain(op: OpFigures, rows: float) -> float:
    """How many times as many rows a replica does in batches of `rows`."""
    if not op.batches or not op.batch_ms:
        return 1.0
    return (rows / op.batch_size) * op.batch_ms / batch_ms(op, rows)


def capacity(use: Use, figures: Figures, plan: Plan) -> float:
    """Requests/s that it allows, in full batches; infinite where it has done nothing."""
    busy = use.busy
    if use.kind == "loop":
        # It waits for a core each time that it wakes up; when it has much to do, that is seldom.
        busy *= 1.0 if use.cpu is None else use.cpu
        if busy < LEAST_LOOP:
            return math.inf
    if not busy:
        return math.inf
    found = figures.qps / busy
    if use.kind != "device":
        return found
    node = node_of(next(iter(use.work)), plan)
    op = figures.op(node.name)
    return found * batch_gain(op, max(op.batch_size, node.settings.batch_size))


def door(figures: Figures) -> float:
    """Requests/s that may be in flight all together, by Little's law, while each takes no longer than now."""
    return figures.in_flight_max / (figures.latency.mean_ms / 1e3) if figures.latency.mean_ms else math.inf


def promise(use: Use, qps: float, figures: Figures, plan: Plan, *, takes_cores: bool = True) -> Promise:
    """What it brings to have `use` allow `qps` requests/s, until something else limits.

    :param takes_cores: whether that takes more cores, if `use` needs any.
    """
    limits = [(qps, "")]
    limits += [(capacity(other, figures, plan), f"{_most(other)} limits") for other in figures.uses if other is not use]
    if takes_cores and needs_cores(use, figures) and figures.cores:
        limits.append((figures.qps * (figures.cores + spare_cores(figures)) / figures.cores, "the cores do"))
    return Promise(*min(limits))


def promise_of_lane(where: str, seconds: float, figures: Figures, plan: Plan) -> Promise:
    """What it brings to take a hook that kept the loop for `seconds` to the lane of threads."""
    lane = next((use for use in figures.uses if use.kind == "thread"), None)
    servers = (lane.servers if lane else plan.settings.dag.cpu_threads) or figures.cores_there
    busy_s = seconds + (sum(lane.work.values()) if lane else 0.0)
    limits = [(figures.count * servers / busy_s, f"{where} limits the threads")]
    for use in figures.uses:
        if use.kind == "loop":
            left = max(LEAST_LOOP, use.busy - seconds / figures.seconds)
            limits.append((figures.qps / left, "the event loop limits"))
        elif use is not lane:
            limits.append((capacity(use, figures, plan), f"{_most(use)} limits"))
    return Promise(*min(limits))


def _most(use: Use) -> str:
    """What it is busy with."""
    return "the event loop" if use.kind == "loop" else max(use.work, key=lambda where: use.work[where])


def node_of(where: str, plan: Plan) -> Node:
    """:param where: an Op and its hook."""
    name = where.partition(".")[0]
    return next(node for node in plan.nodes if node.name == name)
