"""Verdict: which Op holds the pipeline back, why, and what to turn. Pure: figures and a Plan in, a sentence out.

The formulas are those of Paddle Serving's tuning guide: op_cost = pre + mid + post; throughput = 1 / slowest op_cost x
concurrency; so what limits is the thing with the largest share of busy time, at any load. Where nothing is busy there
is no queue either, and what matters is the latency: then it is the Op that takes most of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from asyncline.graph.plan import Node, Plan
from asyncline.observe.figures import Figures, OpFigures, Use

FULL = 0.7
"""Busy from here on: queues begin to grow faster than the load does."""
SATURATED = 0.85
"""What is busy at least where requests are refused for its sake; below, it is the door that is too small."""
ALL_CORES = 0.9
"""Share of the cores from which on more workers take time from each other."""
BLOCKED = 0.05
"""Share of the time that the loop may be blocked."""
OWN_WORK = 0.3
"""Share of the loop's busy time that hooks must have, or else it is the server itself that keeps the loop busy."""
FULL_BATCH = 0.8
"""Share of `batch_size` from which on batches are as large as they may be."""

_CLASSES = {
    "device": "device-bound",
    "process": "CPU-bound",
    "thread": "CPU-bound",
    "io": "I/O-bound",
    "loop": "loop-bound",
}


@dataclass(frozen=True)
class Verdict:
    """What limits the server; str() is the sentence."""

    op: str
    """Its name; "" where it is none."""
    kind: str
    """CPU-bound, device-bound, I/O-bound, loop-bound, queue-bound or none."""
    why: str
    knob: str
    """What to turn, or to change."""
    hook: str = ""

    def __str__(self) -> str:
        if self.kind == "none":
            return f"bottleneck: none: {self.why}"
        what = f"op {self.op!r}{f' {self.hook}' if self.hook else ''}"
        if not self.op:
            what = "the door" if self.kind == "queue-bound" else "the server itself"
        return f"bottleneck: {what} is {self.kind}: {self.why}; {self.knob}"


def verdict(figures: Figures, plan: Plan) -> Verdict:
    """Judge one window."""
    nodes = {node.name: node for node in plan.nodes}
    overloaded = sum(count for code, count in figures.rejected.items() if code == "overloaded")
    if not figures.count and not overloaded and not figures.in_flight:
        return Verdict("", "none", f"no requests in the last {figures.seconds:.0f} s", "")
    if (found := _blocked(figures)) is not None:
        return found
    busiest = max(figures.uses, key=lambda use: use.busy)
    if busiest.busy >= (SATURATED if overloaded else FULL):
        if busiest.kind == "loop" and sum(busiest.work.values()) < OWN_WORK * busiest.busy * figures.seconds:
            return _loop(busiest, figures)
        return _full(busiest, figures, nodes)
    if overloaded:
        return _queue(figures, overloaded)
    return _light(figures, nodes)


def _blocked(figures: Figures) -> Verdict | None:
    """The loop stood still: nothing else can be judged by its times."""
    where, seconds = max(figures.blocked.items(), key=lambda found: found[1], default=("", 0.0))
    if not where or seconds < BLOCKED * figures.seconds:
        return None
    op, _, hook = where.partition(".")
    why = f"it blocked the event loop for {seconds / figures.seconds:.0%} of the time, and every request waited"
    return Verdict(op, "loop-bound", why, f"set op.{op}.cpu=thread or process, or await instead", hook)


def _full(use: Use, figures: Figures, nodes: dict[str, Node]) -> Verdict:
    """Something is busy: it limits the throughput."""
    where = max(use.work, key=lambda name: use.work[name])
    op, _, hook = where.partition(".")
    share = use.work[where] / sum(use.work.values())
    part = f", {share:.0%} of that with it" if len(use.work) > 1 and share < 0.95 else ""
    capacity = figures.qps / use.busy
    why = f"{_what(use)} {use.busy:.0%} busy{part}, at {figures.qps:.3g} of at most {capacity:.3g} requests/s"
    knob = _knob(use, figures, nodes[op], hook)
    return Verdict(op, _CLASSES[use.kind], why, knob, hook)


def _what(use: Use) -> str:
    count = f"{use.servers:g}"
    names = {
        "device": "its replica is" if use.servers == 1 else f"its {count} replicas are",
        "process": "the CPU pool's process is" if use.servers == 1 else f"the CPU pool's {count} processes are",
        "thread": "the lane's thread is" if use.servers == 1 else f"the lane's {count} threads are",
        "io": f"its places for {count} requests at once are",
        "loop": "the event loop is",
    }
    return names[use.kind]


def _knob(use: Use, figures: Figures, node: Node, hook: str) -> str:
    name = node.name
    cores_are_busy = figures.cores >= ALL_CORES * figures.cores_there
    if use.kind == "io":
        return f"set op.{name}.concurrency={2 * int(use.servers)} for {_gain(2, use, figures)}"
    if use.kind == "loop":
        return f"set op.{name}.cpu=thread or process for {_gain(math.inf, use, figures)}"
    if use.kind == "device":
        op, settings = figures.op(name), node.settings
        if settings.batch_size == 1 or op.batch_size >= FULL_BATCH * settings.batch_size:
            more = 8 if settings.batch_size == 1 else 2 * settings.batch_size
            return f"set op.{name}.batch_size={more}: batches of {op.batch_size:.3g} are as large as they may be now"
    if cores_are_busy and not (use.kind == "device" and node.settings.device != "cpu"):
        cheaper = f"make {hook} cheaper" if use.kind != "device" else f"use a smaller model or op.{name}.precision"
        busy = f"all {figures.cores_there} cores are busy, so more at once will not help"
        return f"{busy}: {cheaper}, or serve on more cores"
    more = int(use.servers) + 1
    key = {"device": f"op.{name}.concurrency", "process": "dag.cpu_workers", "thread": "dag.cpu_threads"}[use.kind]
    return f"set {key}={more} for {_gain(more / use.servers, use, figures)}"


def _gain(factor: float, use: Use, figures: Figures) -> str:
    """How much `factor` times as much of it brings, until something else is busy."""
    next_use = max((other for other in figures.uses if other is not use), key=lambda other: other.busy, default=None)
    limits = {"": use.busy and factor / use.busy}
    if next_use is not None and next_use.busy:
        where = max(next_use.work, key=lambda name: next_use.work[name], default="") if next_use.work else ""
        limits[f"then {where or 'the event loop'} limits"] = 1 / next_use.busy
    if use.kind in ("process", "thread", "device") and figures.cores:
        limits["then the cores do"] = figures.cores_there / figures.cores
    then, most = min(limits.items(), key=lambda limit: limit[1])
    text = f"up to {figures.qps * most:.3g} requests/s"
    return f"{text} ({then})" if then else text


def _queue(figures: Figures, overloaded: int) -> Verdict:
    """Requests are refused though there is somebody to work on them."""
    busy = max((use.busy for use in figures.uses), default=0.0)
    refused = f"{overloaded} requests were refused at {figures.in_flight_max} in flight"
    why = f"{refused}, while nothing is more than {busy:.0%} busy"
    # Little's law: as many are in flight as come in the time that each takes; half as many again for bursts.
    rate = (figures.count + overloaded) / figures.seconds
    needed = max(2 * figures.in_flight_max, math.ceil(1.5 * rate * figures.latency.mean_ms / 1e3))
    parts = figures.limit.split(".")
    return Verdict(parts[1] if parts[0] == "op" else "", "queue-bound", why, f"set {figures.limit}={needed}")


def _loop(use: Use, figures: Figures) -> Verdict:
    """The loop is busy, with the server's own work."""
    why = f"the event loop is {use.busy:.0%} busy with requests as such, at {figures.qps:.3g} requests/s"
    return Verdict("", "loop-bound", why, "send fewer and larger requests, or by TCP or gRPC, or start another server")


def _light(figures: Figures, nodes: dict[str, Node]) -> Verdict:
    """There is room everywhere: what takes most of the latency."""
    slowest = max(figures.ops, key=lambda op: op.in_ms + op.cost_ms)
    node = nodes[slowest.name]
    if not slowest.count:
        if figures.in_flight:
            return Verdict("", "none", f"none of {figures.in_flight} requests in flight was finished", "")
        return Verdict("", "none", "every request failed before it reached an op", "")
    of_all = f"{slowest.in_ms + slowest.cost_ms:.3g} of {figures.latency.mean_ms:.3g} ms"
    if slowest.in_ms > slowest.cost_ms:
        return _waiting(slowest, node, of_all)
    hook, hook_ms = max(
        (("preprocess", slowest.prep_ms), ("process", slowest.midp_ms), ("postprocess", slowest.postp_ms)),
        key=lambda found: found[1],
    )
    lane = node.lane(hook) or "inline"
    kind = {"loop": "io", "inline": "loop"}.get(lane, lane)
    why = f"{hook_ms:.3g} ms of {figures.latency.mean_ms:.3g} are spent there, and nothing is busy (light load)"
    knobs = {
        "io": "it waits for others: cache, or shorten what it waits for",
        "loop": f"set op.{node.name}.cpu=thread or process: every other request waits meanwhile",
        "device": f"a smaller model, op.{node.name}.precision or more op.{node.name}.threads make it faster",
        "process": f"make {hook} cheaper; `asyncline check --advise` tells whether another lane suits it",
        "thread": f"make {hook} cheaper; `asyncline check --advise` tells whether another lane suits it",
    }
    return Verdict(node.name, _CLASSES[kind], why, knobs[kind], hook)


def _waiting(op: OpFigures, node: Node, of_all: str) -> Verdict:
    if node.settings.max_delay_ms and op.in_ms >= node.settings.max_delay_ms / 2:
        why = f"requests wait {op.in_ms:.3g} ms for a fuller batch ({of_all}), and nothing is busy"
        return Verdict(op.name, "queue-bound", why, f"set op.{op.name}.max_delay_ms=0")
    why = f"requests wait {op.in_ms:.3g} ms in front of it ({of_all}), though nothing is busy: they come in bursts"
    if node.lane("process") is None:
        return Verdict(op.name, "queue-bound", why, "more workers of its lane would shorten that")
    return Verdict(op.name, "queue-bound", why, f"set op.{op.name}.concurrency={node.settings.replicas + 1}")
