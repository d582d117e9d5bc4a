"""Lane of a device: one thread for each replica of an Op, which loads its model and runs its batches."""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from asyncline.deadline import Clock
from asyncline.engine.context import current
from asyncline.engine.lanes.base import Batch, Replica
from asyncline.engine.lanes.call import arguments, fail, take_results, warm_up
from asyncline.engine.lanes.thread import Ending
from asyncline.errors import LoadError, load_error
from asyncline.graph.plan import Node

log = logging.getLogger("asyncline.engine")


class ThreadReplica(Replica):
    """A replica with a thread of its own. The loop is told once per batch."""

    depth = 2

    def __init__(self, node: Node, index: int, device: str, clock: Clock) -> None:
        self.node = node
        self.index = index
        self.device = device
        self._clock = clock
        # Shallow: what init_op made is shared, `model` is the replica's own.
        self._op = copy.copy(node.op)
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = Ending(1)
        loaded: asyncio.Future[None] = self._loop.create_future()
        name = f"asyncline {self.node.name} {self.index}"
        threading.Thread(target=self._work, args=(loaded,), name=name, daemon=True).start()
        await loaded

    def submit(self, batch: Batch) -> None:
        self._batches.put(batch)

    def _work(self, loaded: asyncio.Future[None]) -> None:
        error = self._load()
        self._call(_tell, loaded, error)
        while error is None and (batch := self._batches.get()) is not None:
            self._run(batch)
            self._call(batch.done, batch)
            del batch  # not kept while the thread waits for the next
        self._unload()
        self._ending.one_ended()

    def _call(self, callback: Callable[..., Any], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            pass  # the loop is closed: nobody waits

    def _load(self) -> LoadError | None:
        hook = "load_model"
        try:
            if (load := self._op.hook(hook)) is not None:
                self._op.model = load(self.device)
                self.batch_sizes = getattr(self._op.model, "batch_sizes", ())
            hook = "example"
            warm_up(self._op)
        except BaseException as error:  # a SystemExit of a hook must not end the thread silently
            return load_error(error, self.node.name, hook)
        return None

    def _unload(self) -> None:
        """Let go of the model, in the thread that made it."""
        model, self._op.model = self._op.model, None
        close = getattr(model, "close", None)
        try:
            if callable(close):
                close()
        except BaseException:  # of user code, at the end of everything: there is nobody to tell but the log
            log.exception("op %r: closing the model of replica %d", self.node.name, self.index)

    def _run(self, batch: Batch) -> None:
        current.set(None)
        batch.started_at = self._clock()
        try:
            given = arguments(self._op, batch)
            if not batch.samples or batch.abandoned:
                batch.ended_at = batch.started_at  # nothing ran
                return
            take_results(self._op, batch, self._op.hook("process")(*given))  # type: ignore[misc]  # the Op has it
        except BaseException as error:  # a SystemExit of a hook must not end the thread
            fail(self._op, batch, error)
        batch.ended_at = self._clock()

    def close(self) -> None:
        self._batches.put(None)

    async def wait_closed(self) -> None:
        if hasattr(self, "_ending"):
            await self._ending.wait(f"replica {self.index} of op {self.node.name!r}")


def _tell(loaded: asyncio.Future[None], error: LoadError | None) -> None:
    if loaded.done():
        return
    if error is None:
        loaded.set_result(None)
    else:
        loaded.set_exception(error)
