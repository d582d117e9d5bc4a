"""How a Model lays batches together itself: requests that are batches, and samples that differ in length."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from asyncline.backends.base import Array, ModelInfo, Session, TensorInfo, check, stack
from asyncline.errors import BadRequest
from asyncline.graph.collate import Collate, Pad
from asyncline.graph.fields import DTYPES
from asyncline.graph.outcomes import Rows

Sample = Array | tuple[Array, ...]


class Joined(Collate):
    """A Collate that runs the model on what it has laid together."""

    @abstractmethod
    def sample(self, values: Sequence[Any]) -> Any:
        """What a request brought for the inputs, as `preprocess` returns it.

        :raises BadRequest: a dtype or a shape is wrong; names the tensor.
        """

    @abstractmethod
    def run(self, session: Session, joined: Any) -> Any:
        """The results of what `join` made, as `process` returns them."""


class JoinedRows(Joined):
    """Rows of every input, one after the other."""

    def __init__(self, inputs: Sequence[TensorInfo]) -> None:
        self._inputs = inputs

    def sample(self, values: Sequence[Any]) -> Rows:
        arrays = [info.check(value, is_rows=True) for info, value in zip(self._inputs, values, strict=True)]
        if len({len(array) for array in arrays}) > 1:
            raise BadRequest(f"the inputs have different numbers of rows: {_lengths(self._inputs, map(len, arrays))}")
        return Rows(arrays[0] if len(arrays) == 1 else tuple(arrays))

    def bucket(self, sample: Sample, *, is_rows: bool) -> Hashable:
        return tuple([array.shape[1:] for array in _columns(sample)])

    def join(self, samples: Sequence[Sample], rows: Sequence[int | None]) -> tuple[Any, ...]:
        columns = zip(*map(_columns, samples), strict=True)
        return ([column[0] if len(column) == 1 else np.concatenate(column) for column in columns],)

    def run(self, session: Session, joined: Sequence[Array]) -> Any:
        return _alone(session.run_batch({info.name: array for info, array in zip(self._inputs, joined, strict=True)}))


class JoinedPadded(Joined):
    """Samples that differ in length, filled up; their results are cut back.

    :param lengths: the name of the input that gets the true lengths, `[n]`, and comes from no request.
    :raises ValueError: the model is not one that can be padded so.
    """

    def __init__(self, pad: Pad, info: ModelInfo, lengths: str | None) -> None:
        self.inputs = tuple(each for each in info.inputs if each.name != lengths)
        self._pad = pad
        self._lengths: TensorInfo | None = None
        if lengths is not None:
            self._lengths = next((each for each in info.inputs if each.name == lengths), None)
            if self._lengths is None or len(self._lengths.shape) != 1 or self._lengths.dtype[:3] not in ("INT", "UIN"):
                raise ValueError(f"lengths {lengths!r} is no input of integers [n]")
        self._is_padded = [len(row := each.row) > pad.axis and row[pad.axis] == -1 for each in self.inputs]
        if not any(self._is_padded):
            raise ValueError(f"no input has an open length at axis {pad.axis} of a sample")
        if any(each.dtype == "BYTES" for each, padded in zip(self.inputs, self._is_padded, strict=True) if padded):
            raise ValueError("strings cannot be padded")
        if not info.outputs or not all(each.shape for each in info.outputs):
            raise ValueError("the shapes of the outputs are not known, so which lengths to cut back: give info")
        #: The axis of each output that may be as long as the batch was padded.
        self._open_axes = {each.name: each.row.index(-1) if -1 in each.row else None for each in info.outputs}

    def sample(self, values: Sequence[Any]) -> Sample:
        sample = check(self.inputs, values)
        if len(set(self._lengths_of(sample))) > 1:
            padded = [info for info, is_padded in zip(self.inputs, self._is_padded, strict=True) if is_padded]
            raise BadRequest(f"the inputs have different lengths: {_lengths(padded, self._lengths_of(sample))}")
        return sample

    def bucket(self, sample: Sample, *, is_rows: bool) -> Hashable:
        pairs = zip(_columns(sample), self._is_padded, strict=True)
        return tuple([self._pad.bucket(array, is_rows=False)[0] if padded else array.shape for array, padded in pairs])

    def join(self, samples: Sequence[Sample], rows: Sequence[int | None]) -> tuple[Any, ...]:
        columns = zip(*map(_columns, samples), strict=True)
        feeds: dict[str, Array] = {}
        for info, column, padded in zip(self.inputs, columns, self._is_padded, strict=True):
            feeds[info.name] = self._pad.join(column, rows)[0] if padded else stack(column)
        return ((feeds, [self._lengths_of(sample)[0] for sample in samples]),)

    def run(self, session: Session, joined: tuple[dict[str, Array], list[int]]) -> Any:
        feeds, lengths = joined
        if self._lengths is not None:
            feeds = {**feeds, self._lengths.name: np.array(lengths, DTYPES[self._lengths.dtype])}
        longest = next(
            feeds[info.name].shape[self._pad.axis + 1]
            for info, padded in zip(self.inputs, self._is_padded, strict=True)
            if padded
        )
        outputs = session.run_batch(feeds)
        return _alone({name: self._cut(name, output, lengths, longest) for name, output in outputs.items()})

    def _cut(self, name: str, output: Any, lengths: Sequence[int], longest: int) -> list[Any]:
        axis = self._open_axes.get(name)
        if axis is None or output.shape[axis + 1] != longest:
            return list(output)
        before = (slice(None),) * axis
        return [row[(*before, slice(length))] for row, length in zip(output, lengths, strict=True)]

    def _lengths_of(self, sample: Sample) -> list[int]:
        pairs = zip(_columns(sample), self._is_padded, strict=True)
        return [array.shape[self._pad.axis] for array, padded in pairs if padded]


def _columns(sample: Sample) -> tuple[Array, ...]:
    return sample if isinstance(sample, tuple) else (sample,)


def _alone(outputs: Mapping[str, Any]) -> Any:
    """The output, where the model has one."""
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _lengths(infos: Sequence[TensorInfo], lengths: Any) -> str:
    return ", ".join(f"{info.name} {length}" for info, length in zip(infos, lengths, strict=True))
