"""Bodies of the Open Inference Protocol's REST API beside those of inference: metadata, configuration, statistics,
the repository's index, errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from asyncline.errors import BadRequest
from asyncline.wire import json
from asyncline.wire.oip import objects
from asyncline.wire.oip.messages import ModelMetadata, ServerMetadata, TensorMetadata, check_count, of, unique
from asyncline.wire.oip.models import Duration, ModelConfig, ModelIndex, ModelStatistics

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


def encode_config(config: ModelConfig) -> bytes:
    inputs = []
    for tensor in config.inputs:
        inputs.append(_encode_tensor_config(tensor))
        if tensor.name in config.optional:
            inputs[-1]["optional"] = True
    kind, gpus = ("KIND_GPU", list(config.gpus)) if config.gpus else ("KIND_CPU", [])
    head: dict[str, Any] = {
        "name": config.name,
        "platform": config.platform,
        "backend": config.backend,
        "max_batch_size": config.max_batch_size,
        "input": inputs,
        "output": list(map(_encode_tensor_config, config.outputs)),
        "instance_group": [{"name": config.name, "kind": kind, "count": config.instances, "gpus": gpus}],
        "model_transaction_policy": {"decoupled": config.decoupled},
    }
    if config.steps:
        del head["instance_group"]
        head["ensemble_scheduling"] = {
            "step": [
                {
                    "model_name": step.model_name,
                    "model_version": -1,
                    "input_map": dict(step.input_map),
                    "output_map": dict(step.output_map),
                }
                for step in config.steps
            ]
        }
    elif config.dynamic_batching:
        head["dynamic_batching"] = {"max_queue_delay_microseconds": config.max_queue_delay_us}
    return orjson.dumps(head)


def encode_statistics(models: Iterable[ModelStatistics]) -> bytes:
    return orjson.dumps({"model_stats": list(map(_encode_statistics, models))})


def encode_index(models: Iterable[ModelIndex]) -> bytes:
    lines = []
    for model in models:
        line = {"name": model.name, "version": model.version, "state": model.state}
        lines.append({**line, "reason": model.reason} if model.reason else line)
    return orjson.dumps(lines)


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


def _encode_tensor_config(tensor: TensorMetadata) -> dict[str, Any]:
    kind = {"": "INVALID", "BYTES": "STRING"}.get(tensor.datatype, tensor.datatype)
    return {"name": tensor.name, "data_type": f"TYPE_{kind}", "dims": list(tensor.shape)}


def _encode_statistics(model: ModelStatistics) -> dict[str, Any]:
    usage = model.usage
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": usage.last_inference_ms,
        "inference_count": usage.inference_count,
        "execution_count": usage.execution_count,
        "inference_stats": {
            "success": _encode_duration(usage.success),
            "fail": _encode_duration(usage.fail),
            "queue": _encode_duration(usage.queue),
            "compute_input": _encode_duration(usage.compute_input),
            "compute_infer": _encode_duration(usage.compute_infer),
            "compute_output": _encode_duration(usage.compute_output),
            # There is no cache; clients read these nevertheless.
            "cache_hit": _encode_duration(Duration()),
            "cache_miss": _encode_duration(Duration()),
        },
        "batch_stats": [
            {
                "batch_size": batch.batch_size,
                "compute_input": _encode_duration(batch.compute_input),
                "compute_infer": _encode_duration(batch.compute_infer),
                "compute_output": _encode_duration(batch.compute_output),
            }
            for batch in usage.batches
        ],
    }


def _encode_duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}


def _decode_tensors_metadata(kind: str, head: dict[str, Any]) -> tuple[TensorMetadata, ...]:
    tensors = objects.as_list(head, f"{kind}s")
    check_count(kind, tensors)
    found = []
    for position, value in enumerate(tensors):
        tensor, name = objects.named(kind, position, value)
        with of(kind, name):
            found.append(TensorMetadata(name, objects.text(tensor, "datatype"), objects.shape(tensor, least=-1)))
    return unique(kind, found)
