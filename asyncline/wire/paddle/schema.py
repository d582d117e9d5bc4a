"""The protobuf messages of Paddle's pipelines, in a descriptor pool of their own.

Two numberings of a request are in use. That of 0.7 and later (proto3) is `Request` here. That of 0.4 to 0.6, which the
Java SDK still has (proto2), is `LegacyRequest`. Answers of those are wire-compatible with today's `Response`. Requests
of 0.3 and earlier cannot be told from today's, and want other answers; they are not served.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2  # type: ignore[import-untyped]

from asyncline.wire.schema import Schema

PACKAGE = "baidu.paddle_serving.pipeline_serving"
SERVICE = f"{PACKAGE}.PipelineService"
METHOD = f"/{SERVICE}/inference"
"""The path of the service's only method."""

_OPTIONAL, _REPEATED = 1, 3
_KINDS = {"double": 1, "float": 2, "int64": 3, "int32": 5, "bool": 8, "string": 9, "Tensor": 11, "bytes": 12,
          "uint32": 13}  # fmt: skip

_Fields = dict[int, tuple[str, str]]

TENSOR: _Fields = {
    1: ("int64*", "int64_data"),
    2: ("float*", "float_data"),
    3: ("int32*", "int_data"),
    4: ("double*", "float64_data"),
    5: ("uint32*", "uint32_data"),
    6: ("bool*", "bool_data"),
    7: ("float*", "complex64_data"),
    8: ("double*", "complex128_data"),
    9: ("string*", "str_data"),
    10: ("bytes", "byte_data"),
    20: ("int32", "elem_type"),
    21: ("int32*", "shape"),
    22: ("int32*", "lod"),
    23: ("string", "name"),
}
"""The fields by number; a star is for repeated."""
REQUEST: _Fields = {
    1: ("string*", "key"),
    2: ("string*", "value"),
    3: ("Tensor*", "tensors"),
    4: ("string", "name"),
    5: ("string", "method"),
    6: ("int64", "logid"),
    7: ("string", "clientip"),
}
RESPONSE: _Fields = {
    1: ("int32", "err_no"),
    2: ("string", "err_msg"),
    3: ("string*", "key"),
    4: ("string*", "value"),
    5: ("Tensor*", "tensors"),
}
LEGACY_REQUEST: _Fields = {
    1: ("string*", "key"),
    2: ("string*", "value"),
    3: ("string", "name"),
    4: ("string", "method"),
    5: ("int64", "logid"),
    6: ("string", "clientip"),
}


def _file(name: str, syntax: str, messages: dict[str, _Fields]) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=name, package=PACKAGE, syntax=syntax)
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for number, (kind, field_name) in fields.items():
            single = kind.removesuffix("*")
            field = message.field.add(name=field_name, number=number, type=_KINDS[single])
            field.label = _REPEATED if kind.endswith("*") else _OPTIONAL
            if single == "Tensor":
                field.type_name = f".{PACKAGE}.Tensor"
    return file


def _service() -> bytes:
    file = _file("pipeline_service.proto", "proto3", {"Tensor": TENSOR, "Request": REQUEST, "Response": RESPONSE})
    method = file.service.add(name="PipelineService").method.add(name="inference")
    method.input_type, method.output_type = f".{PACKAGE}.Request", f".{PACKAGE}.Response"
    data: bytes = file.SerializeToString()
    return data


FILE = _service()
"""The FileDescriptorProto of today's messages and of the service."""

_schema = Schema(
    FILE,
    _file("legacy_pipeline_service.proto", "proto2", {"LegacyRequest": LEGACY_REQUEST}).SerializeToString(),
    package=PACKAGE,
)
pool, message, parse = _schema.pool, _schema.message, _schema.parse
