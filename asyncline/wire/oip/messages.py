"""What is said in the Open Inference Protocol, whatever the wire."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from asyncline.errors import BadRequest, RequestError
from asyncline.wire.oip.datatypes import Array

Parameters = Mapping[str, Any]
"""Values are bool, int, float or str; by REST any JSON."""

MOST_TENSORS = 1024
"""Most inputs, and most outputs, of one message."""

_T = TypeVar("_T", bound="InferTensor | RequestedOutput | TensorMetadata")


@dataclass(frozen=True, eq=False)
class InferTensor:
    """An input with its values, or an output."""

    name: str
    datatype: str
    """`FP32`, `BYTES`, ..."""
    array: Array
    """Of the datatype and the shape; see `datatypes.py` for BF16 and BYTES."""
    parameters: Parameters = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.array.shape
        return shape

    def __repr__(self) -> str:
        return f"<InferTensor {self.name!r} {self.datatype} {list(self.shape)}>"


@dataclass(frozen=True)
class RequestedOutput:
    """An output that a client asks for."""

    name: str
    binary: bool | None = None
    """Whether as raw bytes, by REST; None: as the request says for all."""
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class InferRequest:
    """One inference. By REST, the names of the model and its version stand in the path."""

    inputs: tuple[InferTensor, ...]
    model_name: str = ""
    model_version: str = ""
    """Empty: the server chooses."""
    id: str = ""
    outputs: tuple[RequestedOutput, ...] = ()
    """Empty: all."""
    binary_output: bool = False
    """Whether outputs are asked for as raw bytes, by REST, where they do not say themselves."""
    parameters: Parameters = field(default_factory=dict)

    def wants_binary(self, name: str) -> bool:
        """Whether output `name` is asked for as raw bytes."""
        asked = next((output.binary for output in self.outputs if output.name == name), None)
        return self.binary_output if asked is None else asked


@dataclass(frozen=True)
class InferResponse:
    """The answer to an InferRequest."""

    outputs: tuple[InferTensor, ...]
    model_name: str = ""
    model_version: str = ""
    id: str = ""
    """That of the request."""
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class TensorMetadata:
    """What a model says of an input or an output."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """-1 is any length; where the model takes batches, the first is the batch."""


@dataclass(frozen=True)
class ModelMetadata:
    """What a model says of itself."""

    name: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    versions: tuple[str, ...] = ()
    platform: str = ""


@dataclass(frozen=True)
class ServerMetadata:
    """What a server says of itself."""

    name: str
    version: str = ""
    extensions: tuple[str, ...] = ()


@contextmanager
def of(kind: str, name: str) -> Iterator[None]:
    """Name the tensor in the message of an error: `input 'x': ...`."""
    try:
        yield
    except RequestError as error:
        error.message = f"{kind} {name!r}: {error.message}"
        raise


def check_count(kind: str, tensors: Sequence[Any]) -> None:
    """:raises BadRequest: there are too many."""
    if len(tensors) > MOST_TENSORS:
        raise BadRequest(f"{len(tensors)} {kind}s are over the limit of {MOST_TENSORS}")


def unique(kind: str, tensors: Iterable[_T]) -> tuple[_T, ...]:
    """:raises BadRequest: a name is there twice."""
    found: dict[str, _T] = {}
    for tensor in tensors:
        if found.setdefault(tensor.name, tensor) is not tensor:
            raise BadRequest(f"{kind} {tensor.name!r} is there twice")
    return tuple(found.values())
