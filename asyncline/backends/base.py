"""Contract of a loaded model, and what a model says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from asyncline.errors import LoadError, OpError, RequestError
from asyncline.graph.fields import DTYPES, Tensor

Array = np.ndarray[Any, Any]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True)
class TensorInfo:
    """A model's input or output."""

    name: str
    dtype: str
    """A name of the Open Inference Protocol: FP32, INT64, ..."""
    shape: tuple[int, ...]
    """-1 where the length is open; the first is the batch. `()` where the model does not say."""
    batch_axis: int = 0
    """Of an output: where the batch lies, if the model says that it is not the first."""

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.shape[1:]

    @cached_property
    def field(self) -> Tensor:
        """The field of a Request that takes one sample."""
        return self._field(self.row)

    @cached_property
    def rows_field(self) -> Tensor:
        """The field of a Request that takes a batch, `[n, ...]`."""
        return self._field((-1, *self.row))

    def _field(self, shape: tuple[int, ...]) -> Tensor:
        """A field of a Request.

        :raises LoadError: numpy has no such dtype, or there is no batch to be part of.
        """
        if self.dtype not in DTYPES:
            raise LoadError(f"tensor {self.name!r} is {self.dtype or 'of unknown dtype'}, which no request can carry")
        if not self.shape:
            raise LoadError(f"tensor {self.name!r} has no batch: its first length has to be one")
        return Tensor(self.dtype, shape)

    def check(self, value: Any, *, is_rows: bool = False) -> Array:
        """One sample, or a batch of them, as an array that the model takes: nested lists are converted, numbers cast
        where none is lost.

        :raises BadRequest: its dtype or shape is wrong; names the tensor.
        """
        field = self.rows_field if is_rows else self.field
        try:
            return field.parse(np.asarray(value) if isinstance(value, np.generic) else value)
        except RequestError as error:
            error.message = f"tensor {self.name!r}: {error.message}"
            raise


@dataclass(frozen=True)
class ModelInfo:
    """What a model says of itself, known without loading it."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    max_batch_size: int | None = None
    """Most rows of a run, where the model has such a limit."""

    @property
    def fixed_batch_size(self) -> int | None:
        """The rows of every run, where the model knows one size only."""
        return fixed_batch_size(self.inputs)


def with_batch_axis(info: TensorInfo, lengths: Sequence[object], batch: object) -> TensorInfo:
    """An output as it is, or with the axis of its batch where that is another than the first.

    :param lengths: of the output: numbers, or the names of open ones.
    :param batch: the name of the length that the inputs' batch has; None where it has none.
    """
    if batch is None or batch not in lengths or lengths[0] == batch:
        return info
    return replace(info, batch_axis=lengths.index(batch))


def misplaced(outputs: Sequence[TensorInfo]) -> str | None:
    """What is wrong with an output whose rows are not those of the samples, however many there are by chance."""
    for info in outputs:
        if info.batch_axis:
            return f"output {info.name!r} has its batch at axis {info.batch_axis}: the model has to give it first"
    return None


def fixed_batch_size(inputs: Sequence[TensorInfo]) -> int | None:
    return max((info.shape[0] for info in inputs if info.shape and info.shape[0] > 0), default=None)


def check(inputs: Sequence[TensorInfo], values: Sequence[Any]) -> Array | tuple[Array, ...]:
    """The sample that `values`, one for each input, make: an array, or a tuple of them where there are several.

    :raises BadRequest: a dtype or a shape is wrong; names the tensor.
    """
    if len(inputs) == 1:
        return inputs[0].check(values[0])
    return tuple(info.check(value) for info, value in zip(inputs, values, strict=True))


class Session(ABC):
    """A loaded model. Made, run and closed in one thread."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...] = ()
    """Empty where they are not known before the first run."""
    metadata: Mapping[str, str]
    """What the model file says about itself."""
    max_batch_size: int | None = None
    """Most rows of a run; None where there is no such limit."""
    batch_sizes: tuple[int, ...] = ()
    """Sizes that run better than others, ascending; empty where all are alike."""
    says_batch_axis = True
    """Whether the model says where its outputs have the batch. Where it does not, its first batch of several rows runs
    twice, the second time without its last row: a length that is theirs by chance stays as it was."""

    @abstractmethod
    def run_named(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model on full batches, `[n, ...]` of every input, exactly as they are.

        The arrays that come back are the caller's, unless the model hands an input through.

        :raises OutOfMemory: there was no room for a run of that size.
        :raises DeviceLost: the device is of no more use to this process.
        """

    def run(self, batch: Array | Sequence[Any]) -> Any:
        """Run samples.

        :param batch: as of `run_rows`.
        :returns: `[n, ...]` where the model has one output, else n tuples in the order of `outputs`.
        :raises OpError: as of `run_rows`.
        """
        columns = tuple(self.run_rows(batch).values())
        return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))

    def run_rows(self, batch: Array | Sequence[Any]) -> dict[str, Array]:
        """Run samples; every output comes back by name, with one row for each sample.

        :param batch: n samples of equal shapes, each an array without the leading dimension, or a tuple of arrays
            in the order of `inputs`; or, for a model of one input, `[n, ...]`. More than `max_batch_size` run in
            turns; fewer than the one size that a model may know are filled up.
        :raises OpError: the model gave another number of rows than n, or has the batch of an output elsewhere: whose
            they are cannot be told.
        """
        inputs = self.inputs
        if isinstance(batch, np.ndarray):
            return self.run_batch({inputs[0].name: batch})
        if len(inputs) == 1:
            return self.run_batch({inputs[0].name: stack(batch)})
        columns = zip(*batch, strict=True)
        return self.run_batch({info.name: stack(column) for info, column in zip(inputs, columns, strict=True)})

    def run_batch(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The same for a batch that lies together already, `[n, ...]` of every input, by name."""
        count, most = len(next(iter(feeds.values()))), self.max_batch_size
        if most is None or count <= most:
            return self._run_once(feeds, count)
        places = [slice(start, start + most) for start in range(0, count, most)]
        parts = [self.run_batch({name: feed[place] for name, feed in feeds.items()}) for place in places]
        return {name: _joined([part[name] for part in parts]) for name in parts[0]}

    def _run_once(self, feeds: Mapping[str, Array], count: int) -> dict[str, Array]:
        size = self._fixed_batch_size
        if self._misplaced is not None:
            raise OpError(self._misplaced)
        if size is None or size == count:
            outputs = self.run_named(feeds)
        else:
            # The last row again: unlike zeros, a value that the model surely takes.
            outputs = self.run_named({n: np.concatenate([f, f[-1:].repeat(size - count, 0)]) for n, f in feeds.items()})
        for name, output in outputs.items():
            rows = _rows(output)
            if rows != (size or count):
                raise OpError(f"output {name!r} has {rows} rows for a batch of {size or count}")
        if size is None and count > 1 and not self.says_batch_axis:
            self._find_batch_axis(feeds, count - 1)
        return outputs if size in (None, count) else {name: output[:count] for name, output in outputs.items()}

    def _find_batch_axis(self, feeds: Mapping[str, Array], count: int) -> None:
        for name, output in self.run_named({name: feed[:count] for name, feed in feeds.items()}).items():
            if _rows(output) != count:
                self._misplaced = f"output {name!r} does not have the batch first: {count + 1} rows are its by chance"
                raise OpError(self._misplaced)
        self.says_batch_axis = True

    @cached_property
    def _fixed_batch_size(self) -> int | None:
        return fixed_batch_size(self.inputs)

    @cached_property
    def _misplaced(self) -> str | None:
        return misplaced(self.outputs)

    def warmup(self, sizes: Sequence[int] = (1,), example: Any = None) -> None:
        """Run batches of `sizes` rows, so that no request pays for what the first run of a size does.

        :param example: a sample; by default zeros.
        :raises LoadError: zeros will not do, because an input has open lengths beside the batch.
        """
        sample = check(self.inputs, [zeros(info) for info in self.inputs]) if example is None else example
        for size in sizes:
            self.run([sample] * size)

    @abstractmethod
    def close(self) -> None:
        """Let go of the model."""


def stack(rows: Sequence[Array]) -> Array:
    """`[n, ...]` of n arrays of one shape; a lone one is not copied."""
    # np.stack takes three times as long for small rows.
    return rows[0][None] if len(rows) == 1 else np.array(rows)


def _rows(output: Any) -> int:
    # A scalar has none; what is no array (onnxruntime's sequences) is a list.
    shape = getattr(output, "shape", None)
    return len(output) if shape is None else shape[0] if shape else 0


def _joined(parts: Sequence[Any]) -> Any:
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [row for part in parts for row in part]


def zeros(info: TensorInfo) -> Array:
    """A sample of zeros.

    :raises LoadError: the input has open lengths beside the batch.
    """
    if not info.shape or -1 in info.row:
        raise LoadError(f"tensor {info.name!r} has open lengths, {list(info.shape)}: give an example to warm up with")
    return np.full(info.row, "", object) if info.dtype == "BYTES" else np.zeros(info.row, DTYPES.get(info.dtype))
