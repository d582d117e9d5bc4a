"""Contract of a loaded model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TensorInfo:
    """A model's input or output."""

    name: str
    dtype: str
    """A name of the Open Inference Protocol: FP32, INT64, ..."""
    shape: tuple[int, ...]
    """-1 where the length is open."""


class Session(ABC):
    """A loaded model."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    """What the model file says about itself."""

    @abstractmethod
    def run(self, batch: Array | Sequence[Array]) -> Array | list[tuple[Array, ...]]:
        """Run one batch through a model of one input.

        :param batch: `[n, ...]`, or n arrays of one shape without the leading dimension.
        :returns: `[n, ...]` where the model has one output, else n tuples, a value of each output.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the model."""
