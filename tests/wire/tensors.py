"""Tensors of every datatype, made by hypothesis, and what it means that two are equal."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, from_dtype

from asyncline.wire.oip import InferTensor, RequestedOutput
from asyncline.wire.oip.datatypes import DTYPES

untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How long an example takes is the machine's affair."""

NAMES = st.text(min_size=1, max_size=5).filter(lambda name: not name.startswith("shared_memory_"))
SHAPES = st.just(()) | array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=3)
PARAMETERS = st.dictionaries(
    NAMES,
    st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    max_size=2,
)


@st.composite
def tensors(draw: st.DrawFn, datatypes: tuple[str, ...] = tuple(DTYPES), text: bool = False) -> InferTensor:
    """A tensor.

    :param text: its BYTES are UTF-8 and its floats are numbers, as JSON has them.
    """
    datatype = draw(st.sampled_from(datatypes))
    shape = draw(SHAPES)
    if datatype == "BYTES":
        size = int(np.prod(shape))
        words = st.text(max_size=4).map(str.encode) if text else st.binary(max_size=4)
        array = np.empty(size, object)
        array[:] = draw(st.lists(words, min_size=size, max_size=size))
        array = array.reshape(shape)
    else:
        elements = from_dtype(DTYPES[datatype], allow_nan=not text, allow_infinity=not text)
        array = draw(arrays(DTYPES[datatype], shape, elements=elements))
    return InferTensor(draw(NAMES), datatype, array, draw(PARAMETERS))


@st.composite
def many(draw: st.DrawFn, **kwargs: Any) -> tuple[InferTensor, ...]:
    """Tensors of different names."""
    found = draw(st.lists(tensors(**kwargs), max_size=4, unique_by=lambda tensor: tensor.name))
    return tuple(found)


OUTPUTS = st.lists(
    st.builds(RequestedOutput, NAMES, st.none() | st.booleans(), PARAMETERS), max_size=3, unique_by=lambda o: o.name
).map(tuple)


def same(one: InferTensor, other: InferTensor) -> bool:
    """Equal to the last bit: NaN with the same NaN, and -0.0 not with 0.0."""
    if (one.name, one.datatype, one.shape, dict(one.parameters)) != (
        other.name, other.datatype, other.shape, dict(other.parameters)
    ):  # fmt: skip
        return False
    if one.datatype == "BYTES":
        return bool(one.array.tolist() == other.array.tolist())
    return one.array.dtype == other.array.dtype and one.array.tobytes() == other.array.tobytes()


def all_same(some: tuple[InferTensor, ...], others: tuple[InferTensor, ...]) -> bool:
    return len(some) == len(others) and all(map(same, some, others))


def bytes_array(*elements: Any) -> np.ndarray[Any, Any]:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array
