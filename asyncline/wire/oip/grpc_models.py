"""Messages of the Open Inference Protocol's gRPC service about the server and its models: health, configuration,
statistics, the index of them all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from asyncline.wire.oip.messages import TensorMetadata
from asyncline.wire.oip.models import BatchUsage, Duration, ModelConfig, ModelIndex, ModelStatistics, Usage
from asyncline.wire.oip.schema import message, parse

_KIND_GPU, _KIND_CPU = 1, 2


def decode_question(kind: str, data: bytes | memoryview) -> tuple[str, str]:
    """The name and the version of the model that is asked for, either of them perhaps empty.

    :param kind: of the message: `ModelReadyRequest`, `ModelMetadataRequest`, ...
    :raises BadRequest: it is malformed.
    """
    head = parse(kind, data)
    return head.name, head.version


def decode_index_request(data: bytes | memoryview) -> bool:
    """Whether only models that are ready are asked for.

    :raises BadRequest: it is malformed.
    """
    return bool(parse("RepositoryIndexRequest", data).ready)


def encode_live(live: bool) -> bytes:
    return _written(message("ServerLiveResponse")(live=live))


def encode_ready(ready: bool) -> bytes:
    """Of the server; a ModelReadyResponse is the same."""
    return _written(message("ServerReadyResponse")(ready=ready))


def encode_config(config: ModelConfig) -> bytes:
    head = message("ModelConfigResponse")()
    written = head.config
    written.name, written.platform, written.backend = config.name, config.platform, config.backend
    written.max_batch_size = config.max_batch_size
    for tensor in config.inputs:
        optional = tensor.name in config.optional
        written.input.add(name=tensor.name, data_type=_data_type(tensor), dims=tensor.shape, optional=optional)
    for tensor in config.outputs:
        written.output.add(name=tensor.name, data_type=_data_type(tensor), dims=tensor.shape)
    written.model_transaction_policy.decoupled = config.decoupled
    if config.steps:
        for step in config.steps:
            written.ensemble_scheduling.step.add(
                model_name=step.model_name,
                model_version=-1,
                input_map=dict(step.input_map),
                output_map=dict(step.output_map),
            )
        return _written(head)
    kind = _KIND_GPU if config.gpus else _KIND_CPU
    written.instance_group.add(name=config.name, kind=kind, count=config.instances, gpus=config.gpus)
    if config.dynamic_batching:
        written.dynamic_batching.max_queue_delay_microseconds = config.max_queue_delay_us
    return _written(head)


def encode_statistics(models: Iterable[ModelStatistics]) -> bytes:
    head = message("ModelStatisticsResponse")()
    for model in models:
        usage = model.usage
        written = head.model_stats.add(
            name=model.name,
            version=model.version,
            last_inference=usage.last_inference_ms,
            inference_count=usage.inference_count,
            execution_count=usage.execution_count,
        )
        stats = written.inference_stats
        _write(stats.success, usage.success)
        _write(stats.fail, usage.fail)
        _write(stats.queue, usage.queue)
        _write_compute(stats, usage)
        for batch in usage.batches:
            _write_compute(written.batch_stats.add(batch_size=batch.batch_size), batch)
    return _written(head)


def encode_index(models: Iterable[ModelIndex]) -> bytes:
    head = message("RepositoryIndexResponse")()
    for model in models:
        head.models.add(name=model.name, version=model.version, state=model.state, reason=model.reason)
    return _written(head)


def _data_type(tensor: TensorMetadata) -> str:
    """By its name, as protobuf takes it: TYPE_FP32."""
    return f"TYPE_{ {'': 'INVALID', 'BYTES': 'STRING'}.get(tensor.datatype, tensor.datatype) }"


def _write_compute(target: Any, usage: Usage | BatchUsage) -> None:
    _write(target.compute_input, usage.compute_input)
    _write(target.compute_infer, usage.compute_infer)
    _write(target.compute_output, usage.compute_output)


def _write(target: Any, duration: Duration) -> None:
    target.count, target.ns = duration.count, duration.ns


def _written(head: Any) -> bytes:
    return bytes(head.SerializeToString())
