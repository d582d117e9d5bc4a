"""Works: what an Engine runs on, from its start to its end: lanes, Runners with their replicas, open Ops."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from asyncline.engine.jumping import JumpingRunner
from asyncline.engine.lanes.base import Lane
from asyncline.engine.lanes.lanes import Lanes
from asyncline.engine.runner import Runner
from asyncline.errors import load_error
from asyncline.graph.op import is_async
from asyncline.graph.plan import Node

if TYPE_CHECKING:
    from asyncline.engine.engine import Engine

log = logging.getLogger("asyncline.engine")

CLOSE_S = 5.0
"""Longest time of one Op's `close_op`."""


class Works:
    """Loads everything, and closes as much of it as had been loaded.

    :param make: makes the lanes.
    """

    def __init__(self, engine: Engine, make: Lanes) -> None:
        self.lanes: dict[str, Lane] = {}
        #: By the index of their Nodes.
        self.runners: list[Runner] = []
        self._engine = engine
        self._make = make
        self._opened: list[Node] = []

    async def load(self, tasks: asyncio.TaskGroup) -> None:
        """Start lanes, open Ops and load models.

        :param tasks: of the Engine's life.
        :raises LoadError: an Op cannot be made ready.
        """
        engine, nodes = self._engine, self._engine.plan.nodes
        for node in nodes:
            node.op.settings = node.settings
        self.lanes.update(self._make.make(engine.plan, tasks, engine.hooks, engine.clock))
        for lane in self.lanes.values():
            await lane.start()
        for node in nodes:
            if set(node.lanes.values()) != {"process"}:
                await _init(node)
                self._opened.append(node)
        for node in nodes:
            replicas = list(self._make.replicas(node, tasks, engine.clock))
            pre, post = (self.lanes.get(node.lane(hook) or "") for hook in ("preprocess", "postprocess"))
            kind = Runner if node.target is None else JumpingRunner
            self.runners.append(kind(engine, node, pre, post, replicas))
        # Side by side: loading is mostly reading files, and native code without the GIL.
        try:
            async with asyncio.TaskGroup() as loading:
                for runner in self.runners:
                    for replica in runner.replicas:
                        loading.create_task(self._load_replica(runner.node, replica))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        for runner in self.runners:
            if runner.processing is not None:
                runner.processing.start()

    async def _load_replica(self, node: Node, replica: Any) -> None:
        hooks, clock = self._engine.hooks, self._engine.clock
        if hooks.loading:
            hooks.emit(hooks.loading, node, replica.index)
        started_at = clock()
        await replica.start()
        if hooks.loaded:
            hooks.emit(hooks.loaded, node, replica.index, clock() - started_at)

    def problem(self) -> str | None:
        """What keeps it from working; None where all is well."""
        for runner in self.runners:
            if runner.processing is not None and (problem := runner.processing.problem()) is not None:
                return problem
        for name, lane in self.lanes.items():
            if (problem := lane.problem()) is not None:
                return f"the {name} lane {problem}"
        return None

    async def close(self) -> None:
        """End it all; no Item is in flight."""
        parts: list[Any] = [replica for runner in self.runners for replica in runner.replicas]
        parts += self.lanes.values()
        for runner in self.runners:
            runner.close()
        for part in parts:
            part.close()
        for part in parts:
            await part.wait_closed()
        for node in reversed(self._opened):
            await _close_op(node)

    def __repr__(self) -> str:
        return f"<Works of {len(self.runners)} Ops on the lanes {', '.join(self.lanes) or 'none'}>"


async def _init(node: Node) -> None:
    init = node.op.hook("init_op")
    if init is None:
        return
    try:
        await asyncio.to_thread(init)
    except Exception as error:
        raise load_error(error, node.name, "init_op") from error


async def _close_op(node: Node) -> None:
    close = node.op.hook("close_op")
    if close is None:
        return
    try:
        async with asyncio.timeout(CLOSE_S):
            await (close() if is_async(close) else asyncio.to_thread(close))
    except Exception:  # of user code, at the end of everything: there is nobody to tell but the log
        log.exception("op %r close_op", node.name)
