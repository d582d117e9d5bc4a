"""Inference: the Open Inference Protocol's gRPC service, with Triton's extensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from grpclib.const import Cardinality, Handler

from asyncline.engine.engine import Engine
from asyncline.errors import NotFound, Unsupported
from asyncline.transports.grpc.call import Call
from asyncline.transports.grpc.inbox import Bytes
from asyncline.transports.grpc.service import Service
from asyncline.transports.grpc.stream_infer import StreamInfer, options_of
from asyncline.transports.oip import Models
from asyncline.wire.oip import InferRequest, grpc, grpc_metadata, grpc_models, native
from asyncline.wire.oip.descriptor import DESCRIPTOR
from asyncline.wire.oip.schema import method

_NOT_SERVED = {
    **dict.fromkeys(
        ("RepositoryModelLoad", "RepositoryModelUnload"), "models are not loaded or unloaded while the server runs"
    ),
    **dict.fromkeys(
        (f"{kind}SharedMemory{verb}" for kind in ("System", "Cuda") for verb in ("Status", "Register", "Unregister")),
        "tensors in shared memory are not served",
    ),
    "TraceSetting": "there are no trace settings",
    "LogSettings": "the log is not set by clients",
}
"""Triton's methods that are not here, and why."""

Unary = Callable[[Call, Bytes], None]


class Inference(Service):
    """`inference.GRPCInferenceService`."""

    files = (DESCRIPTOR,)
    open_methods = tuple(map(method, ("ServerLive", "ServerReady", "ModelReady")))

    def __init__(self, engine: Engine, models: Models) -> None:
        self._engine = engine
        self._models = models

    def __mapping__(self) -> Mapping[str, Handler]:
        unary: dict[str, Unary] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
            "ModelConfig": self._config,
            "ModelStatistics": self._statistics,
            "RepositoryIndex": self._index,
            **{name: partial(_refuse, why) for name, why in _NOT_SERVED.items()},
        }
        mapping = {method(name): Handler(each, Cardinality.UNARY_UNARY, bytes, bytes) for name, each in unary.items()}
        mapping[method("ModelStreamInfer")] = Handler(self._stream_infer, Cardinality.STREAM_STREAM, bytes, bytes)
        return mapping

    def _infer(self, call: Call, data: Bytes) -> None:
        if grpc.takes_long(data):
            call.decode(self._read, data, partial(self._run, call))
        else:
            self._run(call, self._read(data))

    def _read(self, data: Bytes) -> tuple[InferRequest, Any, int]:
        """The request, its payload and what that weighs."""
        scale = self._models.scale()
        request = grpc.decode_request(data, scale)
        return request, self._models.payload(request, scale), scale.nbytes

    def _run(self, call: Call, read: tuple[InferRequest, Any, int]) -> None:
        request, payload, weight = read
        models = self._models
        if self._engine.graph.streams and not native.is_native(request.parameters):
            raise Unsupported(f"model {request.model_name!r} answers in parts: infer it by ModelStreamInfer")
        call.run(
            payload,
            lambda item: grpc.encode_response(models.response(request, item)),
            weight=weight,
            **options_of(call, models, request),
        )

    async def _stream_infer(self, call: Call) -> None:
        await StreamInfer(call, self._engine, self._models).run()

    def _live(self, call: Call, data: Bytes) -> None:
        call.answer(grpc_models.encode_live(True))

    def _ready(self, call: Call, data: Bytes) -> None:
        call.answer(grpc_models.encode_ready(self._engine.problem() is None))

    def _model_ready(self, call: Call, data: Bytes) -> None:
        try:
            is_ready = self._models.is_ready(*grpc_models.decode_question("ModelReadyRequest", data))
        except NotFound:  # as Triton has it
            is_ready = False
        call.answer(grpc_models.encode_ready(is_ready))

    def _server_metadata(self, call: Call, data: Bytes) -> None:
        call.answer(grpc_metadata.encode_server_metadata(self._models.server_metadata))

    def _model_metadata(self, call: Call, data: Bytes) -> None:
        name, version = grpc_models.decode_question("ModelMetadataRequest", data)
        call.answer(grpc_metadata.encode_metadata(self._models.metadata(name, version)))

    def _config(self, call: Call, data: Bytes) -> None:
        name, version = grpc_models.decode_question("ModelConfigRequest", data)
        call.answer(grpc_models.encode_config(self._models.config(name, version)))

    def _statistics(self, call: Call, data: Bytes) -> None:
        name, version = grpc_models.decode_question("ModelStatisticsRequest", data)
        call.answer(grpc_models.encode_statistics(self._models.statistics(name, version)))

    def _index(self, call: Call, data: Bytes) -> None:
        ready = grpc_models.decode_index_request(data)
        call.answer(grpc_models.encode_index(self._models.index(ready=ready)))


def _refuse(why: str, call: Call, data: Bytes) -> None:
    raise Unsupported(why)
