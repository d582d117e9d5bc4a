"""Fusion: neighbouring CPU hooks of one lane run as one task.

    decode.preprocess → detect.preprocess | detect.process | detect.postprocess → crop.preprocess
    └────────── one task ──────────┘         device          └──────────── one task ───────────┘

What a task costs beside its hooks, a turn on the loop, a hop to a thread or process and back, and there the
way of every value, is then paid once for several hooks. Nothing else changes: each hook still has its own
outcome, its own times and its own error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncline.graph.plan import Node, Plan

CPU_LANES = frozenset({"process", "thread"})
"""Where a task costs enough to be spared; hooks on the loop are plain calls already."""

Hook = tuple[int, str]
"""Place of an Op in the plan, and the name of its hook."""


@dataclass(frozen=True)
class Step:
    """One hook of a task that runs several. Plain values only: it crosses to worker processes."""

    index: int
    """Place of its Op in the plan."""
    op: str
    """Name of its Op."""
    hook: str
    args: tuple[int, ...]
    """Where its arguments lie in the frame of the task (see `Chain`)."""
    keeps: bool
    """Whether its value is needed outside of the task."""


@dataclass(frozen=True)
class Chain:
    """The hooks that run in one task, in order; two or more.

    Their values lie in a frame: first the arguments of the first hook, then the values of `extra_slots`, then
    what each step came to.
    """

    steps: tuple[Step, ...]
    extra_slots: tuple[int, ...]
    """Slots of the values that later steps take and the first does not. They are there when it begins."""
    feeds: int | None
    """Place of the Op for whose `process` the last step prepares; None where it prepares for none."""

    @cached_property
    def later(self) -> tuple[Hook, ...]:
        """The hooks after the first."""
        return tuple((step.index, step.hook) for step in self.steps[1:])


def fuse(plan: Plan) -> Plan:
    """Give every Node the chains that its hooks begin."""
    after = _links(plan.nodes)
    chains: dict[int, dict[str, Chain]] = defaultdict(dict)
    for index, hook in after.keys() - after.values():
        chains[index][hook] = _chain(plan.nodes, after, (index, hook))
    return replace(plan, nodes=tuple(replace(node, chains=chains.get(node.index, {})) for node in plan.nodes))


def _links(nodes: tuple[Node, ...]) -> dict[Hook, Hook]:
    """The hook that follows another in the same task; each has at most one before it and one after it."""
    after: dict[Hook, Hook] = {}
    first_slot = nodes[0].slot
    # Values that are there when an Op begins, as bits: those of the request, and of all Ops that it depends on.
    known: dict[int, int] = {}
    for node in nodes:
        there = (1 << first_slot) - 1
        for slot in node.input_slots:
            there |= 1 << slot | known.get(slot, 0)
        known[node.slot] = there
    for node in nodes:
        if "process" not in node.lanes and _same_lane(node.lanes.get("preprocess"), node.lanes.get("postprocess")):
            after[node.index, "preprocess"] = node.index, "postprocess"
        if len(set(node.consumers)) != 1:
            continue
        # The hook whose value is the Op's. Where that is `process`, its lane is none of these.
        last, consumer = list(node.lanes)[-1], nodes[node.consumers[0]]
        there = known[node.slot] | 1 << node.slot
        if (
            _same_lane(node.lanes[last], consumer.lanes.get("preprocess"))
            and all(there >> slot & 1 for slot in consumer.input_slots)
            and not _is_bounded(node)
            and not _is_bounded(consumer)
        ):
            after[node.index, last] = consumer.index, "preprocess"
    return after


def _same_lane(lane: str | None, other: str | None) -> bool:
    return lane == other and lane in CPU_LANES


def _is_bounded(node: Node) -> bool:
    """Whether an Op's own limits hold for its hooks, so that they cannot run in a task with another Op's:
    `timeout_ms`, `cpu_concurrency`, and without `process` a `concurrency`."""
    settings = node.settings
    return (
        settings.timeout_ms is not None
        or node.op.cpu_concurrency is not None
        or ("process" not in node.lanes and settings.concurrency is not None)
    )


def _chain(nodes: tuple[Node, ...], after: Mapping[Hook, Hook], first: Hook) -> Chain:
    hooks = [first]
    while hooks[-1] in after:
        hooks.append(after[hooks[-1]])
    own = nodes[first[0]].input_slots
    result = int(first[1] == "postprocess")  # which gets the result before the inputs
    inside = {nodes[index].slot for index, _ in hooks}
    inputs = dict.fromkeys(slot for index, _ in hooks for slot in nodes[index].input_slots)
    extra = tuple(slot for slot in inputs if slot not in inside and slot not in own)
    places = {slot: place for place, slot in enumerate((*own, *extra), result)}
    count = result + len(own) + len(extra)
    steps = []
    for place, (index, hook) in enumerate(hooks, count):
        node = nodes[index]
        if (index, hook) == first:
            args = tuple(range(result + len(own)))
        else:
            args = tuple(places[slot] for slot in node.input_slots)
            if hook == "postprocess":
                args = (place - 1, *args)
        steps.append(Step(index, node.name, hook, args, _keeps(nodes, hooks, place - count)))
        places[node.slot] = place
    index, hook = hooks[-1]
    return Chain(tuple(steps), extra, index if hook == "preprocess" and "process" in nodes[index].lanes else None)


def _keeps(nodes: tuple[Node, ...], hooks: list[Hook], place: int) -> bool:
    """Whether the value of the hook at that place is needed outside of the task."""
    if place == len(hooks) - 1:
        return True
    node, consumer = nodes[hooks[place][0]], nodes[hooks[place + 1][0]]
    if node is consumer:
        return False
    # `postprocess` of the consumer gets the inputs once more; inside of the task it comes right after.
    after = (consumer.index, "postprocess")
    return node.output or ("postprocess" in consumer.lanes and after not in hooks[place + 2 : place + 3])
