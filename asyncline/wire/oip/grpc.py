"""Messages of the Open Inference Protocol's gRPC service, as bytes.

Tensors lie in a message either as raw bytes, all of them, behind everything else (`raw_input_contents`), or as typed
numbers inside their descriptions (`contents`). Both are read; raw is written. protobuf would copy raw bytes in and
out, so these fields are cut out of a message and put into it here, and protobuf gets the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from asyncline.errors import BadRequest, OpError, TooLarge
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
from asyncline.wire.weight import Scale

_RAW_INPUT, _RAW_OUTPUT = 7, 6
_RESPONSE = 2

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}  # fmt: skip
_FIELDS = {each.number: each.name for each in message("InferTensorContents").DESCRIPTOR.fields}
_WIDTHS = {"fp32_contents": 4, "fp64_contents": 8}
"""Of those that are no varints."""
_INPUTS, _OUTPUTS, _TENSOR_CONTENTS = 5, 6, 5

MANY_NBYTES = 4096
"""Of what is not raw; the numbers of larger messages are not handed through protobuf, which makes objects of them."""
LARGE_NBYTES = 256 * 1024
"""Messages over this size are read in a thread, where it is not only raw numbers that they have."""
MOST_HEAD_NBYTES = 128 * 1024
"""Of a request without its tensors' data: names, shapes and parameters, of which protobuf makes objects."""
_STRING = 128
"""What a field of typed contents that are not packed may become, besides its bytes."""

Packed = tuple[int, memoryview]
"""Number and bytes of a field of packed numbers."""


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


def takes_long(data: bytes | memoryview) -> bool:
    """Whether to read a ModelInferRequest is too much for a turn of the loop: raw numbers are only looked at, others
    are not.

    :raises BadRequest: it is malformed.
    """
    if len(data) <= LARGE_NBYTES:
        return False
    rest, _ = protobuf.cut(data, _RAW_INPUT)
    return len(rest) > LARGE_NBYTES or b"BYTES" in rest


def decode_request(data: bytes | memoryview, scale: Scale | None = None) -> InferRequest:
    """Read a ModelInferRequest; arrays of raw inputs are views of `data`.

    :param scale: weighs what its typed contents become.
    :raises BadRequest: it is malformed, or what it says does not fit together; names the input.
    :raises TooLarge: it weighs too much, or so do its names, shapes and parameters.
    """
    rest, raw = protobuf.cut(data, _RAW_INPUT)
    numbers: dict[int, Packed] = {}
    if len(rest) > MANY_NBYTES:
        rest, numbers = _cut_contents(rest, scale)
    head = parse("ModelInferRequest", rest)
    check_count("output", head.outputs)
    outputs = (RequestedOutput(output.name, parameters=_read_parameters(output.parameters)) for output in head.outputs)
    for output in head.outputs:
        if any(key.startswith("shared_memory_") for key in output.parameters):
            raise BadRequest(f"output {output.name!r}: is asked for in shared memory, which is not served")
    return InferRequest(
        inputs=_read_tensors("input", head.inputs, raw, numbers, scale),
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


def _cut_contents(rest: bytes, scale: Scale | None) -> tuple[bytes, dict[int, Packed]]:
    """A ModelInferRequest without the packed numbers of its inputs, and these, by the place of the input."""
    rest, outputs = protobuf.cut(rest, _OUTPUTS)
    rest, inputs = protobuf.cut(rest, _INPUTS)
    check_count("input", inputs)
    head_nbytes = len(rest) + sum(map(len, outputs))
    kept: list[bytes | memoryview] = []
    numbers: dict[int, Packed] = {}
    for place, tensor in enumerate(inputs):
        head, contents = protobuf.cut(tensor, _TENSOR_CONTENTS)
        head_nbytes += len(head)
        found = protobuf.packed(contents[0]) if len(contents) == 1 else None
        if found is not None and _FIELDS.get(found[0], "bytes_contents") != "bytes_contents":
            kept.append(head)
            numbers[place] = found
            continue
        kept.append(tensor)
        for part in contents:
            fields = protobuf.count(part, datatypes.MOST_STRINGS)
            if scale is not None:
                scale.add(len(part) + _STRING * fields)
    if head_nbytes > MOST_HEAD_NBYTES:
        raise TooLarge(f"{head_nbytes} bytes of names, shapes and parameters are over the limit of {MOST_HEAD_NBYTES}")
    return protobuf.join(protobuf.join(rest, _OUTPUTS, outputs), _INPUTS, kept), numbers


def _read_tensors(
    kind: str,
    tensors: Any,
    raw: list[memoryview],
    numbers: Mapping[int, Packed] = MappingProxyType({}),
    scale: Scale | None = None,
) -> tuple[InferTensor, ...]:
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
                packed = numbers.get(position)
                array = _read_contents(tensor) if packed is None else _read_packed(tensor, packed, scale)
            elif position in numbers or tensor.contents.ListFields():
                raise BadRequest("has both raw and typed contents")
            else:
                data = raw[position]
                if scale is not None and tensor.datatype == "BYTES":
                    scale.add_strings(data.nbytes, datatypes.count(tensor.shape))
                array = datatypes.from_raw(data, tensor.datatype, tensor.shape)
            found.append(InferTensor(tensor.name, tensor.datatype, array, parameters))
    return unique(kind, found)


def _field_of(datatype: str) -> str:
    """Of the typed contents."""
    datatypes.check_datatype(datatype)
    if datatype not in _CONTENTS:
        raise BadRequest(f"{datatype} has no typed contents: send it raw")
    return _CONTENTS[datatype]


def _check_contents(tensor: Any, field: str, count: int) -> None:
    expected, size = _field_of(tensor.datatype), datatypes.count(tensor.shape)
    if field != expected:
        raise BadRequest(f"{tensor.datatype} has {expected}, got {field}")
    if count != size:
        raise BadRequest(f"shape {list(tensor.shape)} is {size} elements, got {count}")


def _read_packed(tensor: Any, packed: Packed, scale: Scale | None) -> Array:
    """The typed numbers of a tensor, which never were protobuf's."""
    datatype, field, data = tensor.datatype, _FIELDS[packed[0]], packed[1]
    width = _WIDTHS.get(field)
    if width:
        if data.nbytes % width:
            raise BadRequest("a number of the message is cut off")
        _check_contents(tensor, field, data.nbytes // width)
        return datatypes.from_raw(data, datatype, tensor.shape)
    size = protobuf.count_varints(data)
    _check_contents(tensor, field, size)
    array: Array = np.empty(size, datatypes.DTYPES[datatype])
    if scale is not None:
        scale.add(array.nbytes)
    place = 0
    for piece in protobuf.varints(data):
        array[place : place + piece.size] = _narrow(piece, datatype)
        place += piece.size
    return array.reshape(tensor.shape)


def _narrow(numbers: Array, datatype: str) -> Array:
    if datatype == "UINT64":
        return numbers.view(np.uint64)
    return numbers != 0 if datatype == "BOOL" else datatypes.from_numbers(numbers, datatype)


def _read_contents(tensor: Any) -> Array:
    """The typed numbers of a tensor."""
    datatype, shape = tensor.datatype, tensor.shape
    expected, size = _field_of(datatype), datatypes.count(shape)
    for field, values in tensor.contents.ListFields():
        _check_contents(tensor, field.name, len(values))
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
