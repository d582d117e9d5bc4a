"""REST bodies of the Open Inference Protocol."""

from __future__ import annotations

import json
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
    rest,
    rest_metadata,
)
from tests.wire.tensors import NAMES, OUTPUTS, PARAMETERS, all_same, bytes_array, many, untimed

IN_JSON = tuple(name for name in rest.datatypes.DTYPES if name not in ("FP16", "BF16"))
IDS = st.text(max_size=5)


def joined(body: rest.Body) -> bytes:
    return b"".join(body.parts)


def request_back(request: InferRequest, binary: bool) -> InferRequest:
    body = rest.encode_request(request, binary=binary)
    data = joined(body)
    assert len(data) == body.nbytes
    return rest.decode_request(
        data, body.header_nbytes, model_name=request.model_name, model_version=request.model_version
    )


def infer(*inputs: dict[str, Any], raw: bytes = b"", **more: Any) -> InferRequest:
    """Read a request that is written by hand."""
    head = json.dumps({"inputs": inputs, **more}).encode()
    return rest.decode_request(head + raw, len(head) if raw else None)


def tensor(**changes: Any) -> dict[str, Any]:
    found = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2], **changes}
    return {key: value for key, value in found.items() if value is not ...}


# -- there and back


@untimed
@given(many(), OUTPUTS, IDS, st.booleans(), PARAMETERS)
def test_a_binary_request_comes_back(
    inputs: tuple[InferTensor, ...],
    outputs: tuple[RequestedOutput, ...],
    id: str,
    binary_output: bool,
    parameters: dict[str, Any],
) -> None:
    request = InferRequest(inputs, "m", "3", id, outputs, binary_output, parameters)
    found = request_back(request, binary=True)
    assert all_same(found.inputs, inputs)
    assert found.outputs == outputs
    assert (found.model_name, found.model_version, found.id) == ("m", "3", id)
    assert (found.binary_output, found.parameters) == (binary_output, parameters)


@untimed
@given(many(datatypes=IN_JSON, text=True))
def test_a_json_request_comes_back(inputs: tuple[InferTensor, ...]) -> None:
    assert all_same(request_back(InferRequest(inputs), binary=False).inputs, inputs)


@untimed
@given(many(datatypes=IN_JSON, text=True), OUTPUTS, st.booleans(), IDS, PARAMETERS)
def test_a_response_comes_back_in_the_form_that_was_asked_for(
    outputs: tuple[InferTensor, ...],
    asked: tuple[RequestedOutput, ...],
    binary_output: bool,
    id: str,
    parameters: dict[str, Any],
) -> None:
    request = InferRequest((), outputs=asked, binary_output=binary_output)
    body = rest.encode_response(InferResponse(outputs, "m", "1", id, parameters), request)
    found = rest.decode_response(joined(body), body.header_nbytes)
    assert all_same(found.outputs, outputs)
    assert (found.model_name, found.model_version, found.id, found.parameters) == ("m", "1", id, parameters)
    written = json.loads(joined(body)[: body.header_nbytes])["outputs"]
    assert ["data" not in output for output in written] == [request.wants_binary(output.name) for output in outputs]


@untimed
@given(
    st.lists(
        st.builds(TensorMetadata, NAMES, NAMES, st.lists(st.integers(-1, 9)).map(tuple)), unique_by=lambda t: t.name
    )
)
def test_metadata_comes_back(tensors: list[TensorMetadata]) -> None:
    metadata = ModelMetadata("m", tuple(tensors), tuple(tensors[:1]), ("1", "2"), "onnx")
    assert rest_metadata.decode_metadata(rest_metadata.encode_metadata(metadata)) == metadata


def test_what_a_server_says_of_itself_comes_back() -> None:
    metadata = ServerMetadata("triton", "2.51.0", (rest.BINARY, "statistics"))
    assert rest_metadata.decode_server_metadata(rest_metadata.encode_server_metadata(metadata)) == metadata


# -- what others send


def test_a_request_of_tritonclient_is_read() -> None:
    head = (
        b'{"id":"42","parameters":{"sequence_id":0,"binary_data_output":true},"inputs":'
        b'[{"name":"INPUT0","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}'
    )
    found = rest.decode_request(head + np.float32([2, 4]).tobytes(), len(head))
    assert found.inputs[0].array.tolist() == [[2, 4]]
    assert found.inputs[0].parameters == {}
    assert found.parameters == {"sequence_id": 0}
    assert found.wants_binary("OUTPUT0")


def test_json_and_raw_inputs_mix_and_the_raw_ones_come_in_order() -> None:
    found = infer(
        tensor(name="a", data=..., parameters={"binary_data_size": 8}),
        tensor(name="b", datatype="INT8"),
        tensor(name="c", datatype="BYTES", shape=[1], data=..., parameters={"binary_data_size": 5}),
        raw=np.float32([5, 6]).tobytes() + b"\1\0\0\0z",
    )
    assert [each.array.tolist() for each in found.inputs] == [[5, 6], [1, 2], [b"z"]]


@pytest.mark.parametrize("more", [{"id": ""}, {"id": None}, {"parameters": None}, {"outputs": None}, {"extra": [{}]}])
def test_what_says_nothing_is_taken_as_absent(more: dict[str, Any]) -> None:
    found = infer(tensor(), **more)
    assert (found.id, found.parameters, found.outputs) == ("", {}, ())


def test_plain_json_may_have_the_header_too() -> None:
    body = json.dumps({"inputs": [tensor()]}).encode()
    assert rest.decode_request(body, rest.parse_header_length(str(len(body)), len(body))).inputs[0].shape == (2,)


def test_an_output_may_differ_from_what_the_request_says_for_all() -> None:
    found = infer(
        tensor(),
        parameters={"binary_data_output": True},
        outputs=[{"name": "a"}, {"name": "b", "parameters": {"binary_data": False, "classification": 3}}],
    )
    assert (found.wants_binary("a"), found.wants_binary("b")) == (True, False)
    assert found.outputs[1].parameters == {"classification": 3}


@pytest.mark.parametrize(("length", "parts"), [(8, 1), (20_000, 2)])
def test_a_short_body_is_one_piece_and_a_long_one_is_not_copied(length: int, parts: int) -> None:
    array = np.zeros(length, np.float32)
    body = rest.encode_request(InferRequest((InferTensor("x", "FP32", array),)))
    assert len(body.parts) == parts
    array[:] = 1
    copied = np.frombuffer(joined(body)[body.header_nbytes :], np.float32)[0] == 0
    assert copied == (parts == 1)


def test_raw_inputs_are_views_where_the_memory_was_made_for_them() -> None:
    body = rest.encode_request(InferRequest((InferTensor("x", "FP64", np.arange(3.0)),)))
    memory = rest.room(body.nbytes, body.header_nbytes)
    memory[:] = joined(body)
    array = rest.decode_request(memory, body.header_nbytes).inputs[0].array
    assert array.ctypes.data % rest.ALIGNMENT == 0
    assert np.shares_memory(array, np.frombuffer(memory, np.uint8))


# -- what is refused


@pytest.mark.parametrize(
    ("text", "nbytes", "expected"), [(None, 5, None), ("5", 5, 5), ("0", 5, 0), ("0003", 5, 3), ("0", 0, 0)]
)
def test_the_header_tells_the_length_of_the_json(text: str | None, nbytes: int, expected: int | None) -> None:
    assert rest.parse_header_length(text, nbytes) == expected


@pytest.mark.parametrize("text", ["6", "-1", "+1", "1.0", "", " 1", "1_0", "٣", "9" * 30])
def test_a_wrong_length_of_the_json_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="Inference-Header-Content-Length"):
        rest.parse_header_length(text, 5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ...}, "input 0 has no name"),
        ({"name": 5}, "input 0: name is no string"),
        ({"datatype": "FP99"}, "input 'x': no datatype 'FP99'"),
        ({"datatype": ...}, "input 'x': no datatype ''"),
        ({"datatype": ["FP32"]}, "input 'x': datatype is no string"),
        ({"shape": ...}, "input 'x': shape is no list of lengths"),
        ({"shape": [2.0]}, "input 'x': shape is no list of lengths"),
        ({"shape": [True, 2]}, "input 'x': shape is no list of lengths"),
        ({"shape": [-1]}, "input 'x': shape is no list of lengths"),
        ({"shape": [3]}, "input 'x': shape [3] is 3 elements, got 2"),
        ({"shape": [2**40, 2**40]}, "input 'x': shape [1099511627776, 1099511627776] is too large"),
        ({"data": ...}, "input 'x': has neither data nor binary_data_size"),
        ({"data": "AAAA"}, "input 'x': expected a list, got a string"),
        ({"parameters": []}, "input 'x': parameters is no object"),
        ({"parameters": {"binary_data_size": 8}}, "input 'x': has both data and binary_data_size"),
        ({"data": ..., "parameters": {"binary_data_size": 8}}, "binary_data_size is 8, but 0 bytes are left"),
        ({"data": ..., "parameters": {"binary_data_size": -1}}, "input 'x': binary_data_size is no number of bytes"),
        ({"data": ..., "parameters": {"binary_data_size": True}}, "input 'x': binary_data_size is no number of bytes"),
        ({"data": ..., "parameters": {"binary_data_size": "8"}}, "input 'x': binary_data_size is no number of bytes"),
        (
            {"data": ..., "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8}},
            "input 'x': its data are in shared memory, which is not served",
        ),
    ],
)
def test_an_input_that_does_not_fit_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest) as error:
        infer(tensor(**changes))
    assert words in error.value.message


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"1234", "input 'x': binary_data_size is 8, but 4 bytes are left of the body"),
        (b"123456789", "1 bytes come after the last input"),
    ],
)
def test_raw_bytes_are_all_used_and_no_more(raw: bytes, words: str) -> None:
    with pytest.raises(BadRequest) as error:
        infer(tensor(data=..., parameters={"binary_data_size": 8}), raw=raw)
    assert error.value.message == words


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b"{", "the body is no JSON"),
        (b"[]", "expected an object"),
        (b"null", "expected an object"),
        (b"[" * 100_000, "the body is no JSON"),
        (b'{"inputs": {}}', "inputs is no list"),
        (b'{"inputs": [5]}', "input 0: expected an object"),
        (b'{"inputs": [], "id": 5}', "id is no string"),
        (b'{"inputs": [], "outputs": ["y"]}', "output 0: expected an object"),
        (b'{"inputs": [], "outputs": [{"name": "y"}, {"name": "y"}]}', "output 'y' is there twice"),
        (b'{"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}', "output 'y': binary_data is"),
        (b'{"inputs": [], "parameters": {"binary_data_output": "yes"}}', "binary_data_output is neither"),
        (b'{"inputs": [], "outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]}', "'y': is asked"),
        (json.dumps({"inputs": [tensor(), tensor()]}).encode(), "input 'x' is there twice"),
        (json.dumps({"inputs": [{}] * 1025}).encode(), "1025 inputs are over the limit of 1024"),
        (json.dumps({"inputs": [], "outputs": [{}] * 1025}).encode(), "1025 outputs are over the limit of 1024"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_a_malformed_request_says_what_is_wrong(body: bytes, words: str) -> None:
    with pytest.raises(BadRequest) as error:
        rest.decode_request(body)
    assert words in error.value.message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["FP32", "BYTES", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "a"]), inner, max_size=3),
    max_leaves=5,
)
KEYS = ("name", "datatype", "shape", "data", "parameters")
TENSORS = st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, VALUES)), max_size=2)
HOSTILE = st.fixed_dictionaries(
    {"inputs": TENSORS | VALUES}, optional=dict.fromkeys(("id", "parameters", "outputs"), VALUES)
)


@untimed
@given(HOSTILE, st.binary(max_size=20))
def test_any_json_is_read_or_refused(head: Any, raw: bytes) -> None:
    data = json.dumps(head).encode()
    for decode in (rest.decode_request, rest.decode_response):
        try:
            decode(data + raw, len(data))
        except BadRequest as error:
            assert error.message


@untimed
@given(st.binary(max_size=40), st.none() | st.integers(0, 40))
def test_any_bytes_are_read_or_refused(body: bytes, header_nbytes: int | None) -> None:
    try:
        rest.decode_request(body, header_nbytes)
    except BadRequest as error:
        assert error.message


# -- a request that is raw bytes and nothing else


@pytest.mark.parametrize(
    ("datatype", "shape", "batches", "body", "expected"),
    [
        ("FP32", (-1, 2), True, np.float32([1, 2]).tobytes(), [[1, 2]]),
        ("FP32", (-1, -1), True, np.float32([1, 2, 3]).tobytes(), [[1, 2, 3]]),
        ("INT8", (2, 2), False, b"\1\2\3\4", [[1, 2], [3, 4]]),
        ("BYTES", (-1, 1), True, b"\1\0\0\0", [[b"\1\0\0\0"]]),
        ("BYTES", (-1,), False, b"", [b""]),
    ],
)
def test_the_bytes_of_the_only_input_are_a_request(
    datatype: str, shape: tuple[int, ...], batches: bool, body: bytes, expected: Any
) -> None:
    found = rest.decode_raw_request(body, TensorMetadata("x", datatype, shape), batches=batches)
    assert found.inputs[0].array.tolist() == expected
    assert found.wants_binary("anything")


@pytest.mark.parametrize(
    ("datatype", "shape", "body", "words"),
    [
        ("FP32", (-1, 2), b"123", "FP32 of shape [1, 2] is 8 bytes, got 3"),
        ("FP32", (-1, -1, -1), b"1234", "raw bytes do not tell the shape, [-1, -1, -1]"),
        ("FP32", (-1, 0, -1), b"1234", "FP32 of shape [1, 0, 0] is 0 bytes, got 4"),
        ("BYTES", (-1, 2), b"1234", "raw bytes can be one element only"),
    ],
)
def test_raw_bytes_that_do_not_tell_their_shape_are_refused(
    datatype: str, shape: tuple[int, ...], body: bytes, words: str
) -> None:
    with pytest.raises(BadRequest) as error:
        rest.decode_raw_request(body, TensorMetadata("x", datatype, shape), batches=True)
    assert error.value.message == f"input 'x': {words}"


# -- what cannot be written


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_an_output_without_a_form_in_json_is_the_askers_fault(datatype: str) -> None:
    response = InferResponse((InferTensor("y", datatype, np.zeros(1, rest.datatypes.DTYPES[datatype])),))
    with pytest.raises(BadRequest, match=f"output 'y': {datatype} has no JSON form: ask for binary data"):
        rest.encode_response(response, InferRequest(()))


def test_an_array_that_is_not_of_its_datatype_is_ours() -> None:
    with pytest.raises(OpError, match="input 'x': expected FP32, got float64"):
        rest.encode_request(InferRequest((InferTensor("x", "FP32", np.zeros(1)),)))


def test_strings_without_json_form_name_their_output() -> None:
    response = InferResponse((InferTensor("y", "BYTES", bytes_array(b"\xff")),))
    with pytest.raises(BadRequest, match="output 'y': holds bytes that are no text"):
        rest.encode_response(response, InferRequest(()))


# -- metadata and errors


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[]", "expected an object"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-2]}]}', "input 'x': shape is no list of lengths"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32"}]}', "input 'x': shape is no list of lengths"),
        (b'{"versions": [1]}', "versions are no strings"),
        (b'{"outputs": [{"datatype": "FP32", "shape": []}]}', "output 0 has no name"),
    ],
)
def test_malformed_metadata_says_what_is_wrong(body: bytes, words: str) -> None:
    with pytest.raises(BadRequest) as error:
        rest_metadata.decode_metadata(body)
    assert error.value.message == words


@pytest.mark.parametrize(("body", "rows"), [(b'{"max_batch_size": 8}', 8), (b'{"max_batch_size": 0}', 0), (b"{}", 0)])
def test_a_configuration_tells_the_most_rows(body: bytes, rows: int) -> None:
    assert rest_metadata.decode_max_batch_size(body) == rows


@pytest.mark.parametrize("size", ["-1", '"8"', "true", "1.5"])
def test_a_configuration_with_a_strange_number_of_rows_is_refused(size: str) -> None:
    with pytest.raises(BadRequest, match="max_batch_size is no number of rows"):
        rest_metadata.decode_max_batch_size(b'{"max_batch_size": %s}' % size.encode())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (rest_metadata.encode_error("no such model"), "no such model"),
        (b'{"code": "overloaded", "message": "too much"}', "too much"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"detail": [{"loc": []}]}', ""),
        (b"<h1>502 Bad Gateway</h1>\n", "<h1>502 Bad Gateway</h1>"),
        (b"\xff", "\ufffd"),
        (b"", ""),
        (b"5", ""),
    ],
)
def test_what_an_error_says_is_made_out_of_any_servers_body(body: bytes, message: str) -> None:
    assert rest_metadata.decode_error(body) == message
