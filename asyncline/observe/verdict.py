"""Verdict: which Op holds the pipeline back, why, and what to turn. Pure: figures and a Plan in, a sentence out.

What limits is the thing with the largest share of busy time. Where nothing is busy, nothing does: then it is said what
will be the first as the load grows, which is the thing that allows the fewest requests a second; see limits.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from asyncline.graph.plan import Node, Plan
from asyncline.observe.figures import Figures, OpFigures, Use
from asyncline.observe.limits import (
    batch_gain,
    capacity,
    door,
    has_spare_cores,
    needs_cores,
    node_of,
    promise,
    promise_of_lane,
    rate,
    waits,
)

FULL = 0.7
"""Busy from here on: queues begin to grow faster than the load does."""
SATURATED = 0.85
"""What is busy at least where requests are refused for its sake; below, it is the door that is too small."""
BLOCKED = 0.05
"""Share of the time that the loop may be blocked."""
OWN_WORK = 0.3
"""Share of the loop's busy time that hooks must have, or else it is the server itself that keeps the loop busy."""
FULL_BATCH = 0.8
"""Share of `batch_size` from which on batches are as large as they may be."""
LEAST_WAIT_MS = 1.0
"""A wait that is shorter is no bottleneck, though it be most of what a request takes."""
WORTH = 1.15
"""How many times as much larger batches have to bring, to be advised."""

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
    limits: bool = True
    """Whether it limits now; else nothing does, and it will be the first."""

    def __str__(self) -> str:
        if self.kind == "none":
            return f"bottleneck: none: {self.why}"
        what = f"op {self.op!r}{f' {self.hook}' if self.hook else ''}"
        if not self.op:
            what = "the door" if self.kind == "queue-bound" else "the server itself"
        if self.limits:
            return f"bottleneck: {what} is {self.kind}: {self.why}; {self.knob}"
        return f"bottleneck: none yet: {what} will be {self.kind} first, {self.why}; {self.knob}"


def verdict(figures: Figures, plan: Plan) -> Verdict:
    """Judge one window."""
    if (found := _blocked(figures, plan)) is not None:
        return found
    overloaded = sum(count for code, count in figures.rejected.items() if code == "overloaded")
    if not figures.count and not overloaded and not figures.in_flight:
        return Verdict("", "none", f"no requests in the last {figures.seconds:.0f} s", "")
    busiest = max(figures.uses, key=lambda use: use.busy)
    if busiest.busy >= (SATURATED if overloaded else FULL):
        return _full(busiest, figures, plan)
    if overloaded:
        return _queue(figures, plan, overloaded)
    return _light(figures, plan)


def _blocked(figures: Figures, plan: Plan) -> Verdict | None:
    """The loop stood still: nothing else can be judged by its times."""
    where, seconds = max(figures.blocked.items(), key=lambda found: found[1], default=("", 0.0))
    if not where or seconds < BLOCKED * figures.seconds:
        return None
    # Those seconds are a sample; of an inline hook it is known what it took.
    seconds = max(seconds, *(use.work.get(where, 0.0) for use in figures.uses if use.kind == "loop"))
    op, _, hook = where.partition(".")
    why = f"it blocked the event loop for {seconds / figures.seconds:.0%} of the time, and every request waited"
    if node_of(where, plan).lanes.get(hook) == "loop":
        knob = f"await what takes so long, or make {hook} a plain function with op.{op}.cpu=thread or process"
        return Verdict(op, "loop-bound", why, knob, hook)
    return Verdict(op, "loop-bound", why, _to_lane(where, seconds, figures, plan), hook)


def _full(use: Use, figures: Figures, plan: Plan) -> Verdict:
    """Something is busy: it limits the throughput."""
    if _is_the_server(use, figures):
        return _loop(f"the event loop is {use.busy:.0%} busy with requests as such, at {rate(figures.qps)} requests/s")
    op, hook, part = _most(use)
    now, most = rate(figures.qps), rate(figures.qps / use.busy)
    why = f"{_what(use)} {use.busy:.0%} busy{part}, at {now} of at most {most} requests/s"
    return Verdict(op, _class(use, figures), why, _knob(use, figures, plan), hook)


def _most(use: Use) -> tuple[str, str, str]:
    """The Op and the hook that take most of it, and how much that is, if there are others."""
    where = max(use.work, key=lambda name: use.work[name])
    op, _, hook = where.partition(".")
    share = use.work[where] / (sum(use.work.values()) or 1.0)
    return op, hook, f", {share:.0%} of that with it" if len(use.work) > 1 and share < 0.95 else ""


def _is_the_server(use: Use, figures: Figures) -> bool:
    return use.kind == "loop" and sum(use.work.values()) < OWN_WORK * use.busy * figures.seconds


def _class(use: Use, figures: Figures) -> str:
    return "I/O-bound" if waits(use, figures) else _CLASSES[use.kind]


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


def _knob(use: Use, figures: Figures, plan: Plan, *, is_full: bool = True) -> str:
    """:param is_full: whether `use` is busy; else this is for when it will be."""
    where = max(use.work, key=lambda name: use.work[name])
    node, hook = node_of(where, plan), where.partition(".")[2]
    name = node.name
    most = figures.qps / use.busy if is_full else capacity(use, figures, plan)
    if use.kind == "io":
        doubled = promise(use, 2 * most, figures, plan)
        return f"set op.{name}.concurrency={2 * int(use.servers)} {doubled}"
    if use.kind == "loop":
        return _to_lane(where, use.work[where], figures, plan)
    if use.kind == "device" and (larger := _larger(use, figures, plan, node, is_full=is_full)):
        return larger
    is_on_cores = needs_cores(use, figures) and (use.kind != "device" or node.settings.device == "cpu")
    if is_on_cores and not has_spare_cores(figures):
        cheaper = f"make {hook} cheaper" if use.kind != "device" else f"use a smaller model or op.{name}.precision"
        busy = f"all {figures.cores_there} cores are busy, so more at once will not help"
        return f"{busy}: {cheaper}, or serve on more cores"
    # What waits for others takes no core.
    more = int(use.servers) * 2 if waits(use, figures) else int(use.servers) + 1
    key = {"device": f"op.{name}.concurrency", "process": "dag.cpu_workers", "thread": "dag.cpu_threads"}[use.kind]
    return f"set {key}={more} {promise(use, most * more / use.servers, figures, plan)}"


def _larger(use: Use, figures: Figures, plan: Plan, node: Node, *, is_full: bool) -> str:
    """Larger batches, if they are full, and if that brings something; else nothing."""
    op, size = figures.op(node.name), node.settings.batch_size
    if is_full and size > 1 and op.batch_size < FULL_BATCH * size:
        return ""
    more = 8 if size == 1 else 2 * size
    gain = batch_gain(op, more) / batch_gain(op, max(size, op.batch_size or size))
    if gain < WORTH:
        return ""
    promised = promise(use, gain * capacity(use, figures, plan), figures, plan, takes_cores=False)
    unsure = ", if they take no longer" if op.fixed_ms is None else ""
    now = f": batches of {op.batch_size:.3g} are as large as they may be now" if is_full else ""
    return f"set op.{node.name}.batch_size={more} {promised}{unsure}{now}"


def _to_lane(where: str, seconds: float, figures: Figures, plan: Plan) -> str:
    knob = f"set op.{where.partition('.')[0]}.cpu=thread or process"
    # Of a window in which no request was finished, nothing can be promised.
    return f"{knob} {promise_of_lane(where, seconds, figures, plan)}" if figures.count else knob


def _queue(figures: Figures, plan: Plan, overloaded: int) -> Verdict:
    """Requests are refused though there is somebody to work on them."""
    busy = max((use.busy for use in figures.uses), default=0.0)
    refused = f"{overloaded} requests were refused at {figures.in_flight_max} in flight"
    why = f"{refused}, while nothing is more than {busy:.0%} busy"
    asked = (figures.count + overloaded) / figures.seconds
    most = min([asked, *(capacity(use, figures, plan) for use in figures.uses)])
    return Verdict(_whose(figures), "queue-bound", why, _open(asked, most, figures))


def _open(asked: float, most: float, figures: Figures) -> str:
    # Little's law: as many are in flight as come in the time that each takes; half as many again for bursts.
    needed = max(2 * figures.in_flight_max, math.ceil(1.5 * asked * figures.latency.mean_ms / 1e3))
    return f"set {figures.limit}={needed} for up to {rate(most)} requests/s"


def _whose(figures: Figures) -> str:
    """The Op whose Channel makes the door so small; "" where none does."""
    parts = figures.limit.split(".")
    return parts[1] if parts[0] == "op" else ""


def _loop(why: str, *, limits: bool = True) -> Verdict:
    """The loop is busy, with the server's own work."""
    knob = "send fewer and larger requests, or by TCP or gRPC, or start another server"
    return Verdict("", "loop-bound", why, knob, limits=limits)


def _light(figures: Figures, plan: Plan) -> Verdict:
    """There is room everywhere: what will be full first, and what takes most of the latency."""
    slowest = max(figures.ops, key=lambda op: op.in_ms + op.cost_ms)
    if not slowest.count:
        if figures.in_flight:
            return Verdict("", "none", f"none of {figures.in_flight} requests in flight was finished", "")
        return Verdict("", "none", "every request failed before it reached an op", "")
    if slowest.in_ms > max(LEAST_WAIT_MS, figures.latency.mean_ms / 2):
        return _waiting(slowest, node_of(slowest.name, plan), figures)
    first = min(figures.uses, key=lambda use: capacity(use, figures, plan))
    most, at_once = capacity(first, figures, plan), door(figures)
    now = f"at {rate(figures.qps)} requests/s; {_of_latency(slowest, figures)}"
    if at_once < most:
        mean = figures.qps / at_once * figures.in_flight_max
        why = f"at about {rate(at_once)} requests/s: {mean:.2g} of {figures.in_flight_max} are in flight {now}"
        knob = f"then {_open(0.0, min(most, 2 * at_once), figures)}"
        return Verdict(_whose(figures), "queue-bound", why, knob, limits=False)
    if math.isinf(most):
        return Verdict("", "none", f"nothing is busy {now}", "")
    why = f"at about {rate(most)} requests/s: {_what(first)} {first.busy:.0%} busy {now}"
    if _is_the_server(first, figures):
        return _loop(why, limits=False)
    op, hook, _ = _most(first)
    return Verdict(
        op, _class(first, figures), why, f"then {_knob(first, figures, plan, is_full=False)}", hook, limits=False
    )


def _of_latency(op: OpFigures, figures: Figures) -> str:
    stages = {"preprocess": op.prep_ms, "process": op.midp_ms, "postprocess": op.postp_ms, "queue": op.in_ms}
    stage, ms = max(stages.items(), key=lambda found: found[1])
    return f"most of the latency, {ms:.3g} of {figures.latency.mean_ms:.3g} ms, is {op.name}'s {stage}"


def _waiting(op: OpFigures, node: Node, figures: Figures) -> Verdict:
    of_all = f"{op.in_ms:.3g} of {figures.latency.mean_ms:.3g} ms"
    if node.settings.max_delay_ms and op.in_ms >= node.settings.max_delay_ms / 2:
        why = f"requests wait {of_all} for a fuller batch, and nothing is busy"
        return Verdict(op.name, "queue-bound", why, f"set op.{op.name}.max_delay_ms=0")
    why = f"requests wait {of_all} in front of it, though nothing is busy: they come in bursts"
    if node.lane("process") is None:
        return Verdict(op.name, "queue-bound", why, "more workers of its lane would shorten that")
    return Verdict(op.name, "queue-bound", why, f"set op.{op.name}.concurrency={node.settings.replicas + 1}")
