"""Paddle's messages as protobuf and as JSON: what clients of every era send, and what they get."""

from __future__ import annotations

import json
import pickle
from base64 import b64encode
from typing import Any

import numpy as np
import orjson
import pytest

from asyncline.errors import (
    BadImage,
    BadRequest,
    DeadlineExceeded,
    NotFound,
    OpError,
    Overloaded,
    ProductError,
    RequestError,
    TooLarge,
    Unavailable,
    WorkerCrashed,
)
from asyncline.wire import protobuf
from asyncline.wire.paddle import (
    BadPackage,
    ElemType,
    PaddleTensor,
    PipelineError,
    PipelineRequest,
    PipelineResponse,
    error_of,
    grpc,
    npy,
    number_of,
    rest,
)
from asyncline.wire.paddle.schema import message
from asyncline.wire.weight import Scale

ARRAYS = [
    np.array([[1, -(2**62)]], np.int64),
    np.array([[0.1], [-np.inf]], np.float32),
    np.array(7, np.int32),
    np.array([0.1, 1e300], np.float64),
    np.array([[-5]], np.int16),
    np.array([0.5, 65504], np.float16),
    np.array([255, 0], np.uint8),
    np.array([-128], np.int8),
    np.array([[True, False]]),
    np.zeros((0, 4), np.float32),
    np.array(["naïve", "", "b"], object),
    np.array([2**63], np.uint64),
]


def tensor(array: Any, kind: ElemType | None = None) -> PaddleTensor:
    return PaddleTensor("x", array, kind)


def of_json(body: bytes, name: str, method: str) -> PipelineRequest:
    return rest.request(rest.decode(body), name, method)


def through_json(value: PaddleTensor) -> PaddleTensor:
    body = rest.encode_response(PipelineResponse(tensors=[value]))
    (read,) = of_json(orjson.dumps({"tensors": json.loads(body)["tensors"]}), "s", "m").tensors
    return read


def through_protobuf(value: PaddleTensor) -> PaddleTensor:
    (read,) = grpc.decode_request(grpc.encode_request(PipelineRequest(tensors=[value]))).tensors
    return read


# -- tensors


@pytest.mark.parametrize("through", [through_json, through_protobuf])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: array.dtype.name)
def test_a_tensor_comes_as_it_went(array: Any, through: Any) -> None:
    read = through(PaddleTensor("x", array, lod=[0, 1]))
    assert (read.name, read.lod, read.array.dtype, read.array.shape) == ("x", [0, 1], array.dtype, array.shape)
    assert (read.array == array).all()


@pytest.mark.parametrize("through", [through_json, through_protobuf])
@pytest.mark.parametrize(
    "array", [np.arange(6, dtype=">f4").reshape(2, 3), np.asfortranarray([[1, 2], [3, 4]]), np.array(["a", "bc"])]
)
def test_a_tensor_of_bytes_is_an_npy_stream(array: Any, through: Any) -> None:
    read = through(tensor(array, ElemType.BYTES))
    assert read.elem_type is ElemType.BYTES
    assert read.array.dtype.isnative and (read.array == array).all()


def test_bf16_is_its_bits() -> None:
    bits = np.array([0x3F80, 0x7FC0], np.uint16)
    read = through_protobuf(tensor(bits, ElemType.BF16))
    assert read.array.dtype == np.uint16 and (read.array == bits).all()


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.bool_, np.float64, np.float32])
def test_tensors_weigh_no_less_than_their_arrays(dtype: Any) -> None:
    array = np.ones(10_000, dtype)
    data = grpc.encode_request(PipelineRequest("s", "m", tensors=[PaddleTensor("x", array)]))
    scale = Scale(10**9)
    grpc.decode_request(data, scale)
    protobuf_nbytes = 0 if dtype is np.float32 else 8 * array.size
    assert scale.nbytes >= protobuf_nbytes + array.nbytes
    with pytest.raises(TooLarge, match="decoded, the lists"):
        grpc.decode_request(data, Scale(scale.nbytes - 1))


def test_numbers_that_are_not_packed_are_weighed() -> None:
    body = b"\x08\x01" * 5000 + b"\xa8\x01\x88\x27"  # int64_data, one field each; shape [5000]
    scale = Scale(10**9)
    request = grpc.decode_request(protobuf.join(b"", 3, [body]), scale)
    assert request.tensors[0].array.sum() == 5000 and scale.nbytes >= 16 * 5000


def test_numbers_that_are_not_packed_are_read_too() -> None:
    fields = b"".join(b"\x18" + bytes([number]) for number in (1, 2))  # int_data, one field each
    body = fields + b"\xa0\x01\x02" + b"\xa8\x01\x02"  # elem_type INT32, shape [2]
    read = grpc.decode_request(b"\x1a" + bytes([len(body)]) + body)
    assert read.tensors[0].array.tolist() == [1, 2]


@pytest.mark.parametrize("kind", [ElemType.FP32, ElemType.FP16])
def test_many_floats_are_read_where_they_lie(kind: ElemType) -> None:
    array = np.arange(2048, dtype=np.float32).reshape(2, -1)
    given = array.astype(np.float16) if kind is ElemType.FP16 else array
    read = through_protobuf(tensor(given, kind)).array
    assert read.dtype == given.dtype and (read == given).all() and read.flags.aligned


def test_many_floats_that_are_not_packed_are_read_too() -> None:
    field = b"\x15\x00\x00\x80\x3f"  # float_data, 1.0
    for packed in (b"", b"\x12\x04\x00\x00\x80\x3f"):
        count = 5000 + len(packed) // 6
        body = packed + field * 5000 + b"\xa0\x01\x01" + b"\xa8\x01" + bytes([count & 127 | 128, count >> 7])
        (read,) = grpc.decode_request(protobuf.join(b"", 3, [body])).tensors
        assert read.array.tolist() == [1.0] * count


HOSTILE = {
    "longer than its shape": {"int64_data": [1, 2], "shape": [1]},
    "shorter than its shape": {"int64_data": [1], "shape": [2, 2]},
    "a huge shape": {"int64_data": [1], "shape": [2**31 - 1] * 4},
    "a huge shape of nothing": {"int64_data": [], "shape": [0, 2**31 - 1, 2**31 - 1, 2**31 - 1]},
    "a negative length": {"int64_data": [1], "shape": [-1]},
    "too many lengths": {"int64_data": [1], "shape": [1] * 65},
    "no such type": {"elem_type": 99},
    "a complex number": {"elem_type": 10, "complex64_data": [1.0, 2.0]},
    "out of the range of int8": {"elem_type": 8, "int_data": [128], "shape": [1]},
    "no stream": {"elem_type": 13, "byte_data": b"garbage"},
    "an empty stream": {"elem_type": 13},
    "an array of objects": {"elem_type": 13, "byte_data": None},
}


class Bomb:
    """What must never be unpickled."""

    def __reduce__(self) -> Any:
        raise_ = pytest.fail
        return raise_, ("it was unpickled",)


def pickled() -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    return npy.MAGIC + b"\x01\x00" + len(header).to_bytes(2, "little") + header + pickle.dumps([Bomb()])


def filled(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | ({"byte_data": pickled()} if fields.get("byte_data", b"") is None else {})


@pytest.mark.parametrize("case", HOSTILE)
def test_a_tensor_that_does_not_fit_together_is_named(case: str) -> None:
    fields = filled(HOSTILE[case])
    in_json = {key: b64encode(value).decode() if isinstance(value, bytes) else value for key, value in fields.items()}
    with pytest.raises(BadPackage, match="tensor 'x': "):
        of_json(orjson.dumps({"tensors": [{"name": "x", **in_json}]}), "s", "m")
    data = message("Request")(tensors=[{"name": "x", **fields}]).SerializeToString()
    with pytest.raises(BadPackage, match="tensor 'x': "):
        grpc.decode_request(data)


def stream(header: bytes, data: bytes = b"") -> bytes:
    return npy.MAGIC + b"\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        npy.MAGIC,
        npy.MAGIC + b"\x01\x00\xff\xff{}",
        npy.MAGIC + b"\x03\x00" + b"\x02\x00\x00\x00{}" + b" " * 8,
        npy.MAGIC + b"\x02\x00" + b"\xff\xff\xff\xff" + b" " * 100,
        stream(b"{}" + b" " * 70),
        stream(b"(" * 4000),
        stream(b"{'descr': __import__('os').abort(), 'fortran_order': False, 'shape': (1,), }"),
        stream(b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }"),
        stream(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2147483647, 2147483647, 4), }"),
        stream(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1 2,), }", b"\0" * 8),
        stream(b"{'descr': '<f4', 'fortran_order': False, 'shape': (, ,), }", b"\0" * 8),
        stream(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", b"\0" * 7),
        stream(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", b"\0" * 9),
        stream(b"{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", b"\0" * 8),
        stream(b"{'descr': '<M8', 'fortran_order': False, 'shape': (1,), }", b"\0" * 8),
        stream(b"{'descr': '<f3', 'fortran_order': False, 'shape': (1,), }", b"\0" * 3),
        stream(b"{'descr': '<U999999999999', 'fortran_order': False, 'shape': (1,), }"),
        stream(b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", b"\0" * 4),
        stream(b"{'descr': '<U0', 'fortran_order': False, 'shape': (900000000,), }"),
        stream(b"{'descr': '|S0', 'fortran_order': False, 'shape': (1,), }"),
        stream(b" " * 5000),
        pickled(),
    ],
)
def test_a_malformed_npy_stream_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        npy.decode(data)


def test_what_numpy_saves_is_read(tmp_path: Any) -> None:
    for array in (np.float32(1.5), np.zeros((0, 3)), np.array(["ab", "c"]), np.asfortranarray(np.eye(3))):
        np.save(tmp_path / "x.npy", array)
        read = npy.decode((tmp_path / "x.npy").read_bytes())
        assert (read == array).all() and read.shape == np.shape(array) and read.dtype == np.asarray(array).dtype


# -- values


def test_the_last_of_two_values_with_one_key_counts() -> None:
    request = PipelineRequest(key=["a", "b", "a"], value=["1", "2", "3", "unasked"])
    assert request.values() == {"a": "3", "b": "2"}


def test_tensors_are_values_and_their_offsets_too() -> None:
    strings = tensor(np.array(["a", "b"], object))
    numbers = PaddleTensor("y", np.array([1.0]), lod=[0, 2, 2, 3])
    values = PipelineRequest(tensors=[strings, numbers]).values()
    assert values["x"] == "ab" and values["y"].tolist() == [1.0]
    assert values["y.lod"].tolist() == [[0, 2], [2, 3]] and values["y.lod"].dtype == np.int32


@pytest.mark.parametrize(
    "request_",
    [PipelineRequest(key=["a", "b"], value=["1"]), PipelineRequest(tensors=[PaddleTensor("x", np.eye(2), lod=[0])])],
)
def test_what_does_not_pair_is_refused(request_: PipelineRequest) -> None:
    with pytest.raises(BadPackage):
        request_.values()


# -- protobuf


def test_a_request_of_today_is_read() -> None:
    request = PipelineRequest("ocr", "prediction", ["image"], ["é"], 2**40, "10.0.0.1")
    assert grpc.decode_request(grpc.encode_request(request)) == request


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "ocr", "method": "prediction", "logid": 5, "clientip": "10.0.0.1"},
        {"logid": 0},
        {"clientip": "10.0.0.1"},
        {"name": "ocr"},
        {"name": "ocr", "method": "prediction"},
    ],
)
def test_a_request_of_the_old_numbering_is_known_by_its_fields(fields: dict[str, Any]) -> None:
    data = message("LegacyRequest")(key=["a"], value=["b"], **fields).SerializeToString()
    assert grpc.decode_request(data) == PipelineRequest(key=["a"], value=["b"], **fields)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 20,
        b"\x0a\x05ab",
        b"\x0a\x02\xff\xfe",
        b"\x28\x01\x32\x02\xff\xfe",  # the old numbering
        b"\x1a\x02\xff\xff",
        b"\x1a\x00" * 4097,
        b"\x0a\x00" * 4097,
        b"\x1a\x00" * 257,
        b"\x1b" * 10_000,
    ],
)
def test_a_malformed_message_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        grpc.decode_request(data)


def test_a_response_comes_as_it_went() -> None:
    response = PipelineResponse(6000, "late", ["a"], ["\ud800b"], [tensor(np.array([[1]], np.int64))])
    read = grpc.decode_response(grpc.encode_response(response))
    assert (read.err_no, read.err_msg, read.key, read.value) == (6000, "late", ["a"], ["?b"])
    assert read.tensors[0].array.tolist() == [[1]]


def test_an_array_that_is_not_of_its_type_is_named() -> None:
    response = PipelineResponse(tensors=[tensor(np.array([1.5]), ElemType.INT64)])
    for encode in (grpc.encode_response, rest.encode_response):
        with pytest.raises(OpError, match=r"tensor 'x': expected INT64, got float64"):
            encode(response)


# -- JSON


def test_an_answer_has_five_fields_in_order() -> None:
    assert rest.encode_response(PipelineResponse()) == b'{"err_no":0,"err_msg":"","key":[],"value":[],"tensors":[]}'
    answer = PipelineResponse(key=["price"], value=["[[18.9]]"])
    assert rest.encode_response(answer) == (
        b'{"err_no":0,"err_msg":"","key":["price"],"value":["[[18.9]]"],"tensors":[]}'
    )


def test_strings_are_escaped_as_go_escapes_them() -> None:
    body = rest.encode_response(PipelineResponse(value=["<a href='x'>&é\u2028\u2029\n\"\\\x01"]))
    assert b'"value":["\\u003ca href=\'x\'\\u003e\\u0026\xc3\xa9\\u2028\\u2029\\n\\"\\\\\\u0001"]' in body
    assert json.loads(rest.encode_response(PipelineResponse(value=["\ud800"])))["value"] == ["?"]


@pytest.mark.parametrize(
    "values", [{}, {"a": "b", "c": ""}, {"<a>": "x & y"}, {"é": "\u2028"}, {"n": 'line\nof "words"'}], ids=repr
)
def test_an_answer_of_texts_is_written_as_any_other(values: dict[str, str]) -> None:
    as_any = rest.encode_response(PipelineResponse(key=[*values], value=[*values.values()]))
    assert rest.encode_texts(values) == as_any


@pytest.mark.parametrize(
    "values", [{"a": 1}, {1: "a"}, {"a": None}, {"a": ["b"]}, {"a": "\ud800"}, {"a": b"b"}], ids=repr
)
def test_an_answer_that_is_no_texts_is_left_to_others(values: dict[Any, Any]) -> None:
    assert rest.encode_texts(values) is None


def test_a_tensor_has_all_its_fields_and_int64_as_strings() -> None:
    body = rest.encode_response(PipelineResponse(tensors=[PaddleTensor("x", np.array([[2**60]]), lod=[0, 1])]))
    assert body.endswith(
        b'"tensors":[{"int64_data":["1152921504606846976"],"float_data":[],"int_data":[],"float64_data":[],'
        b'"uint32_data":[],"bool_data":[],"complex64_data":[],"complex128_data":[],"str_data":[],"byte_data":"",'
        b'"elem_type":0,"shape":[1,1],"lod":[0,1],"name":"x"}]}'
    )


def test_the_path_names_the_service_not_the_body() -> None:
    request = of_json(b'{"name": "other", "method": "other"}', "ocr", "prediction")
    assert (request.name, request.method) == ("ocr", "prediction")


def test_no_body_is_an_empty_request() -> None:
    assert of_json(b"", "s", "m") == PipelineRequest("s", "m")


def test_both_spellings_unknown_fields_and_null_are_taken() -> None:
    one = {"name": "x", "elemType": 2, "intData": ["-1", 2], "shape": [2], "what": {}}
    two = {"name": "x", "elem_type": "2", "int_data": [-1, 2], "shape": ["2"], "lod": None, "floatData": None}
    body = {"key": None, "logid": "10000", "unknown": [1], "tensors": [one, two]}
    first, second = of_json(orjson.dumps(body), "s", "m").tensors
    assert first.array.tolist() == second.array.tolist() == [-1, 2]
    assert of_json(orjson.dumps(body), "s", "m").logid == 10000


def test_floats_may_be_strings() -> None:
    body = {"tensors": [{"elem_type": 1, "float_data": ["NaN", "-Infinity", "1e3", 2], "shape": [4]}]}
    (read,) = of_json(orjson.dumps(body), "s", "m").tensors
    assert np.array_equal(read.array, np.array([np.nan, -np.inf, 1000, 2], np.float32), equal_nan=True)


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b"null",
        b'"text"',
        b"[" * 100_000,
        b'{"key": "a"}',
        b'{"key": [1]}',
        b'{"value": [null]}',
        b'{"value": [{"a": 1}]}',
        b'{"logid": 1.5}',
        b'{"logid": "x"}',
        b'{"logid": true}',
        b'{"logid": 9223372036854775808}',
        b'{"logid": "-99999999999999999999"}',
        b'{"clientip": 1}',
        b'{"name": 1}',
        b'{"method": []}',
        b'{"tensors": {}}',
        b'{"tensors": [1]}',
        b'{"tensors": [{"name": 1}]}',
        b'{"tensors": [{"elem_type": 2147483648}]}',
        b'{"tensors": [{"shape": [1.0]}]}',
        b'{"tensors": [{"int64_data": [true], "shape": [1]}]}',
        b'{"tensors": [{"int_data": [2147483648]}]}',
        b'{"tensors": [{"uint32_data": [-1]}]}',
        b'{"tensors": [{"float_data": ["one"]}]}',
        b'{"tensors": [{"float_data": [[1]]}]}',
        b'{"tensors": [{"bool_data": [1]}]}',
        b'{"tensors": [{"str_data": "a"}]}',
        b'{"tensors": [{"byte_data": "%%"}]}',
        b'{"tensors": [{"byte_data": [1]}]}',
        b'{"tensors": [' + b",".join([b"{}"] * 257) + b"]}",
    ],
)
def test_a_field_of_the_wrong_type_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        of_json(body, "s", "m")
    assert not isinstance(caught.value, BadPackage)


def test_texts_and_nothing_else_are_told_from_all_other_requests() -> None:
    def texts(**fields: Any) -> tuple[list[str], list[str]] | None:
        return rest.texts(rest.decode(orjson.dumps(fields)))

    assert texts(key=["a", "b"], value=["1", ""]) == (["a", "b"], ["1", ""])
    assert texts(key=["a"], value=["1", "more"]) == (["a"], ["1", "more"])
    assert texts(key=[], value=[]) == ([], [])
    for other in (
        {},
        {"key": ["a"]},
        {"key": ["a"], "tensors": []},
        {"key": ["a"], "value": ["1"], "logid": 7},
        {"key": ["a", "b"], "value": ["1"]},
        {"key": ["a"], "value": [1]},
        {"key": [None], "value": ["1"]},
        {"key": "a", "value": "1"},
        {"key": None, "value": None},
    ):
        assert texts(**other) is None


def test_an_error_is_said_twice() -> None:
    assert rest.encode_error(3, "key: expected a list") == (
        b'{"error":"key: expected a list","code":3,"message":"key: expected a list","details":[]}'
    )


# -- numbers


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (BadPackage("x"), 8000),
        (BadRequest("x"), 5000),
        (BadImage("x"), 5000),
        (NotFound("x"), 3002),
        (Unavailable("x"), 3001),
        (Overloaded("x"), 3001),
        (DeadlineExceeded("x"), 6000),
        (OpError("x"), 10000),
        (WorkerCrashed("x"), 10000),
        (ProductError(77, "x"), 77),
        (ProductError(1001, "x"), 1001),
        (ProductError("no_stock", "x"), 50),
        (ProductError(0, "x"), 50),
        (ProductError(2**40, "x"), 50),
        (PipelineError(7000, "x"), 7000),
        (PipelineError(0, "x"), 10000),
    ],
)
def test_an_error_has_its_number(error: RequestError, number: int) -> None:
    assert number_of(error) == number


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (77, ProductError), (3001, Unavailable), (3002, NotFound), (3003, OpError), (5000, BadRequest),
        (6000, DeadlineExceeded), (7000, OpError), (8000, BadPackage), (9000, OpError), (10000, OpError),
    ],
)  # fmt: skip
def test_a_number_is_an_error(number: int, kind: type) -> None:
    assert type(error_of(number, "why")) is kind and str(error_of(number, "why")) == "why"
    assert error_of(0, "") is None


def test_an_error_of_a_number_survives_a_worker() -> None:
    error = pickle.loads(pickle.dumps(PipelineError(7000, "postprocess returned a list")))
    assert (error.err_no, error.message) == (7000, "postprocess returned a list")
