"""Bodies of the Open Inference Protocol's REST API beside those of inference: metadata, configuration, errors."""

from __future__ import annotations

from typing import Any

import orjson

from asyncline.errors import BadRequest
from asyncline.wire import json
from asyncline.wire.oip import objects
from asyncline.wire.oip.messages import ModelMetadata, ServerMetadata, TensorMetadata, check_count, of, unique

Buffer = bytes | bytearray | memoryview


def encode_metadata(metadata: ModelMetadata) -> bytes:
    return orjson.dumps(
        {
            "name": metadata.name,
            "versions": list(metadata.versions),
            "platform": metadata.platform,
            "inputs": list(map(_encode_tensor_metadata, metadata.inputs)),
            "outputs": list(map(_encode_tensor_metadata, metadata.outputs)),
        }
    )


def decode_metadata(body: Buffer) -> ModelMetadata:
    """:raises BadRequest: it is malformed."""
    head = objects.as_object(json.decode(bytes(body)))
    return ModelMetadata(
        name=objects.text(head, "name"),
        inputs=_decode_tensors_metadata("input", head),
        outputs=_decode_tensors_metadata("output", head),
        versions=objects.texts(head, "versions"),
        platform=objects.text(head, "platform"),
    )


def encode_server_metadata(metadata: ServerMetadata) -> bytes:
    return orjson.dumps({"name": metadata.name, "version": metadata.version, "extensions": list(metadata.extensions)})


def decode_server_metadata(body: Buffer) -> ServerMetadata:
    """:raises BadRequest: it is malformed."""
    head = objects.as_object(json.decode(bytes(body)))
    return ServerMetadata(objects.text(head, "name"), objects.text(head, "version"), objects.texts(head, "extensions"))


def decode_max_batch_size(body: Buffer) -> int:
    """Most rows of a request to a model, by its configuration (Triton's extension); 0 where it takes no batches.

    :raises BadRequest: it is malformed.
    """
    size = objects.as_object(json.decode(bytes(body))).get("max_batch_size", 0)
    if type(size) is not int or size < 0:
        raise BadRequest("max_batch_size is no number of rows")
    return size


def encode_error(message: str) -> bytes:
    return orjson.dumps({"error": message})


def decode_error(body: Buffer) -> str:
    """What the body of an error says; any server's, as well as it can be made out."""
    try:
        head = orjson.loads(body)
    except orjson.JSONDecodeError:
        return bytes(body[:1000]).decode(errors="replace").strip()
    if isinstance(head, dict):
        for key in ("error", "message", "detail"):
            if isinstance(head.get(key), str):
                return str(head[key])
    return ""


def _encode_tensor_metadata(tensor: TensorMetadata) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _decode_tensors_metadata(kind: str, head: dict[str, Any]) -> tuple[TensorMetadata, ...]:
    tensors = objects.as_list(head, f"{kind}s")
    check_count(kind, tensors)
    found = []
    for position, value in enumerate(tensors):
        tensor, name = objects.named(kind, position, value)
        with of(kind, name):
            found.append(TensorMetadata(name, objects.text(tensor, "datatype"), objects.shape(tensor, least=-1)))
    return unique(kind, found)
