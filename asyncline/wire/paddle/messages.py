"""What is said over Paddle's wires."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asyncline.errors import BadRequest
from asyncline.wire.paddle.numbers import BadPackage
from asyncline.wire.paddle.tensors import Array, ElemType

MOST_TENSORS = 256
"""Most tensors of a message."""
TEXTS = frozenset({str})
"""To ask of many values whether all are texts takes a third of the time by their types."""
PROFILE_KEY = "pipeline.profile"
"""With which Paddle's client asks for timings."""


@dataclass(slots=True)
class PaddleTensor:
    """One array with its name.

    :param array: of STRING one-dimensional, with `str` as elements; of BF16 the bits, as uint16.
    :param elem_type: how it goes over the wire; by default what fits the array, see `ElemType.of`.
    :param lod: offsets of the sequences in it, starts then ends.
    """

    name: str
    array: Array
    elem_type: ElemType | None = None
    lod: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.elem_type is None:
            self.elem_type = ElemType.of(self.array)

    @property
    def value(self) -> Any:
        """As a hook gets it: the array, or all strings of a STRING tensor as one."""
        return "".join(self.array.reshape(-1)) if self.elem_type is ElemType.STRING else self.array

    @property
    def shape(self) -> list[int]:
        return list(self.array.shape)


@dataclass(slots=True)
class PipelineRequest:
    """A request: values by key, or tensors.

    :param name: of the service; empty where the client did not say.
    :param method: is said, and never checked.
    :param logid: the caller's id; 0 is none.
    """

    name: str = ""
    method: str = ""
    key: list[str] = field(default_factory=list)
    value: list[str] = field(default_factory=list)
    logid: int = 0
    clientip: str = ""
    tensors: list[PaddleTensor] = field(default_factory=list)

    def values(self) -> dict[str, Any]:
        """Strings by key and arrays by tensor name; the last of two with one name counts. The offsets of tensor
        `x` are `x.lod`, an int32 array of shape [2, n].

        :raises BadPackage: a key has no value, or offsets no pairs.
        """
        if len(self.value) < len(self.key):
            raise BadPackage(f"{len(self.key)} keys, but {len(self.value)} values")
        values: dict[str, Any] = dict(zip(self.key, self.value))  # noqa: B905  # to say so takes as long as all else
        for tensor in self.tensors:
            values[tensor.name] = tensor.value
            if tensor.lod:
                if len(tensor.lod) % 2:
                    raise BadPackage(f"tensor {tensor.name[:64]!r}: {len(tensor.lod)} offsets are no starts and ends")
                values[f"{tensor.name}.lod"] = np.array(tensor.lod, np.int32).reshape(2, -1)
        return values


@dataclass(slots=True)
class PipelineResponse:
    """An answer: values by key, and where `err_no` is not 0, why there are none."""

    err_no: int = 0
    err_msg: str = ""
    key: list[str] = field(default_factory=list)
    value: list[str] = field(default_factory=list)
    tensors: list[PaddleTensor] = field(default_factory=list)


def check_count(tensors: Any) -> None:
    """:raises BadRequest: there are too many."""
    if len(tensors) > MOST_TENSORS:
        raise BadRequest(f"{len(tensors)} tensors are over the limit of {MOST_TENSORS}")
