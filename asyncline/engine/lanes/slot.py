"""Slot: where one batch of a pipelined model lies, on the host and on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncline.engine.lanes.accelerator import Accelerator, Array, Captured, DeviceTensor, Shape
from asyncline.engine.lanes.layout import Layout


@dataclass
class Run:
    """The memory of a slot as tensors of one bucket."""

    inputs: dict[str, DeviceTensor]
    outputs: dict[str, DeviceTensor]
    results: dict[str, Array]
    """The outputs in pinned memory."""
    captured: Captured | None = None


class Slot:
    """Where one batch lies: twice on the host, pinned, and twice on the device."""

    def __init__(self, accelerator: Accelerator, layout: Layout, pinned: Callable[[int], Array]) -> None:
        most = max(layout.outputs)
        self.pinned_inputs = {
            row.name: pinned(_nbytes(row.dtype, (most, *row.shape))).view(row.dtype).reshape(most, *row.shape)
            for row in layout.inputs
        }
        self.device_inputs = {
            name: accelerator.memory(max(array.nbytes, 1)) for name, array in self.pinned_inputs.items()
        }
        sizes: dict[str, int] = {}
        for tensors in layout.outputs.values():
            for name, (dtype, shape) in tensors.items():
                sizes[name] = max(sizes.get(name, 1), _nbytes(dtype, shape))
        pinned_outputs = {name: pinned(size) for name, size in sizes.items()}
        self.device_outputs = {name: accelerator.memory(size) for name, size in sizes.items()}
        self.input_ready = accelerator.event()
        self.computed = accelerator.event()
        self.output_ready = accelerator.event()
        #: By bucket.
        self.runs = {
            bucket: Run(
                {
                    row.name: DeviceTensor(self.device_inputs[row.name], row.dtype, (bucket, *row.shape))
                    for row in layout.inputs
                },
                {
                    name: DeviceTensor(self.device_outputs[name], dtype, shape)
                    for name, (dtype, shape) in tensors.items()
                },
                {
                    name: pinned_outputs[name][: _nbytes(dtype, shape)].view(dtype).reshape(shape)
                    for name, (dtype, shape) in tensors.items()
                },
            )
            for bucket, tensors in layout.outputs.items()
        }
        #: The rows of the batch that is in it, in pinned memory, by output.
        self.results: dict[str, Array] = {}


def _nbytes(dtype: np.dtype[Any], shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
