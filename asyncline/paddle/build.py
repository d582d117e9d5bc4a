"""From Ops wired as Paddle's are to a Graph of ours."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from asyncline.errors import GraphError
from asyncline.graph.graph import Graph
from asyncline.graph.request import Input
from asyncline.paddle.adapter import ModelStep, Step
from asyncline.paddle.config import Config
from asyncline.paddle.ends import Entry, Exit, PipelineEntry, PlainEntry
from asyncline.paddle.op import ENTRY, Op
from asyncline.paddle.request_op import RequestOp
from asyncline.paddle.response_op import ResponseOp
from asyncline.paddle.translate import OpPlan

DEFAULT_NAME = "pipeline"
EXIT = "@ResponseOp"
OWN_NAMES = {ENTRY: "request", EXIT: "response"}


def build(name: str | None, response: ResponseOp, config: Config) -> Graph:
    """The Graph of a pipeline, from its last Op back to its RequestOp.

    :param name: of the service; None: `DEFAULT_NAME`.
    :raises GraphError: there is a cycle, an Op without input, more or less than one RequestOp, a name twice, or a jump
        that cannot be.
    :raises SettingsError: as of OpPlan.
    """
    ops = _in_order(response)
    entries = [op for op in ops if isinstance(op, RequestOp)]
    if len(entries) != 1:
        raise GraphError(f"a pipeline has one RequestOp, got {len(entries)}")
    if len(ops) == 1:
        raise GraphError("a pipeline has an Op between its RequestOp and its ResponseOp")
    last = response.get_input_ops()[0]
    _check_jumps(ops)
    is_left_early = any(last in op.get_jump_to_ops() for op in ops)
    names = _names([op.name for op in ops if op is not entries[0]])
    consumers = Counter(source for op in ops for source in op.get_input_ops())
    made: dict[Op, Any] = {entries[0]: _entry(entries[0], names[ENTRY])}
    for op in ops:
        if op is entries[0]:
            continue
        plan = OpPlan(op, config)
        inputs = [made[source] for source in op.get_input_ops()]
        arguments: dict[str, Any] = {
            "paddle": op,
            "sources": tuple((source.name, consumers[source] > 1) for source in op.get_input_ops()),
            "response": response if op is last and not is_left_early else None,
            "may_jump": op.is_jump_op(),
            "name": names[op.name],
            **plan.settings,
        }
        if plan.has_process:
            made[op] = ModelStep(*inputs, model=plan.model, **arguments)
            made[op].cpu_concurrency = plan.concurrency
        else:
            made[op] = Step(*inputs, **arguments)
    for op in ops:
        if op.is_jump_op():
            made[op].jumps_to = made[op.get_jump_to_ops()[0]]
    output = made[last]
    if is_left_early:
        output = Exit(output, paddle=response, name=names[EXIT], cpu="thread")
    return Graph(DEFAULT_NAME if name is None else name, output)


def _entry(op: RequestOp, name: str) -> Input:
    if type(op) is RequestOp:
        return PlainEntry()
    overridden = type(op).unpack_request_package is not RequestOp.unpack_request_package
    return Entry(PipelineEntry(), paddle=op, name=name, cpu="thread" if overridden else "inline")


def _check_jumps(ops: Sequence[Op]) -> None:
    for op in ops:
        targets = op.get_jump_to_ops()
        if len(targets) > 1:
            raise GraphError(f"op {op.name!r}: jump_to_ops: a request cannot go on in {len(targets)} places; name one")
        for target in targets:
            if target not in ops:
                raise GraphError(f"op {op.name!r}: jump_to_ops: op {target.name!r} is no part of the pipeline")


def _in_order(response: ResponseOp) -> list[Op]:
    """The Ops that the answer depends on, every one after its inputs."""
    order: dict[Op, None] = {}
    above: dict[Op, None] = {}

    def visit(op: Op) -> None:
        if op in order:
            return
        if op in above:
            raise GraphError(f"the pipeline has a cycle through op {op.name!r}")
        if not op.get_input_ops() and not isinstance(op, RequestOp):
            raise GraphError(f"op {op.name!r} has no input_ops")
        above[op] = None
        for source in op.get_input_ops():
            visit(source)
        del above[op]
        order[op] = None

    visit(response.get_input_ops()[0])
    return list(order)


def _names(names: list[str]) -> dict[str, str]:
    """Names of ours for Paddle's, which may have any sign in them."""
    found: dict[str, str] = {}
    for name in [*names, *OWN_NAMES]:
        if name in found:
            raise GraphError(f"two Ops are named {name!r}: a name means one Op")
        words = OWN_NAMES[name] if name in OWN_NAMES else re.sub(r"\W", "_", name, flags=re.ASCII)
        if not re.match(r"[A-Za-z_]", words):
            words = f"op_{words}"
        while words in found.values():
            words += "_"
        found[name] = words
    return found
