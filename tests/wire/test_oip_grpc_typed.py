"""Long typed contents of the Open Inference Protocol's gRPC requests, which do not become objects one by one."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncline import BadRequest
from asyncline.errors import TooLarge
from asyncline.wire import protobuf
from asyncline.wire.oip import InferTensor, grpc
from asyncline.wire.oip.datatypes import DTYPES, MOST_STRINGS
from asyncline.wire.oip.schema import message
from asyncline.wire.weight import Scale
from tests.wire.tensors import same, tensors, untimed
from tests.wire.test_oip_grpc import TYPED, typed

NUMBERS = tuple(name for name in TYPED if name != "BYTES")
SIZE = 100_000


def packed(datatype: str, field: str, data: bytes, size: int) -> bytes:
    """A request of one input, whose contents are `data` as they stand."""
    number = next(number for number, name in grpc._FIELDS.items() if name == field)
    found = message("ModelInferRequest")()
    found.inputs.add(name="x", datatype=datatype, shape=[size])
    tensor = protobuf.join(found.inputs[0].SerializeToString(), 5, [protobuf.join(b"", number, [data])])
    return protobuf.join(b"", 5, [tensor])


@pytest.fixture
def all_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc, "MANY_NBYTES", 0)


@pytest.mark.usefixtures("all_are_long")
@untimed
@given(tensors(TYPED), tensors(TYPED))
def test_typed_contents_are_read_the_same(one: InferTensor, other: InferTensor) -> None:
    found = typed(one)
    found.MergeFrom(typed(other))
    found.inputs[1].name = one.name + "2"
    read = grpc.decode_request(found.SerializeToString(), Scale(10**9)).inputs
    assert same(read[0], InferTensor(one.name, one.datatype, one.array))
    assert same(read[1], InferTensor(one.name + "2", other.datatype, other.array))


@pytest.mark.parametrize("datatype", NUMBERS)
def test_many_numbers_of_any_length_are_read(datatype: str) -> None:
    dtype = DTYPES[datatype]
    random = np.random.default_rng(1)
    array = np.frombuffer(random.bytes(SIZE * dtype.itemsize), dtype)
    if dtype.kind in "iu":
        array = array >> random.integers(0, 8 * dtype.itemsize, SIZE).astype(dtype)  # short ones among them
    elif dtype.kind == "b":
        array = random.integers(0, 2, SIZE).astype(bool)
    else:
        array = np.nan_to_num(array)
    tensor = InferTensor("x", datatype, array.reshape(100, -1))
    (found,) = grpc.decode_request(typed(tensor).SerializeToString()).inputs
    assert same(found, tensor)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_numbers_are_those_that_were_written(numbers: list[int]) -> None:
    data = b"".join(map(protobuf._varint, numbers))
    assert protobuf.count_varints(memoryview(data)) == len(numbers)
    found = np.concatenate(list(protobuf.varints(memoryview(data)))).view(np.uint64)
    assert found.tolist() == numbers


def test_numbers_that_are_not_packed_are_read() -> None:
    one = bytes((3 << 3, 7))  # the fields of int64_contents, each by itself
    contents = one * 3000
    found = message("ModelInferRequest")()
    found.inputs.add(name="x", datatype="INT64", shape=[3000])
    tensor = protobuf.join(found.inputs[0].SerializeToString(), 5, [contents])
    (read,) = grpc.decode_request(protobuf.join(b"", 5, [tensor])).inputs
    assert read.array.tolist() == [7] * 3000


def test_of_numbers_there_is_one_array_and_no_object_each() -> None:
    array = np.arange(SIZE, dtype=np.int64)
    data = typed(InferTensor("x", "INT64", array)).SerializeToString()
    grpc.decode_request(data)
    tracemalloc.start()
    try:
        grpc.decode_request(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(data) * 2 + array.nbytes + 4 * 2**20


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (packed("INT32", "int_contents", b"\x01" * 5000, 5001), "is 5001 elements, got 5000"),
        (packed("INT32", "int_contents", b"\x01" * 5000 + b"\x81", 5000), "is cut off"),
        (packed("INT32", "int_contents", b"\x81" * 11 + b"\x01" * 5000, 5000), "is too long"),
        (packed("INT8", "int_contents", b"\x81\x01" * 5000, 5000), "out of the range of INT8"),
        (packed("INT8", "uint_contents", b"\x01" * 5000, 5000), "INT8 has int_contents, got uint_contents"),
        (packed("FP16", "fp32_contents", b"\x01" * 5000, 1250), "FP16 has no typed contents"),
        (packed("FP32", "fp32_contents", b"\x01" * 5001, 1250), "is cut off"),
        (packed("FP32", "fp32_contents", b"\x01" * 5000, 1251), "is 1251 elements, got 1250"),
        (packed("FP32", "fp64_contents", b"\x01" * 5000, 625), "FP32 has fp32_contents, got fp64_contents"),
        (packed("FP32", "bytes_contents", b"\x01" * 5000, 1), "FP32 has fp32_contents, got bytes_contents"),
    ],
)
def test_numbers_that_do_not_fit_say_what_is_wrong(data: bytes, words: str) -> None:
    with pytest.raises(BadRequest) as error:
        grpc.decode_request(data)
    assert words in error.value.message and "input 'x'" in error.value.message


def test_typed_contents_beside_raw_ones_are_refused() -> None:
    found = typed(InferTensor("x", "INT64", np.arange(SIZE)))
    found.raw_input_contents.append(b"")
    with pytest.raises(BadRequest, match="input 'x': has both raw and typed contents"):
        grpc.decode_request(found.SerializeToString())


def test_an_input_without_data_is_refused_however_long_its_name() -> None:
    found = message("ModelInferRequest")()
    found.inputs.add(name="x" * 5000, datatype="FP32", shape=[1]).contents.SetInParent()
    with pytest.raises(BadRequest, match="is 1 elements, got none"):
        grpc.decode_request(found.SerializeToString())


def with_parameters(target: str) -> Any:
    found = message("ModelInferRequest")()
    found.inputs.add(name="x", datatype="FP32", shape=[0])
    found.outputs.add(name="y")
    where = {"": found, "input": found.inputs[0], "output": found.outputs[0]}[target].parameters
    for number in range(4000):
        where[f"{number:040}"].bool_param = True
    return found


@pytest.mark.parametrize("target", ["", "input", "output"])
def test_names_shapes_and_parameters_have_a_limit_together(target: str) -> None:
    with pytest.raises(TooLarge, match="bytes of names, shapes and parameters are over the limit of 131072"):
        grpc.decode_request(with_parameters(target).SerializeToString())


def test_a_shape_has_a_limit_before_it_is_read() -> None:
    found = message("ModelInferRequest")()
    found.inputs.add(name="x", datatype="FP32", shape=[1] * 2**18)
    with pytest.raises(TooLarge, match="names, shapes and parameters are over the limit"):
        grpc.decode_request(found.SerializeToString())


def test_strings_have_a_limit_before_they_are_read() -> None:
    found = message("ModelInferRequest")()
    found.inputs.add(name="x", datatype="BYTES", shape=[1]).contents.bytes_contents.extend([b""] * (MOST_STRINGS + 1))
    data = found.SerializeToString()
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest, match=f"more than {MOST_STRINGS} fields"):
            grpc.decode_request(data)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data)
    finally:
        tracemalloc.stop()


def test_typed_contents_are_weighed() -> None:
    for tensor in (InferTensor("x", "INT64", np.zeros(SIZE, np.int64)), InferTensor("x", "BYTES", strings())):
        data = typed(tensor).SerializeToString()
        scale = Scale(10**9)
        grpc.decode_request(data, scale)
        assert scale.nbytes >= 8 * SIZE
        with pytest.raises(TooLarge, match="decoded, the lists"):
            grpc.decode_request(data, Scale(scale.nbytes - 1))


def strings() -> Any:
    array = np.empty(SIZE, object)
    array[:] = [b"x"] * SIZE
    return array
