"""Plan: a Graph with its settings in force, in the form that an Engine runs.

Values of an Item lie in a list of slots: first the request's (the whole payload, or one slot for each
field), then one for each Op in topological order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from asyncline.errors import GraphError
from asyncline.graph.fusion import Chain, Hook, fuse
from asyncline.graph.graph import Graph
from asyncline.graph.op import HOOKS, Op, is_async, is_stream
from asyncline.graph.request import FieldInput, Input
from asyncline.settings import OpSettings, Settings

STAGES = ("wait", "pre", "mid", "post", "out")
"""Where an Item spends its time at an Op: waiting (in its Channel, for a lane, in a forming batch), in the three hooks,
and from the end of the last until the loop has handed it on."""


@dataclass(frozen=True)
class Target:
    """Where the result of an Op goes when it jumps: for what comes after, it is the value of another Op."""

    slot: int
    """Where that one's value lies."""
    output: bool
    consumers: tuple[int, ...]
    """As of that one's Node."""
    again: tuple[int, ...]
    """Indices of the Ops that are to run again."""


@dataclass(frozen=True, slots=True)
class Node:
    """One Op in its place in the graph."""

    index: int
    """Place among the Ops, from 0, in topological order."""
    slot: int
    """Where its value lies."""
    op: Op
    settings: OpSettings
    channel_size: int
    input_slots: tuple[int, ...]
    waits_for: int
    """How many of its inputs are other Ops (counted once for each edge)."""
    consumers: tuple[int, ...]
    """Indices of the Ops that take its value, one for each edge."""
    output: bool
    chains: Mapping[str, Chain] = field(default_factory=dict)
    """By hook: the chain that it begins, where other hooks run in its task."""
    target: Target | None = None
    """Where its result may jump to."""

    @property
    def name(self) -> str:
        return self.op.name

    def lane(self, hook: str) -> str | None:
        """Where that hook runs: loop (what is async), inline, thread, process or device; None where it is absent."""
        function = self.op.hook(hook)
        if function is None:
            return None
        if is_async(function) or is_stream(function):
            return "loop"
        if hook == "process":
            return "device"
        return self.settings.cpu

    @property
    def stream_hook(self) -> str | None:
        """The hook that yields the parts of the answer; None where the Op does not stream."""
        return self.op.stream_hook

    @property
    def lanes(self) -> dict[str, str]:
        """The lane of each hook that the Op has."""
        return {hook: lane for hook in HOOKS if (lane := self.lane(hook)) is not None}


@dataclass(frozen=True)
class Plan:
    """What an Engine runs."""

    graph: Graph
    settings: Settings
    nodes: tuple[Node, ...]
    entry: tuple[int, ...]
    """Indices of the Ops that take request values only, so can start at once."""
    outputs: tuple[tuple[str | None, int], ...]
    """The name and the slot of every output."""

    @cached_property
    def time_slots(self) -> dict[tuple[str, str], int]:
        """Where `Item.times` has the seconds of an Op's stage, one after the other for the stages that the Op has."""
        hooks = dict(zip(STAGES[1:], HOOKS, strict=False))

        def has(node: Node, stage: str) -> bool:
            if stage == "out":  # what ran on the loop needs no handing over
                return set(node.lanes.values()) != {"inline"}
            return stage == "wait" or hooks[stage] in node.lanes

        stages = [(node.name, stage) for node in self.nodes for stage in STAGES if has(node, stage)]
        return {stage: slot for slot, stage in enumerate(stages)}

    @cached_property
    def stage_slots(self) -> tuple[dict[str, int], ...]:
        """The same, by the Op's index and the stage."""
        slots: dict[str, dict[str, int]] = {node.name: {} for node in self.nodes}
        for (name, stage), slot in self.time_slots.items():
            slots[name][stage] = slot
        return tuple(slots.values())

    @cached_property
    def fused(self) -> dict[Hook, Hook]:
        """For each hook that runs in the task of another: the hook that begins the task."""
        return {
            (step.index, step.hook): (node.index, hook)
            for node in self.nodes
            for hook, chain in node.chains.items()
            for step in chain.steps[1:]
        }

    @cached_property
    def streams(self) -> bool:
        """Whether the answer comes in parts."""
        return any(node.stream_hook is not None for node in self.nodes)

    @property
    def max_in_flight(self) -> int:
        """Most Items in the graph. An Item is at most once in a Channel, so Channels of that size cannot
        fill up, and the token taken at the door is the only back-pressure: joins cannot deadlock."""
        return min(self.settings.service.max_in_flight, *(node.channel_size for node in self.nodes))


def plan(graph: Graph, settings: Settings) -> Plan:
    """Lay out `graph` with `settings`; neighbouring hooks are fused unless `dag.fuse` is off.

    :raises GraphError: the settings do not fit the graph.
    """
    slots: dict[Input, int] = {graph.request: 0}
    for slot, name in enumerate(graph.request.fields):
        slots[getattr(graph.request, name)] = slot
    first = max(1, len(graph.request.fields))
    slots |= {op: first + index for index, op in enumerate(graph.ops)}
    consumers: dict[Input, list[int]] = defaultdict(list)
    for index, op in enumerate(graph.ops):
        for value in op.inputs:
            consumers[value].append(index)
    nodes = []
    for index, op in enumerate(graph.ops):
        mine = settings.op[op.name]
        if op.hook("process") is None:
            for key, off in (("batch_size", 1), ("max_batch_cost", None), ("max_delay_ms", 0), ("retry", 0)):
                if getattr(mine, key) != off:
                    raise GraphError(f"op {op.name!r}: {key} without `process`: only `process` takes batches")
        if mine.max_batch_cost is not None and op.hook("cost") is None:
            raise GraphError(f"op {op.name!r}: max_batch_cost without `cost`: write cost(self, sample)")
        nodes.append(
            Node(
                index=index,
                slot=first + index,
                op=op,
                settings=mine,
                channel_size=mine.channel_size or settings.dag.channel_size,
                input_slots=tuple(slots[value] for value in op.inputs),
                waits_for=sum(not isinstance(value, FieldInput) and value is not graph.request for value in op.inputs),
                consumers=tuple(consumers[op]),
                output=op in graph.response.outputs.values(),
                target=_target(graph, op, slots, consumers),
            )
        )
    laid_out = Plan(
        graph=graph,
        settings=settings,
        nodes=tuple(nodes),
        entry=tuple(node.index for node in nodes if not node.waits_for),
        outputs=tuple((name, slots[value]) for name, value in graph.response.outputs.items()),
    )
    # A hook that runs in the task of the one before it would have run where that one then jumps.
    return fuse(laid_out) if settings.dag.fuse and not graph.jumps else laid_out


def _target(graph: Graph, op: Op, slots: Mapping[Input, int], consumers: Mapping[Input, list[int]]) -> Target | None:
    target = op.jumps_to
    if target is None:
        return None
    return Target(
        slot=slots[target],
        output=target in graph.response.outputs.values(),
        consumers=tuple(consumers.get(target, ())),
        again=tuple(map(graph.ops.index, graph.jumps[op])),
    )
