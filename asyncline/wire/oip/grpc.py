"""Messages of the Open Inference Protocol's gRPC service, as bytes.

Tensors lie in a message either as raw bytes, all of them, behind everything else (`raw_input_contents`), or as typed
numbers inside their descriptions (`contents`). Both are read; raw is written. protobuf would copy raw bytes in and
out, so these fields are cut out of a message and put into it here, and protobuf gets the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from asyncline.errors import BadRequest, OpError
from asyncline.wire import protobuf
from asyncline.wire.oip import datatypes
from asyncline.wire.oip.datatypes import Array
from asyncline.wire.oip.messages import (
    InferRequest,
    InferResponse,
    InferTensor,
    Parameters,
    RequestedOutput,
    check_count,
    of,
    unique,
)
from asyncline.wire.oip.schema import message, parse

_RAW_INPUT, _RAW_OUTPUT = 7, 6
_RESPONSE = 2

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}  # fmt: skip


# -- inference


def encode_request(request: InferRequest) -> bytes:
    """A ModelInferRequest.

    :raises OpError: an array is not of its datatype, or a parameter has no form in protobuf.
    """
    head = message("ModelInferRequest")(
        model_name=request.model_name, model_version=request.model_version, id=request.id
    )
    _write_parameters(head.parameters, request.parameters)
    for output in request.outputs:
        _write_parameters(head.outputs.add(name=output.name).parameters, output.parameters)
    return _joined(head, _RAW_INPUT, _write_tensors("input", head.inputs, request.inputs))


def decode_request(data: bytes | memoryview) -> InferRequest:
    """Read a ModelInferRequest; arrays of raw inputs are views of `data`.

    :raises BadRequest: it is malformed, or what it says does not fit together; names the input.
    """
    rest, raw = protobuf.cut(data, _RAW_INPUT)
    head = parse("ModelInferRequest", rest)
    check_count("output", head.outputs)
    outputs = (RequestedOutput(output.name, parameters=_read_parameters(output.parameters)) for output in head.outputs)
    for output in head.outputs:
        if any(key.startswith("shared_memory_") for key in output.parameters):
            raise BadRequest(f"output {output.name!r}: is asked for in shared memory, which is not served")
    return InferRequest(
        inputs=_read_tensors("input", head.inputs, raw),
        model_name=head.model_name,
        model_version=head.model_version,
        id=head.id,
        outputs=unique("output", outputs),
        parameters=_read_parameters(head.parameters),
    )


def encode_response(response: InferResponse) -> bytes:
    """A ModelInferResponse.

    :raises OpError: an array is not of its datatype, or a parameter has no form in protobuf.
    """
    head = message("ModelInferResponse")(
        model_name=response.model_name, model_version=response.model_version, id=response.id
    )
    _write_parameters(head.parameters, response.parameters)
    return _joined(head, _RAW_OUTPUT, _write_tensors("output", head.outputs, response.outputs))


def decode_response(data: bytes | memoryview) -> InferResponse:
    """Read a ModelInferResponse; arrays of raw outputs are views of `data`.

    :raises BadRequest: it is malformed, or what it says does not fit together; names the output.
    """
    rest, raw = protobuf.cut(data, _RAW_OUTPUT)
    head = parse("ModelInferResponse", rest)
    return InferResponse(
        outputs=_read_tensors("output", head.outputs, raw),
        model_name=head.model_name,
        model_version=head.model_version,
        id=head.id,
        parameters=_read_parameters(head.parameters),
    )


def encode_stream_response(response: InferResponse, error: str = "") -> bytes:
    """A ModelStreamInferResponse. An error comes with a response that has no outputs, but the id of its request."""
    head = message("ModelStreamInferResponse")(error_message=error.encode(errors="replace").decode())
    return protobuf.join(head.SerializeToString(), _RESPONSE, [encode_response(response)])


def decode_stream_response(data: bytes | memoryview) -> tuple[InferResponse, str]:
    """Read a ModelStreamInferResponse: the response, and the message of the error if it is one.

    :raises BadRequest: it is malformed.
    """
    rest, responses = protobuf.cut(data, _RESPONSE)
    error = parse("ModelStreamInferResponse", rest).error_message
    return decode_response(responses[-1] if responses else b""), error


# -- parts of them


def _write_tensors(kind: str, target: Any, tensors: Iterable[InferTensor]) -> list[bytes | memoryview]:
    raw = []
    for tensor in tensors:
        with of(kind, tensor.name):
            raw.append(datatypes.to_raw(tensor.array, tensor.datatype))
            written = target.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            _write_parameters(written.parameters, tensor.parameters)
    return raw


def _read_tensors(kind: str, tensors: Any, raw: list[memoryview]) -> tuple[InferTensor, ...]:
    check_count(kind, tensors)
    if raw and len(raw) != len(tensors):
        raise BadRequest(f"{len(tensors)} {kind}s, but raw contents of {len(raw)}")
    found = []
    for position, tensor in enumerate(tensors):
        if not tensor.name:
            raise BadRequest(f"{kind} {position} has no name")
        with of(kind, tensor.name):
            parameters = _read_parameters(tensor.parameters)
            if any(key.startswith("shared_memory_") for key in parameters):
                raise BadRequest("its data are in shared memory, which is not served")
            if not raw:
                array = _read_contents(tensor)
            elif tensor.contents.ListFields():
                raise BadRequest("has both raw and typed contents")
            else:
                array = datatypes.from_raw(raw[position], tensor.datatype, tensor.shape)
            found.append(InferTensor(tensor.name, tensor.datatype, array, parameters))
    return unique(kind, found)


def _read_contents(tensor: Any) -> Array:
    """The typed numbers of a tensor."""
    datatype, shape = tensor.datatype, tensor.shape
    datatypes.check_datatype(datatype)
    size = datatypes.count(shape)
    if datatype not in _CONTENTS:
        raise BadRequest(f"{datatype} has no typed contents: send it raw")
    expected = _CONTENTS[datatype]
    for field, values in tensor.contents.ListFields():
        if field.name != expected:
            raise BadRequest(f"{datatype} has {expected}, got {field.name}")
        if len(values) != size:
            raise BadRequest(f"shape {list(shape)} is {size} elements, got {len(values)}")
    values = getattr(tensor.contents, expected)
    if len(values) != size:
        raise BadRequest(f"shape {list(shape)} is {size} elements, got none")
    if datatype == "BYTES":
        return datatypes.from_strings(list(values), shape)
    return datatypes.from_numbers(values, datatype).reshape(shape)


def _write_parameters(target: Any, parameters: Parameters) -> None:
    for key, value in parameters.items():
        if isinstance(value, bool):
            target[key].bool_param = value
        elif isinstance(value, int) and -(2**63) <= value < 2**64:
            setattr(target[key], "int64_param" if value < 2**63 else "uint64_param", value)
        elif isinstance(value, float):
            target[key].double_param = value
        elif isinstance(value, str):
            target[key].string_param = value
        else:
            raise OpError(f"parameter {key!r} is of type {type(value).__name__}, which gRPC does not carry")


def _read_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for key, value in parameters.items():
        kind = value.WhichOneof("parameter_choice")
        found[key] = getattr(value, kind) if kind is not None else None
    return found


def _joined(head: Any, number: int, raw: list[bytes | memoryview]) -> bytes:
    # Not in one line with what fills `head`: that has to come first.
    return protobuf.join(head.SerializeToString(), number, raw)
