"""Layout: the dtypes and shapes of a model's batches, where they are known before the first request.

A batch is padded to the next of a few sizes, its bucket; each has its memory, and its CUDA graphs, from the start.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncline.engine.lanes.accelerator import Array, DeviceLost, DeviceModel, Shape
from asyncline.graph.fields import DTYPES
from asyncline.graph.op import Op, is_async

log = logging.getLogger("asyncline.engine")

Tensors = Mapping[str, tuple[np.dtype[Any], Shape]]


class NoLayout(Exception):
    """Expected error: what batches of this model look like is not known before they run. Says why."""


@dataclass(frozen=True)
class Row:
    """One sample of an input."""

    name: str
    dtype: np.dtype[Any]
    shape: Shape


@dataclass(frozen=True)
class Layout:
    inputs: tuple[Row, ...]
    """In the model's order."""
    outputs: Mapping[int, Tensors]
    """By bucket, ascending: dtype and shape of every output, its first length the bucket's rows."""

    def fits(self, arrays: Sequence[Array]) -> bool:
        """Whether a sample, one row of every input, has these dtypes and shapes."""
        return len(arrays) == len(self.inputs) and all(
            array.shape == row.shape and array.dtype == row.dtype
            for row, array in zip(self.inputs, arrays, strict=True)
        )


def bucket_sizes(most: int, preferred: Iterable[int] = ()) -> tuple[int, ...]:
    """Rows of the buckets for batches of up to `most`, ascending: 1, 2, 3, 4, 6, 8, 12, 16, 24 and so on, `preferred`
    and `most`. Less than a third of a bucket is padding."""
    sizes = {1, most, *(size for size in preferred if 0 < size <= most)}
    power = 2
    while power < most:
        sizes |= {power, min(power + power // 2, most)}
        power *= 2
    return tuple(sorted(sizes))


def next_bucket(sizes: Sequence[int], count: int) -> int | None:
    """The smallest of ascending `sizes` with room for `count` rows; None where there is none."""
    place = bisect_left(sizes, count)
    return sizes[place] if place < len(sizes) else None


def find_layout(op: Op, model: DeviceModel, most: int) -> Layout:
    """The Layout of batches of up to `most` rows, or of as many as the model takes.

    Sizes that the model refuses are left out. May run it. In the thread that loaded it.

    :param op: a DeviceOp, with that model.
    :raises NoLayout: there is none.
    :raises DeviceLost: the device was lost meanwhile.
    """
    inputs = _input_rows(op, model)
    outputs: dict[int, Tensors] = {}
    for bucket in _sizes(model, most):
        try:
            tensors = model.output_tensors({row.name: (bucket, *row.shape) for row in inputs})
        except DeviceLost:
            raise
        except Exception as error:  # of any backend: a profile without that size, no room for it
            log.warning("op %r: its model does not run %d rows: %s", op.name, bucket, error)
            continue
        if tensors is None:
            raise NoLayout("the outputs have lengths that depend on the data")
        for name, (_, shape) in tensors.items():
            if shape[:1] != (bucket,):
                raise NoLayout(f"output {name!r} is {list(shape)} for a batch of {bucket}")
        outputs[bucket] = tensors
    if not outputs:
        raise NoLayout("the model runs no size of batch")
    return Layout(inputs, outputs)


def _sizes(model: DeviceModel, most: int) -> tuple[int, ...]:
    fixed = max((info.shape[0] for info in model.inputs if info.shape), default=-1)
    if fixed > 0:
        return (fixed,)  # the one size that it knows
    return bucket_sizes(min(most, model.max_batch_size or most), model.batch_sizes)


def _input_rows(op: Op, model: DeviceModel) -> tuple[Row, ...]:
    """From what the model says of its inputs, or else from the Op's example."""
    for info in model.inputs:
        if info.dtype == "BYTES":
            raise NoLayout(f"input {info.name!r} is of strings")
    if all(info.dtype in DTYPES and info.shape and -1 not in info.shape[1:] for info in model.inputs):
        return tuple(Row(info.name, np.dtype(DTYPES[info.dtype]), info.shape[1:]) for info in model.inputs)
    arrays = _example_rows(op)
    if len(arrays) != len(model.inputs):
        raise NoLayout(f"its example makes {len(arrays)} arrays, for {len(model.inputs)} inputs")
    return tuple(Row(info.name, array.dtype, array.shape) for info, array in zip(model.inputs, arrays, strict=True))


def _example_rows(op: Op) -> tuple[Array, ...]:
    example, preprocess = op.hook("example"), op.hook("preprocess")
    if example is None or is_async(preprocess):
        raise NoLayout("an input has open lengths, and there is no example of one")
    try:
        value = example()
        if preprocess is not None:
            value = preprocess(*(value if len(op.inputs) > 1 else (value,)))
        arrays: tuple[Array, ...] = op.hook("arrays")(value)  # type: ignore[misc]  # a DeviceOp has it
        return arrays
    except Exception as error:  # hooks are the user's code
        raise NoLayout(f"an input has open lengths, and its example fails: {type(error).__name__}: {error}") from error
