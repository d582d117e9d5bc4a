"""GrpcWire: the Open Inference Protocol over gRPC, with values as `wire/oip/native.py` says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import unquote

from grpclib.const import Status

from asyncline.client.address import Address
from asyncline.client.base import Refused, malformed
from asyncline.client.http2 import CallFailed, GrpcPeer
from asyncline.client.wires.base import GRACE_S, Call, Wire, WireSettings, context
from asyncline.errors import BadRequest, OpError, RequestError
from asyncline.wire.frame.messages import STATUSES, error_of
from asyncline.wire.oip import InferRequest, InferResponse, grpc, native
from asyncline.wire.oip.schema import message, method

CONNECTIONS = 1

_CODES: dict[Status, tuple[str, ...]] = {
    Status.INVALID_ARGUMENT: ("bad_request", "bad_image", "url_forbidden"),
    Status.OUT_OF_RANGE: ("bad_request",),
    Status.UNAUTHENTICATED: ("unauthenticated",),
    Status.NOT_FOUND: ("not_found",),
    Status.CANCELLED: ("cancelled", "slow_client"),
    Status.RESOURCE_EXHAUSTED: ("overloaded", "too_large"),
    Status.UNIMPLEMENTED: ("unsupported",),
    Status.FAILED_PRECONDITION: ("product", "fetch_failed"),
    Status.INTERNAL: ("op_error", "worker_crashed"),
    Status.UNAVAILABLE: ("unavailable",),
    Status.DEADLINE_EXCEEDED: ("deadline",),
}
"""What each status may stand for: what the code says, else the first."""


async def connect(address: Address, settings: WireSettings) -> GrpcWire:
    """Nothing is sent yet."""
    tls = await context(address, settings)
    if tls is not None:
        tls.set_alpn_protocols(["h2"])
    return GrpcWire(address, settings, tls)


class GrpcWire(Wire):
    def __init__(self, address: Address, settings: WireSettings, tls: ssl.SSLContext | None) -> None:
        super().__init__(address, settings)
        self._loop = asyncio.get_running_loop()
        self._whom = str(address)
        headers = {} if settings.token is None else {"authorization": f"Bearer {settings.token}"}
        self._peers = [
            GrpcPeer(address, headers, settings.max_answer_nbytes, tls, connect_s=settings.connect_s)
            for _ in range(settings.connections or CONNECTIONS)
        ]
        self._turn = 0
        self._is_closed = False

    async def call(self, call: Call, timeout_s: float) -> Any:
        data, metadata = self._request(call, timeout_s)
        try:
            answer = await self._peer().call(method("ModelInfer"), data, self._whom, timeout_s + GRACE_S, metadata)
        except CallFailed as failure:
            raise _error(failure) from None
        try:
            return _value(grpc.decode_response(answer))
        except BadRequest as error:
            raise malformed(self._whom, str(error)) from error

    async def stream(self, call: Call, timeout_s: float) -> AsyncGenerator[Any, None]:
        data, metadata = self._request(call, timeout_s)
        parts = self._peer().stream(method("ModelStreamInfer"), data, self._whom, timeout_s + GRACE_S, metadata)
        try:
            async for part in parts:
                yield self._part(part)
        except CallFailed as failure:
            raise _error(failure) from None
        finally:
            await parts.aclose()

    def _part(self, data: bytes) -> Any:
        try:
            response, said = grpc.decode_stream_response(data)
            if not said:
                return _value(response)
        except BadRequest as error:
            raise malformed(self._whom, str(error)) from error
        raise _stream_error(said, response.parameters)

    async def ready(self, timeout_s: float) -> bool:
        question = message("ServerReadyRequest")().SerializeToString()
        try:
            answer = await self._peer().call(method("ServerReady"), question, self._whom, timeout_s)
            return bool(message("ServerReadyResponse").FromString(answer).ready)
        except (CallFailed, RequestError, ValueError):
            return False

    def _peer(self) -> GrpcPeer:
        if self._is_closed:
            raise Refused("the client was closed")
        self._turn = (self._turn + 1) % len(self._peers)
        return self._peers[self._turn]

    def _request(self, call: Call, timeout_s: float) -> tuple[bytes, dict[str, str]]:
        try:
            tensors, kind = native.to_tensors(call.payload, native.INPUT)
            # The deadline of the call itself is later by the grace.
            parameters = {native.NATIVE: kind, "timeout": max(1, round(timeout_s * 1e6))}
            data = grpc.encode_request(InferRequest(tensors, call.graph, parameters=parameters))
        except OpError as error:
            raise BadRequest(error.message.replace("the answer", "the request")) from None
        metadata = {"x-log-id": call.log_id} if call.log_id else {}
        if call.priority != 1:
            metadata["x-priority"] = str(call.priority)
        if call.traceparent is not None:
            metadata["traceparent"] = call.traceparent
        return data, metadata

    async def close(self) -> None:
        self._is_closed = True
        for peer in self._peers:
            await peer.close()


def _value(response: InferResponse) -> Any:
    return native.from_tensors(response.outputs, response.parameters.get(native.NATIVE), answer=True)


def _error(failure: CallFailed) -> RequestError:
    """The error that a status stands for, of the class that the server raised or of its base."""
    trailers = failure.trailers
    text = unquote(str(trailers.get("x-code", "")))
    code: int | str = int(text) if trailers.get("x-code-type") == "int" and _is_int(text) else text
    pushback_ms = str(trailers.get("grpc-retry-pushback-ms", ""))
    retry_after_s = round(int(pushback_ms) / 1e3) if pushback_ms.isdecimal() else None
    error = _of_status(failure.status, code, failure.message or "", retry_after_s)
    error.was_refused = trailers.get("x-refused") == "true"
    if "x-data-id" in trailers:
        error.add_note(f"request {trailers['x-data-id']}")
    return error


def _stream_error(said: str, about: Mapping[str, Any]) -> RequestError:
    """The error that one answer of a stream says."""
    status, code, retry_after_s = about.get("grpc_status"), about.get("code"), about.get("retry_after_s")
    known = status in {each.value for each in Status}
    error = _of_status(
        Status(status) if known else Status.INTERNAL,
        code if isinstance(code, (int, str)) else "",
        said,
        retry_after_s if isinstance(retry_after_s, int) else None,
    )
    error.was_refused = about.get("refused") is True
    return error


def _of_status(status: Status, code: int | str, text: str, retry_after_s: int | None) -> RequestError:
    codes = _CODES.get(status, ("op_error",))
    kind = code if isinstance(code, str) and code in codes else codes[0]
    return error_of(kind, code if code != "" else STATUSES[kind].code, text, retry_after_s)


def _is_int(text: str) -> bool:
    return text.removeprefix("-").isdecimal()
