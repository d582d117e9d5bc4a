"""Bodies of the Open Inference Protocol's REST API.

A body is JSON. With the binary tensor extension it is JSON and then raw tensors, in the order in which the JSON names
them, and the header `Inference-Header-Content-Length` tells how long the JSON is:

    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}]}........

Clients send that header for plain JSON too, with the length of it all. Lengths are those after decompression.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncline.errors import BadRequest
from asyncline.wire import json
from asyncline.wire.oip import datatypes, objects, spans
from asyncline.wire.oip.messages import (
    InferRequest,
    InferResponse,
    InferTensor,
    RequestedOutput,
    TensorMetadata,
    check_count,
    of,
    unique,
)
from asyncline.wire.weight import Scale

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY = "binary_tensor_data"
"""The extension's name in a server's metadata."""

LARGE_NBYTES = 256 * 1024
"""A JSON text over this size is read piece by piece where it can be."""
ALIGNMENT = 64
JOINED_NBYTES = 64 * 1024
"""Up to here, copying a body into one piece costs less than sending it in several."""

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Body:
    """A body to be sent: its parts, one after the other."""

    parts: tuple[bytes | memoryview, ...]
    """The JSON, and then raw tensors; one of both where that is short."""
    header_nbytes: int | None
    """For `Inference-Header-Content-Length`; None where all is JSON."""

    @property
    def nbytes(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def content_type(self) -> str:
        return "application/json" if self.header_nbytes is None else "application/octet-stream"


def parse_header_length(text: str | None, nbytes: int) -> int | None:
    """The length of the JSON in a body of `nbytes`, by the header's value. 0: there is none; see `decode_raw_request`.

    :raises BadRequest: it is no number, or more than there is.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BadRequest(f"{HEADER_LENGTH} {text[:32]!r} is no number of bytes")
    if int(text) > nbytes:
        raise BadRequest(f"{HEADER_LENGTH} {text} is more than the body's {nbytes} bytes")
    return int(text)


def room(nbytes: int, header_nbytes: int | None = None) -> memoryview:
    """Memory to receive a body in, such that the first tensor begins where numbers may lie: it need not be copied."""
    pad = -(header_nbytes or 0) % ALIGNMENT
    memory = np.empty(pad + nbytes + ALIGNMENT, np.uint8)
    pad += -memory.ctypes.data % ALIGNMENT
    return memory[pad : pad + nbytes].data


def takes_long(body: Buffer, header_nbytes: int | None) -> bool:
    """Whether to read a request is too much for a turn of the loop: raw numbers are only looked at, others are not."""
    if len(body) <= LARGE_NBYTES:
        return False
    size = len(body) if header_nbytes is None else header_nbytes
    return size > LARGE_NBYTES or not size or b"BYTES" in bytes(body[:size])


# -- inference


def encode_request(request: InferRequest, *, binary: bool = True) -> Body:
    """A request; its model and version stand in the path, not here.

    :param binary: inputs as raw bytes, else as lists.
    :raises OpError: an array is not of its datatype.
    :raises BadRequest: an input has no form in JSON.
    """
    tensors, raw = _encode_tensors(
        "input", request.inputs, {tensor.name for tensor in request.inputs} if binary else ()
    )
    head: dict[str, Any] = {"id": request.id} if request.id else {}
    parameters = dict(request.parameters)
    if request.binary_output:
        parameters["binary_data_output"] = True
    if parameters:
        head["parameters"] = parameters
    head["inputs"] = tensors
    if request.outputs:
        head["outputs"] = [_encode_requested(output) for output in request.outputs]
    return _body(head, raw)


def decode_request(
    body: Buffer,
    header_nbytes: int | None = None,
    scale: Scale | None = None,
    *,
    model_name: str = "",
    model_version: str = "",
) -> InferRequest:
    """A request; arrays of raw inputs are views of `body`.

    :param header_nbytes: as of `parse_header_length`, but not 0.
    :param scale: weighs it.
    :raises BadRequest: it is malformed, or what it says does not fit together; names the input.
    :raises TooLarge: it weighs too much.
    """
    head, raw, lists = _split(body, header_nbytes, scale)
    parameters = dict(objects.parameters(head))
    binary_output = objects.pop_flag(parameters, "binary_data_output") or False
    inputs = tuple(_decode_tensors("input", head, raw, lists, scale))
    outputs = objects.as_list(head, "outputs")
    check_count("output", outputs)
    return InferRequest(
        inputs=inputs,
        model_name=model_name,
        model_version=model_version,
        id=objects.text(head, "id"),
        outputs=unique("output", map(_decode_requested, outputs)),
        binary_output=binary_output,
        parameters=parameters,
    )


def decode_raw_request(
    body: Buffer, metadata: TensorMetadata, *, batches: bool, model_name: str = "", model_version: str = ""
) -> InferRequest:
    """A request that is the raw bytes of a model's only input, as a header length of 0 says.

    :param metadata: of that input; at most one length may be open beside the batch, which is 1.
    :param batches: whether the first length is the batch.
    :raises BadRequest: its shape cannot be told, or the bytes do not fit it.
    """
    with of("input", metadata.name):
        dtype = datatypes.check_datatype(metadata.datatype)
        view = _view(body)
        shape = list(metadata.shape)
        if batches:
            shape[0] = 1
        if metadata.datatype == "BYTES":
            # All of it is the one element, without a length of its own.
            shape = [1 if length == -1 else length for length in shape]
            if datatypes.count(shape) != 1:
                raise BadRequest("raw bytes can be one element only")
            array = np.empty(1, object)
            array[0] = bytes(view)
            array = array.reshape(shape)
        else:
            if shape.count(-1) > 1:
                raise BadRequest(f"raw bytes do not tell the shape, {list(metadata.shape)}")
            if -1 in shape:
                row = datatypes.count([length for length in shape if length != -1]) * dtype.itemsize
                shape[shape.index(-1)] = view.nbytes // row if row else 0
            array = datatypes.from_raw(view, metadata.datatype, shape)
    tensor = InferTensor(metadata.name, metadata.datatype, array)
    return InferRequest((tensor,), model_name=model_name, model_version=model_version, binary_output=True)


def encode_response(response: InferResponse, request: InferRequest) -> Body:
    """An answer, each output in the form that the request asked for.

    :raises OpError: an array is not of its datatype.
    :raises BadRequest: an output has no form in JSON, and was not asked for as raw bytes.
    """
    binary = {output.name for output in response.outputs if request.wants_binary(output.name)}
    tensors, raw = _encode_tensors("output", response.outputs, binary)
    head: dict[str, Any] = {"id": response.id} if response.id else {}
    head["model_name"] = response.model_name
    if response.model_version:
        head["model_version"] = response.model_version
    if response.parameters:
        head["parameters"] = response.parameters
    head["outputs"] = tensors
    return _body(head, raw)


def decode_response(body: Buffer, header_nbytes: int | None = None) -> InferResponse:
    """An answer; arrays of raw outputs are views of `body`.

    :raises BadRequest: it is malformed, or what it says does not fit together; names the output.
    """
    head, raw, lists = _split(body, header_nbytes)
    return InferResponse(
        outputs=tuple(_decode_tensors("output", head, raw, lists)),
        model_name=objects.text(head, "model_name"),
        model_version=objects.text(head, "model_version"),
        id=objects.text(head, "id"),
        parameters=objects.parameters(head),
    )


# -- parts of them


def _body(head: dict[str, Any], raw: list[bytes | memoryview]) -> Body:
    text = json.encode(head)
    parts = (text, *raw)
    if raw and sum(map(len, parts)) <= JOINED_NBYTES:
        parts = (b"".join(parts),)
    return Body(parts, len(text) if raw else None)


def _view(body: Buffer) -> memoryview:
    return memoryview(body).cast("B")


def _split(
    body: Buffer, header_nbytes: int | None, scale: Scale | None = None
) -> tuple[dict[str, Any], memoryview, spans.Spans]:
    """The JSON, the raw tensors behind it, and long lists that were cut out of the JSON."""
    view = _view(body)
    size = view.nbytes if header_nbytes is None else header_nbytes
    lists: spans.Spans = {}
    text: Any = view[:size]  # orjson reads a view as it is
    if size > LARGE_NBYTES:
        text, lists = spans.cut(bytes(text))
    return objects.as_object(json.decode(text, scale=scale)), view[size:], lists


def _encode_tensors(
    kind: str, tensors: tuple[InferTensor, ...], binary: Iterable[str]
) -> tuple[list[dict[str, Any]], list[bytes | memoryview]]:
    written, raw = [], []
    for tensor in tensors:
        parameters = dict(tensor.parameters)
        head: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        with of(kind, tensor.name):
            if tensor.name in binary:
                data = datatypes.to_raw(tensor.array, tensor.datatype)
                raw.append(data)
                parameters["binary_data_size"] = len(data)
            else:
                head["data"] = datatypes.to_json(tensor.array, tensor.datatype)
        if parameters:
            head["parameters"] = parameters
        written.append(head)
    return written, raw


def _decode_tensors(
    kind: str, head: dict[str, Any], raw: memoryview, lists: spans.Spans, scale: Scale | None = None
) -> Iterable[InferTensor]:
    """The tensors of a message; all of `raw` has to be used up."""
    tensors = objects.as_list(head, f"{kind}s")
    check_count(kind, tensors)
    place = 0
    found = []
    for position, value in enumerate(tensors):
        tensor, size = _decode_tensor(kind, position, value, raw[place:], lists, scale)
        found.append(tensor)
        place += size
    if place != raw.nbytes:
        raise BadRequest(f"{raw.nbytes - place} bytes come after the last {kind}")
    return unique(kind, found)


def _decode_tensor(
    kind: str, position: int, value: Any, raw: memoryview, lists: spans.Spans, scale: Scale | None
) -> tuple[InferTensor, int]:
    head, name = objects.named(kind, position, value)
    with of(kind, name):
        datatype, shape = objects.text(head, "datatype"), objects.shape(head)
        parameters = dict(objects.parameters(head))
        size = parameters.pop("binary_data_size", None)
        data = head.get("data")
        if any(key.startswith("shared_memory_") for key in parameters):
            raise BadRequest("its data are in shared memory, which is not served")
        if size is None:
            if data is None:
                raise BadRequest("has neither data nor binary_data_size")
            if isinstance(data, str) and data in lists:
                array = spans.array(lists[data], datatype, shape, scale)
            else:
                array = datatypes.from_json(data, datatype, shape)
            return InferTensor(name, datatype, array, parameters), 0
        if data is not None:
            raise BadRequest("has both data and binary_data_size")
        if type(size) is not int or size < 0:
            raise BadRequest("binary_data_size is no number of bytes")
        if size > raw.nbytes:
            raise BadRequest(f"binary_data_size is {size}, but {raw.nbytes} bytes are left of the body")
        if scale is not None and datatype == "BYTES":
            scale.add_strings(size, datatypes.count(shape))
        return InferTensor(name, datatype, datatypes.from_raw(raw[:size], datatype, shape), parameters), size


def _encode_requested(output: RequestedOutput) -> dict[str, Any]:
    parameters = dict(output.parameters)
    if output.binary is not None:
        parameters["binary_data"] = output.binary
    return {"name": output.name, **({"parameters": parameters} if parameters else {})}


def _decode_requested(value: Any) -> RequestedOutput:
    head, name = objects.named("output", 0, value)
    with of("output", name):
        parameters = dict(objects.parameters(head))
        if any(key.startswith("shared_memory_") for key in parameters):
            raise BadRequest("is asked for in shared memory, which is not served")
        return RequestedOutput(name, objects.pop_flag(parameters, "binary_data"), parameters)
