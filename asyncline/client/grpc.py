"""The Open Inference Protocol over gRPC, by grpclib."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

from grpclib.client import Channel, Stream
from grpclib.config import Configuration
from grpclib.const import Cardinality, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.exceptions import H2Error

from asyncline.client.address import Address
from asyncline.client.base import (
    CONNECT_S,
    Connection,
    Description,
    broken_off,
    failed,
    gone,
    malformed,
    no_room,
    refused_input,
    said,
    too_late,
    unreachable,
)
from asyncline.errors import BadRequest, DeadlineExceeded, LoadError, RequestError, Unavailable
from asyncline.wire.oip import InferRequest, InferResponse, grpc, grpc_metadata
from asyncline.wire.oip.schema import message, method

WINDOW = 16 * 2**20
"""How much the server may send before we have read it: with grpclib's 4 MiB, a larger tensor takes round trips."""

_PREFIX_NBYTES = 5

_OUTCOMES = {
    Status.INVALID_ARGUMENT: refused_input,
    Status.OUT_OF_RANGE: refused_input,
    Status.NOT_FOUND: gone,
    Status.UNAVAILABLE: no_room,
    Status.RESOURCE_EXHAUSTED: no_room,  # which is how a server says over gRPC what is 503 over HTTP
}


class BytesCodec(CodecBase):
    """Messages are bytes already."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


async def connect(address: Address, headers: Mapping[str, str], max_answer_nbytes: int) -> GrpcConnection:
    """Make a Connection; nothing is sent yet."""
    tls = await asyncio.to_thread(_tls) if address.tls else None
    return GrpcConnection(address, headers, max_answer_nbytes, tls)


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    return context


class GrpcConnection(Connection):
    """One HTTP/2 connection, made again when it is lost. Tensors go as raw bytes."""

    def __init__(
        self, address: Address, headers: Mapping[str, str], max_answer_nbytes: int, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(address, headers, max_answer_nbytes)
        self._loop = asyncio.get_running_loop()
        self._metadata = {key.lower(): value for key, value in headers.items()}
        config = Configuration(http2_connection_window_size=WINDOW, http2_stream_window_size=WINDOW)
        self._channel = Channel(address.host, address.port, codec=BytesCodec(), ssl=tls, config=config)

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
                raise no_room(model, error.message or "") from None
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

    async def infer(self, request: InferRequest, timeout_s: float, *, binary: bool) -> InferResponse:
        model = request.model_name
        try:
            answer = await self._call("ModelInfer", grpc.encode_request(request), model, timeout_s)
        except GRPCError as error:
            if error.status is Status.DEADLINE_EXCEEDED:
                raise too_late(model, timeout_s) from None
            raise _OUTCOMES.get(error.status, failed)(model, error.message or error.status.name) from None
        try:
            return grpc.decode_response(answer)
        except BadRequest as error:
            raise malformed(model, str(error)) from error

    async def _call(self, name: str, data: bytes, model: str, timeout_s: float) -> bytes:
        # grpclib ends a call by cancelling the task that waits for it: here that task is one of its own, so that a
        # cancel of ours stays what it is.
        waiting = asyncio.current_task()
        assert waiting is not None
        cancels = waiting.cancelling()
        try:
            return await self._loop.create_task(
                self._call_here(name, data, model, timeout_s), name=f"asyncline client {name} {model}"
            )
        except Exception:
            if waiting.cancelling() > cancels:
                raise asyncio.CancelledError from None
            raise

    async def _call_here(self, name: str, data: bytes, model: str, timeout_s: float) -> bytes:
        expires_at = self._loop.time() + timeout_s
        if not self._channel._connected:
            await self._connect(model, timeout_s)
        call: Stream[bytes, bytes] = self._channel.request(
            method(name),
            Cardinality.UNARY_UNARY,
            bytes,
            bytes,
            timeout=max(0.001, expires_at - self._loop.time()),
            metadata=self._metadata,
        )
        try:
            async with call:
                await call.send_message(data, end=True)
                return await self._receive(call, model)
        except TimeoutError:
            raise too_late(model, timeout_s) from None
        except (StreamTerminatedError, OSError):
            raise broken_off(model) from None
        except H2Error:
            # Used up, or in a state that h2 knows no way out of: the next call makes a new one.
            self._channel.close()
            raise broken_off(model) from None
        except (GRPCError, RequestError):
            raise
        except AssertionError:  # of grpclib's buffer
            raise malformed(model, "it is cut off") from None
        except Exception as error:  # grpclib and h2 take the other side's word for what headers and data are there
            raise malformed(model, type(error).__name__) from error

    async def _connect(self, model: str, timeout_s: float) -> None:
        """grpclib would do so by itself, but for as long as the system tries, and without telling it from a call."""
        try:
            async with asyncio.timeout(min(CONNECT_S, timeout_s)):
                await self._channel.__connect__()
        except OSError as error:  # TimeoutError and SSLError are such
            if isinstance(error, TimeoutError) and timeout_s <= CONNECT_S:
                raise too_late(model, timeout_s) from None
            raise unreachable(model) from None

    async def _receive(self, call: Stream[bytes, bytes], model: str) -> bytes:
        """grpclib's own `recv_message` has no limit: it takes in what the four bytes of the prefix announce."""
        await call.recv_initial_metadata()
        with call._wrapper:
            prefix = await call._stream.recv_data(_PREFIX_NBYTES)
            if prefix:
                if prefix[0]:
                    raise malformed(model, "it is compressed, which was not asked for")
                nbytes = int.from_bytes(prefix[1:], "big")
                if nbytes > self.max_answer_nbytes:
                    raise malformed(model, f"{nbytes} bytes are over the limit of {self.max_answer_nbytes}")
                data: bytes = await call._stream.recv_data(nbytes)
        await call.recv_trailing_metadata()
        if not prefix:
            raise malformed(model, "it is empty")
        return data

    async def close(self) -> None:
        self._channel.close()
        await asyncio.sleep(0)  # in which the transport closes its socket
