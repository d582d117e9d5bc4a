"""Messages of the Open Inference Protocol's gRPC service, as bytes.

Tensors lie in a message either as raw bytes, all of them, behind everything else (`raw_input_contents`), or as typed
numbers inside their descriptions (`contents`). Both are read; raw is written. protobuf would copy raw bytes in and
out, so these fields are cut out of a message and put into it here, and protobuf gets the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from asyncline.errors import BadRequest, OpError
from asyncline.wire.oip import datatypes
from asyncline.wire.oip.datatypes import Array
from asyncline.wire.oip.messages import (
    MOST_TENSORS,
    InferRequest,
    InferResponse,
    InferTensor,
    ModelMetadata,
    Parameters,
    RequestedOutput,
    ServerMetadata,
    TensorMetadata,
    check_count,
    of,
    unique,
)
from asyncline.wire.oip.schema import message

MOST_FIELDS = 4 * MOST_TENSORS
"""Most fields of an inference: inputs, outputs, raw contents and parameters."""

_RAW_INPUT, _RAW_OUTPUT = 7, 6
_ERROR, _RESPONSE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

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
    return _join(head, _write_tensors("input", head.inputs, request.inputs), _RAW_INPUT)


def decode_request(data: bytes | memoryview) -> InferRequest:
    """Read a ModelInferRequest; arrays of raw inputs are views of `data`.

    :raises BadRequest: it is malformed, or what it says does not fit together; names the input.
    """
    rest, raw = _cut(data, _RAW_INPUT)
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
    return _join(head, _write_tensors("output", head.outputs, response.outputs), _RAW_OUTPUT)


def decode_response(data: bytes | memoryview) -> InferResponse:
    """Read a ModelInferResponse; arrays of raw outputs are views of `data`.

    :raises BadRequest: it is malformed, or what it says does not fit together; names the output.
    """
    rest, raw = _cut(data, _RAW_OUTPUT)
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
    inner = encode_response(response)
    text = error.encode(errors="replace")
    head = b"".join((_key(_ERROR), _varint(len(text)), text)) if text else b""
    return b"".join((head, _key(_RESPONSE), _varint(len(inner)), inner))


def decode_stream_response(data: bytes | memoryview) -> tuple[InferResponse, str]:
    """Read a ModelStreamInferResponse: the response, and the message of the error if it is one.

    :raises BadRequest: it is malformed.
    """
    rest, responses = _cut(data, _RESPONSE)
    error = parse("ModelStreamInferResponse", rest).error_message
    return decode_response(responses[-1] if responses else b""), error


# -- metadata


def encode_metadata(metadata: ModelMetadata) -> bytes:
    """A ModelMetadataResponse."""
    head = message("ModelMetadataResponse")(name=metadata.name, versions=metadata.versions, platform=metadata.platform)
    for target, tensors in ((head.inputs, metadata.inputs), (head.outputs, metadata.outputs)):
        for tensor in tensors:
            target.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return bytes(head.SerializeToString())


def decode_metadata(data: bytes) -> ModelMetadata:
    """Read a ModelMetadataResponse.

    :raises BadRequest: it is malformed.
    """
    head = parse("ModelMetadataResponse", data)
    return ModelMetadata(
        name=head.name,
        inputs=_read_tensors_metadata("input", head.inputs),
        outputs=_read_tensors_metadata("output", head.outputs),
        versions=tuple(head.versions),
        platform=head.platform,
    )


def encode_server_metadata(metadata: ServerMetadata) -> bytes:
    """A ServerMetadataResponse."""
    head = message("ServerMetadataResponse")(
        name=metadata.name, version=metadata.version, extensions=metadata.extensions
    )
    return bytes(head.SerializeToString())


def decode_server_metadata(data: bytes) -> ServerMetadata:
    """Read a ServerMetadataResponse.

    :raises BadRequest: it is malformed.
    """
    head = parse("ServerMetadataResponse", data)
    return ServerMetadata(head.name, head.version, tuple(head.extensions))


def decode_max_batch_size(data: bytes) -> int:
    """Most rows of a request to a model, by its ModelConfigResponse; 0 where it takes no batches.

    :raises BadRequest: it is malformed.
    """
    size = int(parse("ModelConfigResponse", data).config.max_batch_size)
    if size < 0:
        raise BadRequest("max_batch_size is no number of rows")
    return size


def parse(name: str, data: bytes) -> Any:
    """Read a message of the schema.

    :raises BadRequest: it is malformed.
    """
    try:
        return message(name).FromString(data)
    except DecodeError:
        raise BadRequest(f"the message is no {name}") from None


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


def _read_tensors_metadata(kind: str, tensors: Any) -> tuple[TensorMetadata, ...]:
    check_count(kind, tensors)
    return unique(kind, (TensorMetadata(each.name, each.datatype, tuple(each.shape)) for each in tensors))


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


def _join(head: Any, raw: list[bytes | memoryview], number: int) -> bytes:
    key = _key(number)
    parts: list[bytes | memoryview] = [head.SerializeToString()]
    for data in raw:
        parts += (key, _varint(len(data)), data)
    return b"".join(parts)


def _cut(data: bytes | memoryview, number: int) -> tuple[bytes, list[memoryview]]:
    """The bytes of every field `number` of a message, and the message without them.

    :raises BadRequest: this is no protobuf, or has too many fields.
    """
    view = memoryview(data)
    wanted = number << 3 | _BYTES
    found: list[memoryview] = []
    rest: list[memoryview] = []
    place, end, fields = 0, view.nbytes, 0
    while place < end:
        fields += 1
        if fields > MOST_FIELDS:
            raise BadRequest(f"the message has more than {MOST_FIELDS} fields")
        start = place
        key, place = _read_varint(view, place)
        wire = key & 7
        if wire == _BYTES:
            length, place = _read_varint(view, place)
        elif wire == _VARINT:
            _, place = _read_varint(view, place)
            length = 0
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise BadRequest("the message is no protobuf")
        if length > end - place:
            raise BadRequest("the message is cut off")
        if key == wanted:
            found.append(view[place : place + length])
        else:
            rest.append(view[start : place + length])
        place += length
    return b"".join(rest), found


def _key(number: int) -> bytes:
    return bytes((number << 3 | _BYTES,))


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _read_varint(view: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= view.nbytes:
            raise BadRequest("the message is cut off")
        byte = view[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise BadRequest("the message is no protobuf")
