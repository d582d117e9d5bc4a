"""Messages of Paddle's pipeline service, as bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]

from asyncline.errors import BadRequest, RequestError
from asyncline.wire import protobuf
from asyncline.wire.paddle import tensors
from asyncline.wire.paddle.messages import PaddleTensor, PipelineRequest, PipelineResponse, check_count
from asyncline.wire.paddle.schema import FILE, METHOD, SERVICE, message, parse
from asyncline.wire.paddle.tensors import Array
from asyncline.wire.weight import Scale

__all__ = ["FILE", "METHOD", "SERVICE", "decode_request", "decode_response", "encode_request", "encode_response"]

_REQUEST_TENSORS, _RESPONSE_TENSORS = 3, 5
_FLOAT_DATA = 2
MANY_NBYTES = 4096
"""Of a tensor; the floats of a larger one are not handed through protobuf, which makes an object of each."""
_PLAIN = (2, 9, 10, 23)
"""Floats, texts and bytes: a field of a Tensor that stays about as long as it is."""
_NUMBER = 24
_LEGACY_MARKS = {(5, 0), (6, 2)}
"""Number and wire type of the fields that a request of the old numbering alone can have: a logid, a clientip."""


def decode_request(data: bytes | memoryview, scale: Scale | None = None) -> PipelineRequest:
    """Read a Request of either numbering.

    :param scale: weighs its tensors.
    :raises BadRequest: it is malformed.
    :raises BadPackage: a tensor does not fit together; names it.
    :raises TooLarge: they weigh too much.
    """
    # Cut, so that the number of submessages is bounded before any is made.
    rest, found = protobuf.cut(data, _REQUEST_TENSORS)
    head = parse("Request", rest)
    if any((field.field_number, field.wire_type) in _LEGACY_MARKS for field in UnknownFieldSet(head)):
        return _decode_legacy(data)
    try:
        parts = _parse_tensors(found, scale)
    except BadRequest:
        # Field 3 may be the name in a request of the old numbering that has neither mark.
        if len(found) != 1 or head.method or head.logid or head.clientip:
            raise
        return _decode_legacy(data)
    return PipelineRequest(
        name=head.name,
        method=head.method,
        key=list(head.key),
        value=list(head.value),
        logid=head.logid,
        clientip=head.clientip,
        tensors=[_read_tensor(*part) for part in parts],
    )


def encode_request(request: PipelineRequest) -> bytes:
    """A Request of the numbering of today.

    :raises OpError: an array is not of its elem_type.
    """
    head = message("Request")(
        key=request.key, value=request.value, name=request.name, method=request.method, logid=request.logid,
        clientip=request.clientip,
    )  # fmt: skip
    return protobuf.join(head.SerializeToString(), _REQUEST_TENSORS, map(_write_tensor, request.tensors))


def decode_response(data: bytes | memoryview) -> PipelineResponse:
    """Read a Response.

    :raises BadRequest: it is malformed.
    :raises BadPackage: a tensor does not fit together; names it.
    """
    rest, found = protobuf.cut(data, _RESPONSE_TENSORS)
    head = parse("Response", rest)
    return PipelineResponse(
        err_no=head.err_no,
        err_msg=head.err_msg,
        key=list(head.key),
        value=list(head.value),
        tensors=[_read_tensor(*part) for part in _parse_tensors(found)],
    )


def encode_response(response: PipelineResponse) -> bytes:
    """A Response, which clients of both numberings read.

    :raises OpError: an array is not of its elem_type.
    """
    head = message("Response")(
        err_no=response.err_no,
        err_msg=_clean(response.err_msg),
        key=map(_clean, response.key),
        value=map(_clean, response.value),
    )
    return protobuf.join(head.SerializeToString(), _RESPONSE_TENSORS, map(_write_tensor, response.tensors))


def _decode_legacy(data: bytes | memoryview) -> PipelineRequest:
    head = parse("LegacyRequest", data)
    texts = [*head.key, *head.value, head.name, head.method, head.clientip]
    if any(isinstance(text, bytes) for text in texts):  # proto2 lets pass what is no UTF-8
        raise BadRequest("the message holds a string that is no UTF-8")
    return PipelineRequest(head.name, head.method, list(head.key), list(head.value), head.logid, head.clientip)


def _parse_tensors(found: list[memoryview], scale: Scale | None = None) -> list[tuple[Any, Array | None]]:
    check_count(found)
    if scale is not None:
        scale.add(sum(_weight(part) for part in found if part.nbytes > MANY_NBYTES))
    return [_parse_tensor(part) for part in found]


def _weight(part: memoryview) -> int:
    """What a Tensor may become: a number is 8 bytes of protobuf's, and twice so in arrays."""
    found = 0
    try:
        for key, _, value in protobuf.fields(part, protobuf.MOST_FIELDS):
            numbers = 0 if key >> 3 in _PLAIN else protobuf.count_varints(value)
            found += value.nbytes + _NUMBER * numbers
    except BadRequest:
        return part.nbytes * _NUMBER  # they are not packed, or it is none
    return found


def _parse_tensor(part: memoryview) -> tuple[Any, Array | None]:
    """A Tensor; and where it has many floats, these by themselves, over the memory of the message."""
    if part.nbytes > MANY_NBYTES:
        try:
            rest, chunks = protobuf.cut(part, _FLOAT_DATA)
        except BadRequest:
            chunks = []  # they are not packed, so there are more fields than are looked at
        if len(chunks) == 1 and chunks[0].nbytes % 4 == 0:
            tensor = parse("Tensor", rest)
            if not tensor.float_data:
                return tensor, np.frombuffer(chunks[0], "<f4")
    return parse("Tensor", part), None


def _read_tensor(tensor: Any, floats: Array | None) -> PaddleTensor:
    try:
        kind = tensors.elem_type(tensor.elem_type)
        is_float = floats is not None and kind.field == "float_data"
        array = tensors.decode(kind, tensor.shape, floats if is_float else getattr(tensor, kind.field))
    except RequestError as error:
        error.message = f"tensor {tensor.name[:64]!r}: {error.message}"
        raise
    return PaddleTensor(tensor.name, array, kind, list(tensor.lod))


def _write_tensor(tensor: PaddleTensor) -> bytes:
    kind = tensors.ElemType.of(tensor.array) if tensor.elem_type is None else tensor.elem_type
    try:
        elements = tensors.encode(kind, tensor.array)
    except RequestError as error:
        error.message = f"tensor {tensor.name[:64]!r}: {error.message}"
        raise
    written = message("Tensor")(name=tensor.name, elem_type=kind, shape=tensor.array.shape, lod=tensor.lod)
    if kind is tensors.ElemType.BYTES:
        written.byte_data = elements
    else:
        getattr(written, kind.field).extend(elements)
    data: bytes = written.SerializeToString()
    return data


def _clean(text: str) -> str:
    """Without half surrogate pairs, which have no UTF-8."""
    return text if text.isascii() else text.encode(errors="replace").decode()
