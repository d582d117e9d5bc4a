"""Theirs: the fastest loop around a CUDA graph that torch allows, with no Python for an image.

Three streams and three slots of pinned memory; the images lie there from the start. Not run on a device yet.
"""

import time
from typing import Any

import numpy as np
import torch

SLOTS = 3
WARM_UPS = 3

Array = np.ndarray[Any, Any]


class RawSlot:
    """Memory and marks of one batch in flight, and the graph that runs there."""

    def __init__(self, module: torch.nn.Module, images: Array, compute: torch.cuda.Stream) -> None:
        device = compute.device
        self.pinned_input = torch.empty(images.shape, dtype=torch.uint8, pin_memory=True)
        self.pinned_input.numpy()[:] = images
        self.input = self.pinned_input.to(device)
        self.input_ready, self.computed, self.output_ready = (torch.cuda.Event(blocking=True) for _ in range(3))
        torch.cuda.synchronize(device)
        with torch.cuda.stream(compute), torch.inference_mode():
            for _ in range(WARM_UPS):
                output = module(self.input).float()
            compute.synchronize()
            self.output = torch.empty_like(output)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=compute, capture_error_mode="thread_local"):
                self.output.copy_(module(self.input))
        self.pinned_output = torch.empty(self.output.shape, dtype=self.output.dtype, pin_memory=True)


class RawLoop:
    """Batches of always the same images, one after the other.

    :param module: on the device, in the dtype to measure; takes and returns one tensor.
    :param images: uint8 `[batch, ...]`.
    """

    def __init__(self, module: torch.nn.Module, images: Array) -> None:
        device = next(module.parameters()).device
        self._uploads, self._compute, self._downloads = (torch.cuda.Stream(device) for _ in range(3))
        self._slots = [RawSlot(module, images, self._compute) for _ in range(SLOTS)]

    def seconds(self, batches: int) -> float:
        """How long so many take, copies and all, in seconds for each."""
        began = time.perf_counter()
        for number in range(batches):
            slot = self._slots[number % SLOTS]
            if number >= SLOTS:
                slot.output_ready.synchronize()
            with torch.cuda.stream(self._uploads):
                slot.input.copy_(slot.pinned_input, non_blocking=True)
            slot.input_ready.record(self._uploads)
            self._compute.wait_event(slot.input_ready)
            with torch.cuda.stream(self._compute):
                slot.graph.replay()
            slot.computed.record(self._compute)
            self._downloads.wait_event(slot.computed)
            with torch.cuda.stream(self._downloads):
                slot.pinned_output.copy_(slot.output, non_blocking=True)
            slot.output_ready.record(self._downloads)
        self._downloads.synchronize()
        return (time.perf_counter() - began) / batches

    def seconds_without_copies(self, batches: int) -> float:
        """The same with nothing but the runs."""
        began = time.perf_counter()
        for number in range(batches):
            slot = self._slots[number % SLOTS]
            if number >= SLOTS:
                slot.computed.synchronize()
            with torch.cuda.stream(self._compute):
                slot.graph.replay()
            slot.computed.record(self._compute)
        self._compute.synchronize()
        return (time.perf_counter() - began) / batches

    def outputs(self) -> Array:
        """What the last batch came to, float32 `[batch, ...]`; after `seconds`."""
        copied: Array = self._slots[0].pinned_output.numpy().copy()
        return copied
