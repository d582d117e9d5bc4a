"""Messages of the Open Inference Protocol's gRPC service."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncline import BadRequest, OpError
from asyncline.wire.oip import (
    InferRequest,
    InferResponse,
    InferTensor,
    ModelMetadata,
    RequestedOutput,
    ServerMetadata,
    TensorMetadata,
    grpc,
    grpc_metadata,
)
from asyncline.wire.oip.schema import message
from tests.wire.tensors import NAMES, OUTPUTS, PARAMETERS, all_same, bytes_array, many, same, tensors, untimed

TYPED = tuple(grpc._CONTENTS)
IDS = st.text(max_size=5)


def request(name: str = "x", datatype: str = "FP32", shape: Sequence[int] = (2,)) -> Any:
    """A ModelInferRequest of one input, as protobuf itself writes it."""
    found = message("ModelInferRequest")(model_name="m", raw_input_contents=[np.float32([1, 2]).tobytes()])
    found.inputs.add(name=name, datatype=datatype, shape=shape)
    return found


def typed(tensor: InferTensor) -> Any:
    """A ModelInferRequest with typed contents."""
    found = message("ModelInferRequest")()
    written = found.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    getattr(written.contents, grpc._CONTENTS[tensor.datatype]).extend(tensor.array.reshape(-1).tolist())
    return found


# -- there and back


@untimed
@given(many(), OUTPUTS, IDS, PARAMETERS)
def test_a_request_comes_back(
    inputs: tuple[InferTensor, ...], outputs: tuple[RequestedOutput, ...], id: str, parameters: dict[str, Any]
) -> None:
    found = grpc.decode_request(grpc.encode_request(InferRequest(inputs, "m", "3", id, outputs, False, parameters)))
    assert all_same(found.inputs, inputs)
    assert found.outputs == tuple(replace(output, binary=None) for output in outputs)
    assert (found.model_name, found.model_version, found.id, found.parameters) == ("m", "3", id, parameters)


@untimed
@given(many(), IDS, PARAMETERS)
def test_a_response_comes_back(outputs: tuple[InferTensor, ...], id: str, parameters: dict[str, Any]) -> None:
    found = grpc.decode_response(grpc.encode_response(InferResponse(outputs, "m", "1", id, parameters)))
    assert all_same(found.outputs, outputs)
    assert (found.model_name, found.model_version, found.id, found.parameters) == ("m", "1", id, parameters)


@untimed
@given(many())
def test_protobuf_reads_what_is_written_here(inputs: tuple[InferTensor, ...]) -> None:
    found = message("ModelInferRequest").FromString(grpc.encode_request(InferRequest(inputs)))
    assert [each.name for each in found.inputs] == [each.name for each in inputs]
    assert list(found.raw_input_contents) == [
        bytes(grpc.datatypes.to_raw(each.array, each.datatype)) for each in inputs
    ]


@untimed
@given(tensors(datatypes=TYPED))
def test_typed_contents_are_read(tensor: InferTensor) -> None:
    (found,) = grpc.decode_request(typed(tensor).SerializeToString()).inputs
    if tensor.datatype in ("FP32", "FP64"):  # another NaN is as good: the sign of one is lost on the way to Python
        assert found.shape == tensor.shape
        assert np.array_equal(found.array, tensor.array, equal_nan=True)
    else:
        assert same(found, replace(tensor, parameters={}))


@untimed
@given(many(), IDS, st.text(max_size=9))
def test_a_response_of_a_stream_comes_back(outputs: tuple[InferTensor, ...], id: str, error: str) -> None:
    response, text = grpc.decode_stream_response(grpc.encode_stream_response(InferResponse(outputs, id=id), error))
    assert all_same(response.outputs, outputs)
    assert (response.id, text) == (id, error)


def test_an_error_alone_is_a_response_of_a_stream() -> None:
    alone = message("ModelStreamInferResponse")(error_message="no").SerializeToString()
    assert grpc.decode_stream_response(alone) == (InferResponse(()), "no")


@untimed
@given(
    st.lists(
        st.builds(TensorMetadata, NAMES, NAMES, st.lists(st.integers(-1, 9)).map(tuple)), unique_by=lambda t: t.name
    )
)
def test_metadata_comes_back(tensors: list[TensorMetadata]) -> None:
    metadata = ModelMetadata("m", tuple(tensors), tuple(tensors[:1]), ("1", "2"), "onnx")
    assert grpc_metadata.decode_metadata(grpc_metadata.encode_metadata(metadata)) == metadata


def test_what_a_server_says_of_itself_comes_back() -> None:
    metadata = ServerMetadata("triton", "2.51.0", ("statistics",))
    assert grpc_metadata.decode_server_metadata(grpc_metadata.encode_server_metadata(metadata)) == metadata


def test_a_configuration_tells_the_most_rows() -> None:
    config = message("ModelConfigResponse")()
    config.config.max_batch_size = 8
    assert grpc_metadata.decode_max_batch_size(config.SerializeToString()) == 8
    config.config.max_batch_size = -8
    with pytest.raises(BadRequest, match="max_batch_size is no number of rows"):
        grpc_metadata.decode_max_batch_size(config.SerializeToString())


# -- raw


def test_a_raw_tensor_is_a_view_of_the_message() -> None:
    for pad in range(8):  # one of them puts the numbers where they may lie
        found = request()
        found.id = "i" * pad
        data = found.SerializeToString()
        array = grpc.decode_request(data).inputs[0].array
        if np.shares_memory(array, np.frombuffer(data, np.uint8)):
            return
    raise AssertionError("copied, wherever it lay")


def test_raw_contents_may_come_first_and_among_others() -> None:
    whole = request()
    raw = message("ModelInferRequest")(raw_input_contents=list(whole.raw_input_contents)).SerializeToString()
    del whole.raw_input_contents[:]
    assert grpc.decode_request(raw + whole.SerializeToString()).inputs[0].array.tolist() == [1, 2]


def test_unknown_fields_are_skipped() -> None:
    unknown = b"\xa0\x06\x05" + b"\xa1\x06" + bytes(8) + b"\xa5\x06" + bytes(4) + b"\xa2\x06\x01x"
    assert grpc.decode_request(unknown + request().SerializeToString()).inputs[0].name == "x"


def test_an_empty_contents_beside_raw_ones_says_nothing() -> None:
    found = request()
    found.inputs[0].contents.SetInParent()
    assert grpc.decode_request(found.SerializeToString()).inputs[0].array.tolist() == [1, 2]


# -- what is refused


def with_contents() -> Any:
    found = request()
    found.inputs[0].contents.fp32_contents.extend([1, 2])
    return found


def with_inputs(*names: str, raw: int) -> Any:
    found = message("ModelInferRequest")(raw_input_contents=[b""] * raw)
    for name in names:
        found.inputs.add(name=name, datatype="FP32", shape=[0 if raw else 1])
    return found


def with_outputs(*names: str) -> Any:
    found = request()
    for name in names:
        found.outputs.add(name=name)
    return found


def in_shared_memory(kind: str) -> Any:
    found = with_outputs("y")
    getattr(found, kind)[0].parameters["shared_memory_region"].string_param = "r"
    return found


MALFORMED = [
    (request(shape=[3]), "input 'x': FP32 of shape [3] is 12 bytes, got 8"),
    (request(shape=[-1]), "input 'x': shape [-1] has a negative length"),
    (request(shape=[2**62, 2**62]), "is too large"),
    (request(shape=[1] * 33), "input 'x': a shape of 33 lengths is over the limit of 32"),
    (request(datatype="FP99"), "input 'x': no datatype 'FP99'"),
    (request(name=""), "input 0 has no name"),
    (with_contents(), "input 'x': has both raw and typed contents"),
    (with_inputs("x", raw=2), "1 inputs, but raw contents of 2"),
    (with_inputs("x", raw=0), "input 'x': shape [1] is 1 elements, got none"),
    (with_inputs("x", "x", raw=2), "input 'x' is there twice"),
    (with_outputs("y", "y"), "output 'y' is there twice"),
    (with_outputs(*[""] * 1025), "1025 outputs are over the limit of 1024"),
    (in_shared_memory("inputs"), "input 'x': its data are in shared memory"),
    (in_shared_memory("outputs"), "output 'y': is asked for in shared memory"),
]


@pytest.mark.parametrize(("found", "words"), MALFORMED, ids=[words[:30] for _, words in MALFORMED])
def test_a_request_that_does_not_fit_says_what_is_wrong(found: Any, words: str) -> None:
    with pytest.raises(BadRequest) as error:
        grpc.decode_request(found.SerializeToString())
    assert words in error.value.message


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (InferTensor("x", "INT8", np.array([300], np.int32)), "input 'x': a number is out of the range of INT8"),
        (
            InferTensor("x", "UINT16", np.array([70_000], np.uint32)),
            "input 'x': a number is out of the range of UINT16",
        ),
    ],
)
def test_typed_numbers_have_to_be_in_range(tensor: InferTensor, words: str) -> None:
    with pytest.raises(BadRequest) as error:
        grpc.decode_request(typed(tensor).SerializeToString())
    assert error.value.message == words


def test_typed_numbers_have_to_be_of_the_datatype() -> None:
    found = typed(InferTensor("x", "INT32", np.array([1], np.int32)))
    found.inputs[0].datatype = "FP32"
    with pytest.raises(BadRequest, match="input 'x': FP32 has fp32_contents, got int_contents"):
        grpc.decode_request(found.SerializeToString())


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_halves_have_to_be_raw(datatype: str) -> None:
    found = typed(InferTensor("x", "INT32", np.array([1], np.int32)))
    found.inputs[0].datatype = datatype
    with pytest.raises(BadRequest, match=f"input 'x': {datatype} has no typed contents: send it raw"):
        grpc.decode_request(found.SerializeToString())


@pytest.mark.parametrize(
    "data",
    [
        b"\x08",
        b"\x0a\x05abc",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\xff" * 20,
        b"\x0b\x0c",
        b"\x3a",
        b"\x3a\x05abc",
        b"\x0a\x01\xff",
        b"\x09\0\0",
        b"\x2a\x02\x0a\x09",
        b"hello, world",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=lambda data: data[:8].hex(),
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest, match=r"^the message is \w"):
        grpc.decode_request(data)


@untimed
@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for decode in (
        grpc.decode_request,
        grpc.decode_response,
        grpc.decode_stream_response,
        grpc_metadata.decode_metadata,
    ):
        try:
            decode(data)
        except BadRequest as error:
            assert error.message


@untimed
@given(many(), st.data())
def test_a_message_with_a_wrong_byte_is_read_or_refused(inputs: tuple[InferTensor, ...], draw: st.DataObject) -> None:
    data = bytearray(grpc.encode_request(InferRequest(inputs, "m", id="1")))
    data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        grpc.decode_request(bytes(data))
    except BadRequest as error:
        assert error.message


def test_a_million_tiny_fields_are_not_looked_at_one_by_one() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest, match="the message has more than 4096 fields"):
            grpc.decode_request(b"\x2a\x00" * 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


# -- what cannot be written


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, 2**64, -(2**63) - 1, b"x"])
def test_a_parameter_that_protobuf_lacks_is_named(value: Any) -> None:
    with pytest.raises(OpError, match="parameter 'p' is of type"):
        grpc.encode_request(InferRequest((), parameters={"p": value}))


@pytest.mark.parametrize("array", [np.zeros(1), bytes_array(b"")], ids=["float64", "bytes"])
def test_an_array_that_is_not_of_its_datatype_names_its_tensor(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(OpError, match="output 'y': expected FP32, got"):
        grpc.encode_response(InferResponse((InferTensor("y", "FP32", array),)))
