"""What the device lane knows of CUDA, as protocols, which `asyncline.backends` implements.

    Accelerator     one device: makes streams, events and memory, captures graphs
    Stream          work of the device, in order: copies, runs of a model, marks
    Event           a mark in a stream, to wait for in another stream or in a thread
    DeviceModel     a loaded model whose runs are put into its stream
    DeviceOp        an Op whose `process` only runs such a model

A lane that pipelines (three streams, a ring of slots, a thread that submits and one that completes) says, for
each batch and its slot:

    uploads.upload(slot.device_input, slot.pinned_input[:rows]);   uploads.record(slot.input_ready)
    model.stream.wait(slot.input_ready);    slot.captured[bucket].replay(model.stream)     or model.enqueue(...)
    model.stream.record(slot.computed);     downloads.wait(slot.computed)
    downloads.download(slot.pinned_output[:rows], slot.device_output);   downloads.record(slot.output_ready)
    # the other thread:  slot.output_ready.synchronize();  one loop.call_soon_threadsafe

A slot's pinned input may be written again after `input_ready`, its device input after `computed`, its device
output after `output_ready`. Nothing here calls back: Python in a CUDA callback deadlocks with the driver's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


class OutOfMemory(Exception):
    """The device has no room for this. Less may fit; what was there before is unharmed."""


class DeviceLost(Exception):
    """A sticky error: every later call to the device from this process fails too. Only a new process helps."""


class DeviceMemory(Protocol):
    """Bytes on a device, freed with the last reference to them."""

    @property
    def address(self) -> int: ...

    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True)
class DeviceTensor:
    """A tensor that begins where `memory` begins: C-contiguous."""

    memory: DeviceMemory
    dtype: np.dtype[Any]
    shape: Shape

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class Event(Protocol):
    """A mark in a stream, at first in none. `Stream.record` moves it."""

    def synchronize(self) -> None:
        """Sleep, without the GIL, until the device has passed the mark; at once where it was never recorded.

        :raises DeviceLost: something before it failed.
        """


class Stream(Protocol):
    """Work of a device, in order. Only `synchronize` waits.

    Memory and events, Any below, are of the same Accelerator. What a copy reads or writes has to stay alive, and
    untouched, until it is done.
    """

    @property
    def handle(self) -> int:
        """The `cudaStream_t`."""

    def upload(self, target: Any, source: Array) -> None:
        """Copy to the begin of `target`; `source` is C-contiguous, and pinned, or else this may wait."""

    def download(self, target: Array, source: Any) -> None:
        """Copy from the begin of `source`; `target` is C-contiguous, and pinned, or else this may wait."""

    def record(self, event: Any) -> None:
        """Mark this place."""

    def wait(self, event: Any) -> None:
        """Go on only when the place that `event` marks now has been passed."""

    def synchronize(self) -> None:
        """Sleep until all of it is done."""


class Captured(Protocol):
    """Work that was captured as one CUDA graph, with the addresses and shapes of then. For one thread."""

    def replay(self, stream: Any) -> None:
        """Put all of it into `stream`; returns at once."""


class Accelerator(Protocol):
    """One device."""

    name: str
    """`cuda:0`."""
    architecture: str
    """`sm_90`: what code has to be built for."""

    def enter(self) -> None:
        """Make it the calling thread's device: first thing in each thread that uses it."""

    def leave(self) -> None:
        """Last thing in each thread that called `enter`, after its streams, events and memory are let go."""

    def stream(self) -> Stream:
        """A new stream; none of them is the device's default stream, which would wait for all others."""

    def event(self) -> Event:
        """A new event, blocking (a wait sleeps instead of spinning) and without times."""

    def memory(self, nbytes: int) -> DeviceMemory:
        """Room on the device, aligned for any dtype, not initialised.

        :raises OutOfMemory: there is none.
        """

    def pinned(self, nbytes: int) -> Array:
        """uint8 `[nbytes]` of host memory that copies reach by DMA."""

    def register(self, memory: Array) -> None:
        """Pin memory that is there already, a mapped arena: page-aligned and not empty. Slow: once, at start.

        :raises OSError: it cannot be pinned; copies still work, slower.
        """

    def unregister(self, memory: Array) -> None:
        """Undo `register`; before the memory is unmapped."""

    def capture(self, stream: Any, work: Callable[[], None]) -> Captured:
        """Run `work` a few times to warm up, then capture what it puts into `stream`. At start only: it waits.

        Graphs of one Accelerator share their memory, so no two of them may run at once; capture the largest first.

        :raises OutOfMemory: there is no room for it.
        :raises RuntimeError: `work` cannot be captured; run it as it is.
        """


class Named(Protocol):
    """What the lane has to know of a model's input or output."""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> str:
        """A name of the Open Inference Protocol."""

    @property
    def shape(self) -> Shape:
        """-1 where the length is open; the first is the batch."""


@runtime_checkable
class DeviceModel(Protocol):
    """A loaded model whose runs are put into its stream. For the one thread that loaded it."""

    accelerator: Accelerator
    stream: Stream
    """Where its runs go: the compute stream of the lane."""
    can_capture: bool
    """Whether `enqueue` may be captured: addresses and shapes are then frozen."""
    max_batch_size: int | None
    batch_sizes: tuple[int, ...]

    @property
    def inputs(self) -> Sequence[Named]: ...

    def output_tensors(self, shapes: Mapping[str, Shape]) -> dict[str, tuple[np.dtype[Any], Shape]] | None:
        """dtype and shape of every output for inputs of `shapes`; None where they depend on the data: then use `run`.

        May run the model: at start, or the first time that shapes are seen.
        """

    def enqueue(self, inputs: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor]) -> None:
        """Put one run into `stream`; returns at once.

        :raises OutOfMemory: there is no room for what lies between the layers.
        """


@runtime_checkable
class DeviceOp(Protocol):
    """An Op whose `process` only runs its model, so that a lane may fill, run and read the batch itself."""

    model: Any

    def arrays(self, sample: Any) -> tuple[Array, ...]:
        """A sample as one row of every input of the model, in order."""

    def results(self, outputs: Mapping[str, Array], count: int) -> list[Any]:
        """What `process` would return for `count` samples, from the model's outputs."""
