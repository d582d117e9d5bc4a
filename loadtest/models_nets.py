"""Two small nets with random weights, the same in ONNX and in torch: one of convolutions, and a dense one."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncline.backends import ModelInfo, TensorInfo

Array = np.ndarray[Any, Any]

SIDE = 224
"""Of an image, in pixels. Between the first layers of a batch of 8 lie 51 MB then: more than glibc keeps when freed."""
CONVOLUTIONS = ((3, 32, 1), (32, 32, 2), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 256, 2))
"""Channels in, channels out, and the stride."""
KERNEL = 3
CLASSES = 10
WIDTH, DEPTH = 256, 6
"""Of the dense net."""

INPUT, OUTPUT = "x", "y"


@dataclass(frozen=True)
class Net:
    """Convolutions, the mean of each channel, dense layers; a rectifier behind each but the last of all."""

    row: tuple[int, ...]
    """Shape of a sample, float32."""
    convolutions: tuple[tuple[Array, Array, int], ...]
    """`[out, in, KERNEL, KERNEL]`, `[out]` and the stride."""
    dense: tuple[tuple[Array, Array], ...]
    """`[out, in]` and `[out]`."""

    @property
    def info(self) -> ModelInfo:
        """What its ONNX file says of it, and its torch Module cannot."""
        classes = self.dense[-1][1].size
        return ModelInfo((TensorInfo(INPUT, "FP32", (-1, *self.row)),), (TensorInfo(OUTPUT, "FP32", (-1, classes)),))

    def samples(self, count: int) -> list[Array]:
        rng = np.random.default_rng(1)
        return [rng.standard_normal(self.row, np.float32) for _ in range(count)]


def conv_net() -> Net:
    """Of six convolutions and one dense layer."""
    rng = np.random.default_rng(0)
    convolutions = tuple((*_weights(rng, o, i, KERNEL, KERNEL), stride) for i, o, stride in CONVOLUTIONS)
    return Net((3, SIDE, SIDE), convolutions, (_weights(rng, CLASSES, CONVOLUTIONS[-1][1]),))


def dense_net() -> Net:
    """Of DEPTH layers of WIDTH."""
    rng = np.random.default_rng(0)
    return Net((WIDTH,), (), tuple(_weights(rng, WIDTH, WIDTH) for _ in range(DEPTH)))


def _weights(rng: np.random.Generator, *shape: int) -> tuple[Array, Array]:
    """Weights of a layer and its biases, such that values neither vanish nor grow (He et al. 2015)."""
    spread = np.sqrt(2 / np.prod(shape[1:]))
    weights = rng.standard_normal(shape, np.float32) * np.float32(spread)
    return weights, rng.standard_normal(shape[0], np.float32) / 10
