"""What an ONNX file says of itself, read without loading it: names, dtypes and shapes, not a single weight.

The file is protobuf: fields of a number, a wire type and a value. Only the few that matter here are looked into,
all others are jumped over, so that a file of gigabytes takes no longer than a small one. Numbers of fields are
those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from asyncline.backends.base import ModelInfo, TensorInfo, fixed_batch_size, with_batch_axis
from asyncline.errors import LoadError

DTYPES = {
    1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 8: "BYTES", 9: "BOOL",
    10: "FP16", 11: "FP64", 12: "UINT32", 13: "UINT64", 16: "BF16",
}  # fmt: skip
"""TensorProto.DataType to the names of the Open Inference Protocol."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file, looked into."""

    info: ModelInfo
    external: frozenset[str] = field(default_factory=frozenset)
    """Files beside it that hold weights, relative to it."""


def read(path: Path) -> OnnxFile:
    """Look into an ONNX file.

    :raises LoadError: it is missing, cannot be read, or is no ONNX model.
    """
    if not path.is_file():
        raise LoadError(f"there is no model file {path}")
    try:
        if not path.stat().st_size:
            raise LoadError(f"{path.name} is no ONNX model: the file is empty")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _model(_Message(mapped, 0, len(mapped)))
    except OSError as error:
        raise LoadError(f"cannot read the model file {path}: {error.strerror}") from error
    except (ValueError, IndexError) as error:
        raise LoadError(f"{path.name} is no ONNX model: {error}") from error


class _Message:
    """A protobuf message between two places of a file."""

    def __init__(self, data: mmap.mmap, start: int, end: int) -> None:
        self._data = data
        self._start = start
        self._end = end

    def fields(self) -> Iterator[tuple[int, int | _Message]]:
        """The number and the value of every varint and every submessage, string or packed field.

        :raises ValueError: this is no protobuf.
        """
        place = self._start
        while place < self._end:
            key, place = self._varint(place)
            wire = key & 7
            if wire == _VARINT:
                number, place = self._varint(place)
                yield key >> 3, number
                continue
            if wire == _BYTES:
                length, place = self._varint(place)
            elif wire in (_FIXED64, _FIXED32):
                length = 8 if wire == _FIXED64 else 4
            else:
                raise ValueError(f"byte {place} is no protobuf")
            if place + length > self._end:
                raise ValueError("it is cut off")
            if wire == _BYTES:
                yield key >> 3, _Message(self._data, place, place + length)
            place += length

    def messages(self, number: int) -> Iterator[_Message]:
        for found, value in self.fields():
            if found == number and isinstance(value, _Message):
                yield value

    def message(self, *numbers: int) -> _Message | None:
        """The first submessage along a path of field numbers."""
        found: _Message | None = self
        for number in numbers:
            found = None if found is None else next(found.messages(number), None)
        return found

    def number(self, number: int) -> int | None:
        return next((value for found, value in self.fields() if found == number and isinstance(value, int)), None)

    def text(self, number: int) -> str:
        found = self.message(number)
        return "" if found is None else self._data[found._start : found._end].decode()

    def _varint(self, place: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if place >= self._end:
                raise ValueError("it is cut off")
            byte = self._data[place]
            place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, place
        raise ValueError(f"byte {place} is no protobuf")


def _model(model: _Message) -> OnnxFile:
    graph = model.message(7)
    if graph is None:
        raise ValueError("it has no graph")
    # Up to IR version 3 weights stand among the inputs too.
    weights, external = set(), set()
    for tensor in graph.messages(5):
        weights.add(tensor.text(8))
        external |= {entry.text(2) for entry in tensor.messages(13) if entry.text(1) == "location"}
    weights |= {values.text(8) for sparse in graph.messages(15) if (values := sparse.message(1)) is not None}
    given = [value for value in graph.messages(11) if value.text(1) not in weights]
    inputs = tuple(map(_tensor, given))
    batch = next((names[0] for value in given if (names := _names(value))), None)
    outputs = tuple(with_batch_axis(_tensor(value), _names(value), batch) for value in graph.messages(12))
    if not outputs:
        raise ValueError("its graph has no output")
    metadata = {entry.text(1): entry.text(2) for entry in model.messages(14)}
    return OnnxFile(ModelInfo(inputs, outputs, metadata, fixed_batch_size(inputs)), frozenset(external))


def _tensor(value: _Message) -> TensorInfo:
    """A ValueInfoProto; what is a sequence or a map has the dtype OTHER."""
    tensor = value.message(2, 1)
    if tensor is None:
        return TensorInfo(value.text(1), "OTHER", ())
    dtype = DTYPES.get(tensor.number(1) or 0, "OTHER")
    shape = tensor.message(2)
    return TensorInfo(value.text(1), dtype, () if shape is None else tuple(map(_length, shape.messages(1))))


def _names(value: _Message) -> list[str | None]:
    """The name of each length, None where it has none."""
    shape = value.message(2, 1, 2)
    return [] if shape is None else [dimension.text(2) or None for dimension in shape.messages(1)]


def _length(dimension: _Message) -> int:
    length = dimension.number(1)
    return -1 if length is None or not 0 <= length < 2**63 else length
