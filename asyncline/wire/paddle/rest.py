"""JSON bodies of Paddle's REST gateway, which is protobuf's JSON: OrigName and EmitDefaults out, either spelling in."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from typing import Any

import numpy as np
import orjson

from asyncline.errors import BadRequest, RequestError
from asyncline.wire import json
from asyncline.wire.paddle import tensors
from asyncline.wire.paddle.messages import TEXTS, PaddleTensor, PipelineRequest, PipelineResponse, check_count
from asyncline.wire.paddle.schema import TENSOR
from asyncline.wire.paddle.tensors import ElemType
from asyncline.wire.weight import Scale

_RANGES = {"int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1), "int64": (-(2**63), 2**63 - 1)}
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,19})")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?|NaN|-?Infinity")
_CAMEL = {name: re.sub(r"_([a-z])", lambda found: found[1].upper(), name) for _, name in TENSOR.values()}
_ESCAPES = ((b"&", rb"\u0026"), (b"<", rb"\u003c"), (b">", rb"\u003e"))
_WIDE_ESCAPES = (("\u2028".encode(), rb"\u2028"), ("\u2029".encode(), rb"\u2029"))
"""What Go writes of characters that orjson leaves as they are; none occurs outside of strings."""


def decode(body: bytes, scale: Scale | None = None) -> dict[str, Any]:
    """The object that a body is: `texts` or `request` says what it asks; no body is an empty one.

    :param scale: weighs it.
    :raises BadRequest: it is no JSON object.
    :raises TooLarge: it weighs too much.
    """
    head = json.decode(body, scale=scale) if body else {}
    if type(head) is not dict:
        raise BadRequest("the body is no JSON object")
    return head


def texts(head: dict[str, Any]) -> tuple[list[str], list[str]] | None:
    """Keys and values of a request that has a text for each key and nothing else, as most; None where it is another.

    In half the time: nothing of it is in the core's caches when a request comes.
    """
    keys, values = head.get("key"), head.get("value")
    if len(head) != 2 or type(keys) is not list or type(values) is not list or len(values) < len(keys):
        return None
    return (keys, values) if TEXTS.issuperset(map(type, keys + values)) else None


def request(head: dict[str, Any], name: str, method: str) -> PipelineRequest:
    """What an object asks, whatever it is.

    :param name, method: from the path; they count, not those of the body.
    :raises BadRequest: a field has the wrong type; names it.
    :raises BadPackage: a tensor does not fit together; names it.
    """
    keys, values = _strings(head, "key"), _strings(head, "value")
    _string(head, "name")
    _string(head, "method")
    logid, clientip = _integer(head, "logid", "int64"), _string(head, "clientip")
    return PipelineRequest(name, method, keys, values, logid, clientip, _tensors(head))


def encode_response(response: PipelineResponse) -> bytes:
    """A body: its five fields, always all of them.

    :raises OpError: an array is not of its elem_type.
    """
    fields = {
        "err_no": response.err_no,
        "err_msg": response.err_msg,
        "key": response.key,
        "value": response.value,
        "tensors": [_write_tensor(tensor) for tensor in response.tensors] if response.tensors else [],
    }
    try:
        body = orjson.dumps(fields)
    except orjson.JSONEncodeError:  # half of a surrogate pair in a string
        body = orjson.dumps(_clean(fields))
    return _escaped(body)


def encode_texts(values: dict[Any, Any]) -> bytes | None:
    """The body of an answer that has a text for each key, and nothing else; None where it is another.

    What most answers are, in half the time: nothing of it is in the core's caches when a request is over.
    """
    keys, texts = [*values], [*values.values()]
    if not TEXTS.issuperset(map(type, keys + texts)):
        return None
    try:
        return _escaped(orjson.dumps({"err_no": 0, "err_msg": "", "key": keys, "value": texts, "tensors": []}))
    except orjson.JSONEncodeError:
        return None


def _escaped(body: bytes) -> bytes:
    is_ascii = body.isascii()
    if is_ascii and len(body.translate(None, b"&<>")) == len(body):
        return body  # as most are
    for character, escape in _ESCAPES if is_ascii else _ESCAPES + _WIDE_ESCAPES:
        body = body.replace(character, escape)
    return body


def encode_error(code: int, message: str) -> bytes:
    """The body of an HTTP error.

    :param code: a status of gRPC; 3 where the request is malformed.
    """
    return orjson.dumps({"error": message, "code": code, "message": message, "details": []})


# -- values out of JSON objects; null is as absent


def _list(head: dict[str, Any], key: str) -> list[Any]:
    value = head.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRequest(f"{key}: expected a list")
    return value


def _strings(head: dict[str, Any], key: str) -> list[str]:
    values = _list(head, key)
    if not TEXTS.issuperset(map(type, values)):
        raise BadRequest(f"{key}: expected strings")
    return values


def _string(head: dict[str, Any], key: str) -> str:
    value = head.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRequest(f"{key}: expected a string")
    return value


def _integer(head: dict[str, Any], key: str, kind: str) -> int:
    value = head.get(key)
    return 0 if value is None else _integers([value], key, kind)[0]


def _integers(values: list[Any], key: str, kind: str) -> list[int]:
    """Whole numbers, each a number or a string of one."""
    if set(map(type, values)) - {int}:
        values = [int(value) if type(value) is str and _INTEGER.fullmatch(value) else value for value in values]
        if not all(type(value) is int for value in values):
            raise BadRequest(f"{key}: expected whole numbers")
    low, high = _RANGES[kind]
    if values and not (low <= min(values) and max(values) <= high):
        raise BadRequest(f"{key}: a number is out of the range of {kind}")
    return values


def _numbers(values: list[Any], key: str) -> list[float]:
    if set(map(type, values)) - {int, float}:
        values = [float(value) if type(value) is str and _NUMBER.fullmatch(value) else value for value in values]
        if not all(type(value) in (int, float) for value in values):
            raise BadRequest(f"{key}: expected numbers")
    return values


def _booleans(values: list[Any], key: str) -> list[bool]:
    if set(map(type, values)) - {bool}:
        raise BadRequest(f"{key}: expected booleans")
    return values


def _bytes(head: dict[str, Any], key: str) -> bytes:
    try:
        return b64decode(_string(head, key), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"{key}: expected base64") from None


# -- tensors


def _tensors(head: dict[str, Any]) -> list[PaddleTensor]:
    values = _list(head, "tensors")
    check_count(values)
    return [_tensor(position, value) for position, value in enumerate(values)]


def _tensor(position: int, value: Any) -> PaddleTensor:
    if not isinstance(value, dict):
        raise BadRequest(f"tensors: expected objects, got something else at {position}")
    head = {name: value.get(_CAMEL[name], value.get(name)) for name in _CAMEL}
    name = f"tensor {position}"
    try:
        name = _string(head, "name")
        number, shape = _integer(head, "elem_type", "int32"), _integers(_list(head, "shape"), "shape", "int32")
        lod = _integers(_list(head, "lod"), "lod", "int32")
        found = {field: _elements(head, kind, field) for kind, field in TENSOR.values() if head[field] is not None}
        kind = tensors.elem_type(number)
        elements = found.get(kind.field, b"" if kind is ElemType.BYTES else [])
        return PaddleTensor(name, tensors.decode(kind, shape, elements), kind, lod)
    except RequestError as error:
        error.message = f"tensor {name[:64]!r}: {error.message}"
        raise


def _elements(head: dict[str, Any], kind: str, field: str) -> Any:
    """The value of one field, which has the type that the schema says."""
    if kind == "bytes":
        return _bytes(head, field)
    if kind == "string*":
        return _strings(head, field)
    if not kind.endswith("*"):
        return head[field]
    values, single = _list(head, field), kind.removesuffix("*")
    if single == "bool":
        return _booleans(values, field)
    return _integers(values, field, single) if single in _RANGES else _numbers(values, field)


def _write_tensor(tensor: PaddleTensor) -> dict[str, Any]:
    kind = ElemType.of(tensor.array) if tensor.elem_type is None else tensor.elem_type
    try:
        elements = tensors.encode(kind, tensor.array)
    except RequestError as error:
        error.message = f"tensor {tensor.name[:64]!r}: {error.message}"
        raise
    if kind is ElemType.BYTES:
        elements = b64encode(elements).decode()
    elif kind is ElemType.INT64:
        elements = list(map(str, elements))
    elif tensor.array.dtype.kind == "f" and not np.isfinite(tensor.array).all():
        elements = [_float(number) for number in elements]
    written: dict[str, Any] = {name: [] if type.endswith("*") else "" for type, name in TENSOR.values()}
    written[kind.field] = elements
    return written | {
        "elem_type": int(kind), "shape": tensor.shape, "lod": tensor.lod, "name": tensor.name,
    }  # fmt: skip


def _float(number: float) -> float | str:
    if np.isfinite(number):
        return number
    return "NaN" if np.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [_clean(each) for each in value]
    return {key: _clean(each) for key, each in value.items()} if isinstance(value, dict) else value
