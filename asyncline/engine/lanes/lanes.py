"""Lanes: the lanes and replicas that a Plan needs, made in the right order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from asyncline.deadline import Clock
from asyncline.engine.admission import MEMORY_BYTES
from asyncline.engine.hooks import Hooks
from asyncline.engine.lanes.base import Lane, Replica
from asyncline.engine.lanes.device import ThreadReplica
from asyncline.engine.lanes.loop import InlineLane, LoopLane, LoopReplica
from asyncline.engine.lanes.pipelined import PipelinedReplica, can_pipeline
from asyncline.engine.lanes.process import ProcessLane
from asyncline.engine.lanes.thread import ThreadLane
from asyncline.graph.op import is_async
from asyncline.graph.plan import Node, Plan
from asyncline.settings import devices


class Lanes:
    """Makes lanes for an Engine. Tests hand the Engine others (`asyncline.testing`)."""

    _nvtx = False

    def make(self, plan: Plan, tasks: asyncio.TaskGroup, hooks: Hooks, clock: Clock) -> dict[str, Lane]:
        """The lanes by name (inline, loop, thread, process) that the hooks of `plan` need, in starting order."""
        self._nvtx = plan.settings.dag.nvtx
        needed = {name: [node for node in plan.nodes if name in node.lanes.values()] for name in ("process", "thread")}
        lanes: dict[str, Lane] = {}
        cores = len(os.sched_getaffinity(0))
        # Processes first: the fork server has to start before there are threads or CUDA.
        if needed["process"]:
            width = plan.settings.dag.cpu_workers or max(1, cores - 1)
            max_bytes = plan.settings.dag.shared_mb * 10**6 or MEMORY_BYTES // 4
            memory_bytes = plan.settings.dag.worker_memory_mb * 10**6
            lanes["process"] = ProcessLane(width, needed["process"], tasks, hooks, clock, max_bytes, memory_bytes)
        if needed["thread"]:
            lanes["thread"] = ThreadLane(plan.settings.dag.cpu_threads or cores, clock)
        lanes["loop"] = LoopLane(tasks, clock)
        lanes["inline"] = InlineLane(clock)
        return lanes

    def replicas(self, node: Node, tasks: asyncio.TaskGroup, clock: Clock) -> Sequence[Replica]:
        """The replicas of an Op; its devices go round."""
        process = node.op.hook("process")
        if process is None:
            return []
        names = devices(node.settings.device)
        count = node.settings.replicas
        if is_async(process):
            return [LoopReplica(node, i, names[i % len(names)], tasks, clock) for i in range(count)]
        return [self._replica(node, i, names[i % len(names)], clock) for i in range(count)]

    def _replica(self, node: Node, index: int, device: str, clock: Clock) -> Replica:
        if device.startswith("cuda") and can_pipeline(node.op):
            return PipelinedReplica(node, index, device, clock, nvtx=self._nvtx)
        return ThreadReplica(node, index, device, clock)
