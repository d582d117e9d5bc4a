"""The Open Inference Protocol over gRPC."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from asyncline.client.address import Address
from asyncline.client.base import (
    Connection,
    Description,
    failed,
    gone,
    malformed,
    no_room,
    refused_input,
    remote_model,
    said,
    too_late,
)
from asyncline.client.http2 import GrpcPeer, h2_context
from asyncline.errors import BadRequest, DeadlineExceeded, LoadError, RequestError, Unavailable
from asyncline.wire.oip import InferRequest, InferResponse, grpc, grpc_metadata
from asyncline.wire.oip.schema import message, method

_OUTCOMES = {
    Status.INVALID_ARGUMENT: refused_input,
    Status.OUT_OF_RANGE: refused_input,
    Status.NOT_FOUND: gone,
    Status.UNAVAILABLE: no_room,
    Status.RESOURCE_EXHAUSTED: no_room,  # which is how a server says over gRPC what is 503 over HTTP
}


def outcome_of(error: GRPCError, whom: str, timeout_s: float) -> RequestError:
    """What a server says by its status."""
    if error.status is Status.DEADLINE_EXCEEDED:
        return too_late(whom, timeout_s)
    return _OUTCOMES.get(error.status, failed)(whom, error.message or error.status.name)


async def connect(address: Address, headers: Mapping[str, str], max_answer_nbytes: int) -> GrpcConnection:
    """Make a Connection; nothing is sent yet."""
    tls = await asyncio.to_thread(h2_context) if address.tls else None
    return GrpcConnection(address, headers, max_answer_nbytes, tls)


class GrpcConnection(Connection):
    """One HTTP/2 connection, made again when it is lost. Tensors go as raw bytes."""

    def __init__(
        self, address: Address, headers: Mapping[str, str], max_answer_nbytes: int, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(address, headers, max_answer_nbytes)
        self._peer = GrpcPeer(address, headers, max_answer_nbytes, tls)

    async def describe(self, model: str, version: str, timeout_s: float) -> Description:
        which = {"name": model, "version": version}
        try:
            question = message("ModelMetadataRequest")(**which).SerializeToString()
            answer = await self._call("ModelMetadata", question, model, timeout_s)
            metadata = grpc_metadata.decode_metadata(answer)
            question = message("ModelConfigRequest")(**which).SerializeToString()
            return Description.of(metadata, await self._max_batch_size(question, model, timeout_s))
        except GRPCError as error:
            if error.status in (Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED):
                raise no_room(remote_model(model), error.message or "") from None
            if error.status is Status.NOT_FOUND:
                version = f" of version {version!r}" if version else ""
                raise LoadError(f"{self.address} has no model {model!r}{version}{said(error.message)}") from None
            text = f"{error.status.name}{said(error.message)}"
            raise LoadError(f"{self.address} answered when asked for model {model!r}: {text}") from None
        except BadRequest as error:
            raise LoadError(f"{self.address} does not speak the Open Inference Protocol: {error}") from error
        except (Unavailable, DeadlineExceeded):
            raise  # of whatever kind: the endpoint is not there
        except RequestError as error:
            raise LoadError(f"{self.address}: {error}") from error

    async def _max_batch_size(self, question: bytes, model: str, timeout_s: float) -> int | None:
        """By the model's configuration, an extension; None where there is none."""
        try:
            answer = await self._call("ModelConfig", question, model, timeout_s)
        except GRPCError:
            return None
        return grpc_metadata.decode_max_batch_size(answer)

    async def infer(
        self, request: InferRequest, timeout_s: float, *, binary: bool, traceparent: str | None = None
    ) -> InferResponse:
        model = request.model_name
        try:
            metadata = None if traceparent is None else {"traceparent": traceparent}
            answer = await self._call("ModelInfer", grpc.encode_request(request), model, timeout_s, metadata)
        except GRPCError as error:
            raise outcome_of(error, remote_model(model), timeout_s) from None
        try:
            return grpc.decode_response(answer)
        except BadRequest as error:
            raise malformed(remote_model(model), str(error)) from error

    async def _call(
        self, name: str, data: bytes, model: str, timeout_s: float, metadata: Mapping[str, str] | None = None
    ) -> bytes:
        return await self._peer.call(method(name), data, remote_model(model), timeout_s, metadata)

    async def close(self) -> None:
        await self._peer.close()
