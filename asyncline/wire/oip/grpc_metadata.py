"""Messages of the Open Inference Protocol's gRPC service beside those of inference: metadata and configuration."""

from __future__ import annotations

from typing import Any

from asyncline.errors import BadRequest
from asyncline.wire.oip.messages import ModelMetadata, ServerMetadata, TensorMetadata, check_count, unique
from asyncline.wire.oip.schema import message, parse


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


def _read_tensors_metadata(kind: str, tensors: Any) -> tuple[TensorMetadata, ...]:
    check_count(kind, tensors)
    return unique(kind, (TensorMetadata(each.name, each.datatype, tuple(each.shape)) for each in tensors))
