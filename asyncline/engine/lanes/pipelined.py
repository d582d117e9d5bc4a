"""Lane of a CUDA device: for each replica a thread that submits batches to the device and one that completes them.

    submit      takes a Batch, drops its dead samples, fills a slot of the Ring, puts the copies and the run into
                their streams, and goes on with the next
    complete    waits for the end of each, in order, and hands it back: one call to the loop for each Batch

What cannot go that way runs by a plain call of `process` in the submitting thread: a model whose outputs have
lengths that depend on the data, a sample of another shape than the static one, a batch of more rows than fit.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from asyncline.deadline import Clock
from asyncline.engine.context import current
from asyncline.engine.lanes.accelerator import Accelerator, DeviceLost, DeviceModel, DeviceOp
from asyncline.engine.lanes.base import Batch, Replica
from asyncline.engine.lanes.call import arguments, fail, take_results
from asyncline.engine.lanes.layout import NoLayout, find_layout
from asyncline.engine.lanes.ring import Ring
from asyncline.engine.lanes.slot import Slot
from asyncline.engine.lanes.thread import Ending
from asyncline.errors import LoadError, load_error, text_of
from asyncline.graph.op import Op
from asyncline.graph.plan import Node

log = logging.getLogger("asyncline.engine")


@dataclass(frozen=True)
class PipelineStatistics:
    slots: int
    """Batches that can be in flight; 0 where all run by plain calls."""
    buckets: tuple[int, ...]
    """Rows that batches are padded to."""
    captured: bool
    """Whether runs are replayed as CUDA graphs."""
    pipelined: int
    """Batches so far that went through the slots."""
    rows: int
    """Of these, without the padding."""
    padding: int
    plain: int
    """Batches so far that ran by a plain call."""


@dataclass(frozen=True)
class Flight:
    """A Batch on its way to the completing thread."""

    batch: Batch
    slot: Slot | None
    """Where it runs; None where it is over."""
    taken_at: float


class PipelinedReplica(Replica):
    """A replica of an Op that `can_pipeline`, on CUDA.

    After `DeviceLost` it fails whatever it has and gets, with that as the Batch's `fault`.

    :param nvtx: show what the threads do to a profiler.
    """

    depth = 2

    def __init__(self, node: Node, index: int, device: str, clock: Clock, *, nvtx: bool = False) -> None:
        self.node = node
        self.index = index
        self.device = device
        self._clock = clock
        self._nvtx = nvtx
        # Shallow: what init_op made is shared, `model` is the replica's own.
        self._op: Any = copy.copy(node.op)
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._flights: SimpleQueue[Flight | None] = SimpleQueue()
        self._ending: Ending | None = None
        #: None where all batches run by plain calls.
        self.ring: Ring | None = None
        #: Why the device is of no more use.
        self._lost: DeviceLost | None = None
        #: Whose the submitting thread is.
        self._entered: Accelerator | None = None
        self._pipelined = self._rows = self._padding = self._plain = 0

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = Ending(1)
        loaded: asyncio.Future[None] = self._loop.create_future()
        self._thread(self._submit, "submit", loaded).start()
        await loaded

    def submit(self, batch: Batch) -> None:
        self._batches.put(batch)

    def close(self) -> None:
        self._batches.put(None)

    async def wait_closed(self) -> None:
        if self._ending is not None:
            await self._ending.wait(f"replica {self.index} of op {self.node.name!r}")

    def statistics(self) -> PipelineStatistics:
        ring = self.ring
        return PipelineStatistics(
            slots=0 if ring is None else len(ring.slots),
            buckets=() if ring is None else ring.buckets,
            captured=ring is not None and ring.captures,
            pipelined=self._pipelined,
            rows=self._rows,
            padding=self._padding,
            plain=self._plain,
        )

    def _thread(self, work: Callable[..., None], name: str, *args: Any) -> threading.Thread:
        name = f"asyncline {self.node.name} {self.index} {name}"
        return threading.Thread(target=work, args=args, name=name, daemon=True)

    # -- the submitting thread

    def _submit(self, loaded: asyncio.Future[None]) -> None:
        error = self._load()
        completing = self._thread(self._complete, "complete")
        if error is None:
            completing.start()
        self._call(_tell, loaded, error)
        while error is None and (batch := self._batches.get()) is not None:
            self._flights.put(self._begin(batch))
            del batch  # not kept while the thread waits for the next
        if error is None:
            self._flights.put(None)
            completing.join()
        self._release()
        assert self._ending is not None
        self._ending.one_ended()

    def _load(self) -> LoadError | None:
        try:
            load = self._op.hook("load_model")
            if load is not None:
                self._op.model = load(self.device)
            model = self._op.model
            if not isinstance(model, DeviceModel) or not can_pipeline(self._op):
                raise NoLayout(f"its model on {self.device} has no streams")
            model.accelerator.enter()
            self._entered = model.accelerator
            self.batch_sizes = model.batch_sizes
            layout = find_layout(self._op, model, self.node.settings.batch_size)
            self.ring = Ring(self._op.name, model, layout, annotate=self._nvtx)
            self.batch_sizes = self.ring.buckets
        except NoLayout as reason:
            _forget_frames(reason)  # those that had begun to take room
            log.warning("op %r: batches run one by one: %s", self._op.name, reason)
        except BaseException as error:  # a SystemExit of a hook must not end the thread silently
            return load_error(error, self.node.name, "load_model")
        return None

    def _begin(self, batch: Batch) -> Flight:
        """Put a Batch into the streams, or run it."""
        taken_at, slot = self._clock(), None
        try:
            if self._lost is not None:
                self._fail(batch, self._lost)
            elif not batch.abandoned:
                slot = self._put(batch)
        except BaseException as error:  # a SystemExit of a hook must not end the thread
            self._fail(batch, error)
        return Flight(batch, slot, taken_at)

    def _put(self, batch: Batch) -> Slot | None:
        given = arguments(self._op, batch)
        if not batch.samples:
            return None
        if self.ring is not None:
            rows = [self._op.arrays(sample.value) for sample in batch.samples]
            if self.ring.takes(rows):
                slot = self.ring.free.get()
                began_at = self._clock()
                bucket = self.ring.put(slot, rows)
                batch.staged_s = self._clock() - began_at
                self._pipelined += 1
                self._rows += len(rows)
                self._padding += bucket - len(rows)
                return slot
        current.set(None)
        self._plain += 1
        take_results(self._op, batch, self._op.process(*given))
        return None

    def _release(self) -> None:
        """Let go of the model and of what lies on the device, in the thread that made them."""
        entered, self._entered, self.ring = self._entered, None, None
        model, self._op.model = self._op.model, None
        close = getattr(model, "close", None)
        try:
            if callable(close):
                close()
            del model, close
            if entered is not None:
                entered.leave()
        except BaseException:  # of any backend, at the end of everything: there is nobody to tell but the log
            log.exception("op %r: its model on %s does not close", self._op.name, self.device)

    # -- the completing thread

    def _complete(self) -> None:
        accelerator = self._op.model.accelerator if self.ring is not None else None
        if accelerator is not None:
            try:
                accelerator.enter()
            except BaseException as error:  # batches are handed back all the same
                self._lost = DeviceLost(f"{self.device} cannot be used: {text_of(error)}")
        ended_at = float("-inf")
        while (flight := self._flights.get()) is not None:
            batch = flight.batch
            if flight.slot is not None:
                self._end(batch, flight.slot)
            # The device began with it when it was done with the one before; with one of dead samples it did not.
            batch.started_at = max(ended_at, flight.taken_at)
            batch.ended_at = ended_at = self._clock() if batch.samples else batch.started_at
            self._call(batch.done, batch)
            del flight, batch  # not kept while the thread waits for the next
        if accelerator is not None:
            accelerator.leave()

    def _end(self, batch: Batch, slot: Slot) -> None:
        """Wait for a Batch in a slot."""
        ring = self.ring
        assert ring is not None
        try:
            if self._lost is not None:
                # Errors of a device come late: nothing is to be trusted that was not known to be over before.
                self._fail(batch, self._lost)
                return
            outputs = ring.take(slot)
            with ring.range("results"):
                take_results(self._op, batch, self._op.results(outputs, len(batch.samples)))
        except BaseException as error:  # a SystemExit of a hook must not end the thread
            self._fail(batch, error)
        finally:
            ring.free.put(slot)

    # -- both

    def _fail(self, batch: Batch, error: BaseException) -> None:
        fail(self._op, batch, error)
        if batch.fault is not None:
            _forget_frames(error)
        if isinstance(batch.fault, DeviceLost):
            self._lost = batch.fault

    def _call(self, callback: Callable[..., Any], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            pass  # the loop is closed: nobody waits

    def __repr__(self) -> str:
        how = "plain calls" if self.ring is None else repr(self.ring)
        return f"<PipelinedReplica {self.index} of {self.node.name!r} on {self.device}: {how}>"


def can_pipeline(op: Op) -> bool:
    """Whether `process` of an Op does no more than run its model, so that a lane may do that without calling it."""
    if not isinstance(op, DeviceOp) or op.collate is not None:
        return False
    # A class of one's own over a stock Op may give it another `process`.
    return _place(op, "process") >= min(_place(op, "arrays"), _place(op, "results"))


def _place(op: Op, name: str) -> int:
    """Which of its classes, from the nearest, gives an Op that method; -1: none."""
    return next((place for place, kind in enumerate(type(op).__mro__) if name in vars(kind)), -1)


def _forget_frames(error: BaseException | None) -> None:
    """Let go of what the frames hold that `error` came through: tensors, where there is no memory."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _tell(loaded: asyncio.Future[None], error: LoadError | None) -> None:
    if loaded.done():
        return
    if error is None:
        loaded.set_result(None)
    else:
        loaded.set_exception(error)
