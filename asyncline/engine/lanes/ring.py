"""Ring: the slots that batches of one model go round through, and the three streams that move them.

While one batch runs, the next is uploaded and the one before is downloaded. All memory is taken, and all graphs are
captured, at the start. The order of the calls is that of `accelerator.py`.

Rows are gathered by a copy into pinned memory, which the batch before hides. They could be uploaded from where they
lie only if a whole batch lay there in one piece: those of the process lane lie in segments of their own, which the
server maps read-only, and CUDA pins such memory on some machines only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from queue import SimpleQueue
from typing import Protocol, runtime_checkable

import numpy as np

from asyncline.engine.lanes.accelerator import Array, DeviceLost, DeviceModel, OutOfMemory
from asyncline.engine.lanes.layout import Layout, NoLayout, next_bucket
from asyncline.engine.lanes.slot import Run, Slot

log = logging.getLogger("asyncline.engine")

SLOTS = 3
"""One batch is uploaded, one runs, one is downloaded and unpacked."""

Range = Callable[[str], AbstractContextManager[object]]


@runtime_checkable
class Annotating(Protocol):
    """An Accelerator whose profiler shows ranges of time: NVTX."""

    def range(self, name: str) -> AbstractContextManager[object]:
        """What the calling thread does inside is shown under that name."""


class Ring:
    """Slots, streams and graphs for one model.

    :param annotate: show what the threads do to a profiler, where the Accelerator can.
    :raises NoLayout: there is no room for a single slot, or no bucket runs.
    :raises DeviceLost: the device was lost meanwhile.
    """

    def __init__(self, name: str, model: DeviceModel, layout: Layout, *, annotate: bool = False) -> None:
        self._name = name
        self._model = model
        self._layout = layout
        accelerator = model.accelerator
        self.range: Range = accelerator.range if annotate and isinstance(accelerator, Annotating) else _no_range
        self._uploads, self._downloads = accelerator.stream(), accelerator.stream()
        #: Whether host memory is pinned.
        self.pins = True
        self.slots = self._make_slots()
        self._zero()
        #: Whether runs are replayed; else they are enqueued.
        self.captures = model.can_capture
        #: Rows of the batches that it can run, ascending.
        self.buckets = self._warm_up()
        #: Slots with no batch in them.
        self.free: SimpleQueue[Slot] = SimpleQueue()
        for slot in self.slots:
            self.free.put(slot)

    # -- at the start

    def _make_slots(self) -> list[Slot]:
        slots: list[Slot] = []
        try:
            while len(slots) < SLOTS:
                slots.append(Slot(self._model.accelerator, self._layout, self._pinned))
        except OutOfMemory as error:
            if not slots:
                raise NoLayout(f"there is no room on the device for one batch: {error}") from None
            log.warning("op %r: room for %d of %d batches in flight: %s", self._name, len(slots), SLOTS, error)
        return slots

    def _pinned(self, nbytes: int) -> Array:
        if self.pins:
            try:
                return self._model.accelerator.pinned(nbytes)
            except DeviceLost:
                raise
            except Exception as error:  # of any backend: no more memory may be locked
                log.warning("op %r: copies are slow, host memory cannot be pinned: %s", self._name, error)
                self.pins = False
        return np.empty(nbytes, np.uint8)

    def _zero(self) -> None:
        """Rows of padding hold something that a model takes; later, whatever was there before."""
        for slot in self.slots:
            self._clear(slot)
        self._uploads.synchronize()

    def _clear(self, slot: Slot) -> None:
        for name, array in slot.pinned_inputs.items():
            array.fill(0)
            self._uploads.upload(slot.device_inputs[name], array)

    def _warm_up(self) -> tuple[int, ...]:
        ready = []
        # Graphs share their memory: the largest makes room for all.
        for bucket in sorted(self._layout.outputs, reverse=True):
            runs = [slot.runs[bucket] for slot in self.slots]
            try:
                self._enqueue(runs[0])
                self._model.stream.synchronize()
                self._capture(runs)
                ready.append(bucket)
            except DeviceLost:
                raise
            except Exception as error:  # of any backend; a batch of that size will say it again
                log.warning("op %r: its model does not run %d rows: %s", self._name, bucket, error)
                for slot in self.slots:
                    del slot.runs[bucket]
        if not ready:
            raise NoLayout("the model runs no size of batch")
        return tuple(reversed(ready))

    def _capture(self, runs: list[Run]) -> None:
        """Make a graph for each slot, as addresses are part of it."""
        stream, accelerator = self._model.stream, self._model.accelerator
        try:
            for run in runs if self.captures else ():
                run.captured = accelerator.capture(stream, partial(self._enqueue, run))
        except RuntimeError as error:
            log.warning("op %r: no CUDA graphs, its model cannot be captured: %s", self._name, error)
            self.captures = False
            for run in runs:
                run.captured = None

    def _enqueue(self, run: Run) -> None:
        self._model.enqueue(run.inputs, run.outputs)

    # -- at work

    def takes(self, rows: Sequence[tuple[Array, ...]]) -> bool:
        """Whether a batch of these rows can go through."""
        return len(rows) <= self.buckets[-1] and all(map(self._layout.fits, rows))

    def put(self, slot: Slot, rows: Sequence[tuple[Array, ...]]) -> int:
        """Start a batch that `takes` is true of, in a slot that nothing is in; returns the rows with the padding.

        :raises OutOfMemory: there is no room for the run; the slot is free again.
        :raises DeviceLost: the device is of no more use.
        :raises Exception: as the model raises; the slot is free again.
        """
        bucket = next_bucket(self.buckets, len(rows))
        assert bucket is not None and rows
        run = slot.runs[bucket]
        try:
            self._put(slot, run, rows)
        except BaseException:
            self.settle(slot)
            self.free.put(slot)
            raise
        return bucket

    def _put(self, slot: Slot, run: Run, rows: Sequence[tuple[Array, ...]]) -> None:
        count, stream, uploads, downloads = len(rows), self._model.stream, self._uploads, self._downloads
        with self.range("gather"):
            for target, column in zip(slot.pinned_inputs.values(), zip(*rows, strict=True), strict=True):
                for place, array in enumerate(column):
                    target[place] = array
        with self.range("submit"):
            for name, memory in slot.device_inputs.items():
                uploads.upload(memory, slot.pinned_inputs[name][:count])
            uploads.record(slot.input_ready)
            stream.wait(slot.input_ready)
            if run.captured is not None:
                run.captured.replay(stream)
            else:
                self._enqueue(run)
            stream.record(slot.computed)
            downloads.wait(slot.computed)
            slot.results = {name: pinned[:count] for name, pinned in run.results.items()}
            for name, pinned in slot.results.items():
                downloads.download(pinned, slot.device_outputs[name])
            downloads.record(slot.output_ready)

    def take(self, slot: Slot) -> dict[str, Array]:
        """Wait for the batch in a slot; its outputs, `[n, ...]` of each, copied. May be called by another thread.

        :raises DeviceLost: it failed, and the device is of no more use.
        :raises Exception: it failed.
        """
        with self.range("wait"):
            try:
                slot.output_ready.synchronize()
            except DeviceLost:
                raise
            except Exception:
                self.settle(slot)
                raise
        return {name: pinned.copy() for name, pinned in slot.results.items()}

    def settle(self, slot: Slot) -> None:
        """Wait until nothing moves: after an error, the proof that the device still works. And take the batch that
        failed out of its slot, lest what the model failed for be the padding of the next.

        :raises DeviceLost: it does not.
        """
        try:
            for stream in (self._uploads, self._model.stream, self._downloads):
                stream.synchronize()
            self._clear(slot)
            self._uploads.synchronize()
        except DeviceLost:
            raise
        except Exception as error:
            raise DeviceLost(f"{self._model.accelerator.name} fails: {error}") from error

    def __repr__(self) -> str:
        how = "captured" if self.captures else "enqueued"
        return f"<Ring of {len(self.slots)} slots, {self.free.qsize()} free, buckets {self.buckets}, {how}>"


def _no_range(name: str) -> AbstractContextManager[object]:
    return nullcontext()
