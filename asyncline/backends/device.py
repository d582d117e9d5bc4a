"""A Session whose runs go through an Accelerator: what torch, TensorRT and onnxruntime share on CUDA."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from asyncline.backends.base import Array, Session
from asyncline.engine.lanes.accelerator import Accelerator, DeviceMemory, DeviceTensor, Shape, Stream
from asyncline.errors import LoadError, OpError
from asyncline.settings import devices

MOST_SHAPES = 1024
"""Most shapes of inputs whose outputs are remembered."""

OutputTensors = dict[str, tuple[np.dtype[Any], Shape]]


class DeviceSession(Session):
    """A DeviceModel. A lane drives it by `enqueue`; `run_named` is the same run with copies around it, awaited."""

    accelerator: Accelerator
    stream: Stream
    can_capture = True

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.stream = accelerator.stream()
        self._memory: dict[str, DeviceMemory] = {}
        self._outputs: dict[tuple[tuple[str, Shape], ...], OutputTensors | None] = {}

    @abstractmethod
    def enqueue(self, inputs: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor]) -> None:
        """Put one run into `stream`; returns at once."""

    @abstractmethod
    def infer_outputs(self, shapes: Mapping[str, Shape]) -> OutputTensors | None:
        """dtype and shape of every output for inputs of `shapes`; None where they depend on the data."""

    def output_tensors(self, shapes: Mapping[str, Shape]) -> OutputTensors | None:
        key = tuple(shapes.items())
        if key not in self._outputs:
            if len(self._outputs) >= MOST_SHAPES:  # clients choose lengths that are open
                self._outputs.clear()
            self._outputs[key] = self.infer_outputs(shapes)
        return self._outputs[key]

    def run_named(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        tensors = self.output_tensors({name: array.shape for name, array in inputs.items()})
        if tensors is None:
            return self.run_eagerly(inputs)
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        sources = {name: self._tensor(f"in {name}", array.dtype, array.shape) for name, array in arrays.items()}
        targets = {name: self._tensor(f"out {name}", dtype, shape) for name, (dtype, shape) in tensors.items()}
        results = {name: np.empty(shape, dtype) for name, (dtype, shape) in tensors.items()}
        for name, array in arrays.items():
            self.stream.upload(sources[name].memory, array)
        self.enqueue(sources, targets)
        for name, result in results.items():
            self.stream.download(result, targets[name].memory)
        self.stream.synchronize()
        return results

    def run_eagerly(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """A run whose outputs have lengths that depend on the data."""
        raise OpError("the model's outputs have lengths that depend on the data, which this backend does not serve")

    def _tensor(self, key: str, dtype: np.dtype[Any], shape: Shape) -> DeviceTensor:
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        memory = self._memory.get(key)
        if memory is None or memory.nbytes < nbytes:
            self._memory.pop(key, None)  # the old goes before the new comes
            self._memory[key] = memory = self.accelerator.memory(max(nbytes, 1))
        return DeviceTensor(memory, dtype, shape)

    def close(self) -> None:
        self._memory.clear()


def cuda_index(device: str) -> int | None:
    """The number of a CUDA device, None for the CPU.

    :raises LoadError: `device` is neither `cpu`, `cuda` nor `cuda:` and a number.
    """
    try:
        (one,) = devices(device)
    except ValueError:
        raise LoadError(f"{device!r} is no device of a session: use cpu, cuda or cuda:1") from None
    return None if one == "cpu" else int(one.removeprefix("cuda:"))
