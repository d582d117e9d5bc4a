"""Signature: what a remote model takes and gives. Pure: samples to requests, answers to results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from asyncline.client.base import Description, Malformed
from asyncline.errors import BadRequest, LoadError, OpError, RequestError
from asyncline.graph import fields
from asyncline.wire.oip import InferRequest, InferResponse, InferTensor, RequestedOutput, TensorMetadata
from asyncline.wire.oip.datatypes import DTYPES, Array, bf16_from_fp32, fp32_from_bf16, from_strings, strings

Sample = tuple[Array, ...]
"""One array for each input, without the batch; BF16 as FP32, BYTES as `bytes`."""


class Signature:
    """Made from what a model says of itself.

    :param outputs: the names of those that are asked for; empty: all.
    :raises LoadError: the model does not say enough of itself, or has no such output.
    """

    def __init__(self, description: Description, model: str, version: str = "", outputs: Sequence[str] = ()) -> None:
        metadata = description.metadata
        self.description = description
        self.model = model
        self.version = version
        self.inputs = tuple(_Input(tensor, description) for tensor in metadata.inputs)
        if not self.inputs:
            raise LoadError(f"remote model {model!r} does not say what its inputs are")
        known = {tensor.name: tensor for tensor in metadata.outputs}
        for name in outputs:
            if known and name not in known:
                raise LoadError(f"remote model {model!r} has no output {name!r}; it has {', '.join(known)}")
        #: Those that an answer has to have; all of them where the model does not say which there are.
        self.outputs = tuple(known.get(name) or _unknown(name) for name in outputs or known)
        for tensor in (*metadata.inputs, *self.outputs):
            if tensor.datatype and tensor.datatype not in DTYPES:
                raise LoadError(f"tensor {tensor.name!r} is {tensor.datatype}, which the protocol does not have")
        binary = description.binary
        self._requested = tuple(RequestedOutput(name, binary) for name in outputs)

    def sample(self, values: Sequence[Any]) -> Sample:
        """Check `values`, one for each input; lists become arrays, numbers are cast where none is lost.

        :raises BadRequest: a datatype or a shape is wrong; names the input.
        """
        if len(values) != len(self.inputs):
            raise BadRequest(f"remote model {self.model!r} has {len(self.inputs)} inputs, got {len(values)}")
        return tuple([each.check(value) for each, value in zip(self.inputs, values, strict=True)])

    def rows(self, values: Sequence[Any]) -> Sample:
        """The same of a batch, `[n, ...]` for each input.

        :raises BadRequest: as of `sample`; or the inputs differ in rows.
        """
        if len(values) != len(self.inputs):
            raise BadRequest(f"remote model {self.model!r} has {len(self.inputs)} inputs, got {len(values)}")
        arrays = tuple([each.check(value, is_rows=True) for each, value in zip(self.inputs, values, strict=True)])
        if len(set(map(len, arrays))) > 1:
            found = ", ".join(f"{each.name} {len(array)}" for each, array in zip(self.inputs, arrays, strict=True))
            raise BadRequest(f"the inputs have different numbers of rows: {found}")
        return arrays

    def shapes(self, sample: Sample) -> tuple[tuple[int, ...], ...]:
        """Samples with equal ones go into one request."""
        return tuple([array.shape for array in sample])

    def groups(self, samples: Iterable[tuple[int, Sample]]) -> list[list[tuple[int, Sample]]]:
        """Divide numbered samples into requests: of equal shapes, and no more rows than the model takes."""
        if not self.description.batches:
            return [[each] for each in samples]
        by_shapes: dict[Any, list[tuple[int, Sample]]] = {}
        for index, sample in samples:
            by_shapes.setdefault(self.shapes(sample), []).append((index, sample))
        groups = []
        for found in by_shapes.values():
            most = self.description.max_batch_size or len(found)
            groups += [found[start : start + most] for start in range(0, len(found), most)]
        return groups

    def request(self, samples: Sequence[Sample]) -> InferRequest:
        """One request for samples of equal shapes; for one sample only where the model takes no batches."""
        return self.request_of([self._join(column) for column in zip(*samples, strict=True)])

    def request_of(self, columns: Sequence[Array]) -> InferRequest:
        """One request for what each input gets."""
        inputs = tuple(
            InferTensor(each.name, each.datatype, each.encode(column))
            for each, column in zip(self.inputs, columns, strict=True)
        )
        return InferRequest(
            inputs,
            model_name=self.model,
            model_version=self.version,
            outputs=self._requested,
            binary_output=self.description.binary and not self._requested,
        )

    def results(self, response: InferResponse, count: int) -> list[Any]:
        """The result of each of `count` samples: an array without the batch, or a dict of several by name.

        :raises Malformed: an output is missing, of another datatype or shape, or has another number of rows.
        """
        columns = self.columns(response, count)
        if not self.description.batches:
            rows: list[Any] = [list(columns.values())]
        else:
            rows = list(zip(*columns.values(), strict=True))
        return [row[0] for row in rows] if len(columns) == 1 else [dict(zip(columns, row, strict=True)) for row in rows]

    def columns(self, response: InferResponse, count: int) -> dict[str, Array]:
        """Every output by its name, with `count` rows where the model takes batches.

        :raises Malformed: as of `results`.
        """
        found = {tensor.name: tensor for tensor in response.outputs}
        expected = self.outputs or tuple(_unknown(name) for name in found)
        if not expected:
            raise Malformed(f"remote model {self.model!r} gave no output")
        return {tensor.name: self._column(tensor, found.get(tensor.name), count) for tensor in expected}

    def _join(self, rows: Sequence[Array]) -> Array:
        if not self.description.batches:
            return rows[0]
        return rows[0][None] if len(rows) == 1 else np.stack(rows)

    def _column(self, expected: TensorMetadata, tensor: InferTensor | None, count: int) -> Array:
        """An output, checked."""
        where = f"remote model {self.model!r} output {expected.name!r}"
        if tensor is None:
            raise Malformed(f"{where} is missing")
        shape = expected.shape
        if expected.datatype:
            if self.description.batches:
                shape = (-1, *shape[1:])
            fits = len(shape) == len(tensor.shape) and all(
                length in (-1, got) for length, got in zip(shape, tensor.shape, strict=True)
            )
            if tensor.datatype != expected.datatype or not fits:
                got = f"{tensor.datatype} {list(tensor.shape)}"
                raise Malformed(f"{where}: expected {expected.datatype} {list(shape)}, got {got}")
        array = fp32_from_bf16(tensor.array) if tensor.datatype == "BF16" else tensor.array
        if self.description.batches and tensor.shape[:1] != (count,):
            raise Malformed(f"{where} has the shape {list(tensor.shape)} for {count} samples")
        return array


class _Input:
    """Checks the values of one input."""

    def __init__(self, metadata: TensorMetadata, description: Description) -> None:
        self.name = metadata.name
        self.datatype = metadata.datatype
        if metadata.datatype in ("FP16", "BF16") and not description.binary:
            raise LoadError(f"tensor {self.name!r} is {self.datatype}, but the server takes no binary tensors")
        if description.batches and not metadata.shape:
            raise LoadError(f"tensor {self.name!r} has no batch, though its model takes batches")
        row = metadata.shape[1:] if description.batches else metadata.shape
        #: The shapes of a sample, and of a batch.
        self._shapes = (row, (-1, *row))
        #: Numbers are checked as the fields of a Request are.
        datatype = "FP32" if self.datatype == "BF16" else self.datatype
        self._fields = [fields.Tensor(datatype, shape) for shape in self._shapes] if self._numeric else None

    @property
    def _numeric(self) -> bool:
        return self.datatype in DTYPES and self.datatype != "BYTES"

    def check(self, value: Any, *, is_rows: bool = False) -> Array:
        try:
            if self._fields is None:
                return self._check_strings(value, self._shapes[is_rows])
            array = self._fields[is_rows].parse(np.asarray(value) if isinstance(value, np.generic) else value)
        except RequestError as error:
            error.message = f"input {self.name!r}: {error.message}"
            raise
        return array

    def encode(self, array: Array) -> Array:
        """As it goes to the wire."""
        return bf16_from_fp32(array) if self.datatype == "BF16" else array

    def _check_strings(self, value: Any, shape: tuple[int, ...]) -> Array:
        if isinstance(value, (str, bytes)) and math.prod(shape) in (1, -1):
            lone = np.empty(1, object)
            lone[0] = value
            value = lone.reshape([1] * len(shape))
        try:
            array = np.asarray(value, object)
            array = from_strings(strings(array), array.shape)
        except (OpError, ValueError):
            raise BadRequest(f"expected strings or bytes in equal lists, got {type(value).__name__}") from None
        if array.ndim != len(shape) or any(a not in (-1, b) for a, b in zip(shape, array.shape, strict=True)):
            raise BadRequest(f"expected shape {list(shape)}, got {list(array.shape)}")
        return array


def _unknown(name: str) -> TensorMetadata:
    """An output of which the model says nothing."""
    return TensorMetadata(name, "", ())
