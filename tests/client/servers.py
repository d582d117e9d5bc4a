"""Model servers in this process, over HTTP and over gRPC: good ones, and such as do what they are told."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpclib
import numpy as np
from aiohttp import web
from grpclib.const import Cardinality, Handler, Status
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream

from asyncline.client.http2 import BytesCodec
from asyncline.wire.oip import (
    InferRequest,
    InferResponse,
    InferTensor,
    ModelMetadata,
    ServerMetadata,
    TensorMetadata,
    grpc,
    grpc_metadata,
    rest,
    rest_metadata,
)
from asyncline.wire.oip.schema import message, method, parse

Answer = Callable[[InferRequest], Any]
"""From a request to an InferResponse, or to a `Failure`; it may be async."""

SCORES = ModelMetadata(
    "scores",
    inputs=(TensorMetadata("x", "FP32", (-1, 3)),),
    outputs=(TensorMetadata("y", "FP32", (-1, 3)), TensorMetadata("sum", "FP32", (-1,))),
    versions=("1",),
)


def doubled(request: InferRequest) -> InferResponse:
    """The model of `SCORES`."""
    x = request.inputs[0].array
    outputs = {"y": 2 * x, "sum": x.sum(-1)}
    asked = [output.name for output in request.outputs] or list(outputs)
    return response(request, **{name: outputs[name] for name in asked})


def response(request: InferRequest, **outputs: np.ndarray[Any, Any]) -> InferResponse:
    tensors = tuple(InferTensor(name, rest.datatypes.datatype_of(array), array) for name, array in outputs.items())
    return InferResponse(tensors, request.model_name, "1", request.id)


class Failure(Exception):
    """An answer that is an error.

    :param status: of HTTP, or a grpclib Status.
    """

    def __init__(self, status: int | Status, text: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class ModelServer:
    """Serves one model, over both wires.

    :param max_batch_size: as the model's configuration has it; None: there is no such extension.
    """

    def __init__(
        self,
        metadata: ModelMetadata = SCORES,
        answer: Answer = doubled,
        *,
        max_batch_size: int | None = None,
        extensions: tuple[str, ...] = (rest.BINARY,),
    ) -> None:
        self.metadata = metadata
        self.answer = answer
        self.max_batch_size = max_batch_size
        self.extensions = extensions
        #: The inferences, in order.
        self.requests: list[InferRequest] = []
        #: The headers of each, in lower case.
        self.headers: list[dict[str, str]] = []
        #: The connections that inferences came by.
        self.connections: set[Any] = set()
        self.url = ""
        self._arrived = asyncio.Event()

    @property
    def rows(self) -> list[int]:
        """How many rows each inference had."""
        return [request.inputs[0].shape[0] for request in self.requests]

    async def infer(self, request: InferRequest, headers: dict[str, str], connection: Any) -> Any:
        self.requests.append(request)
        self.headers.append(headers)
        self.connections.add(connection)
        self._arrived.set()
        self._arrived.clear()
        found = self.answer(request)
        return await found if inspect.isawaitable(found) else found

    async def until(self, count: int) -> None:
        """Wait until so many inferences have arrived."""
        async with asyncio.timeout(5):
            while len(self.requests) < count:
                await self._arrived.wait()


# -- HTTP


@asynccontextmanager
async def http(server: ModelServer | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[ModelServer]:
    """Serve over HTTP, on a port of the system's choice."""
    served = server or ModelServer()
    name = served.metadata.name

    async def metadata(request: web.Request) -> web.Response:
        return _json(rest_metadata.encode_metadata(served.metadata))

    async def config(request: web.Request) -> web.Response:
        if served.max_batch_size is None:
            return _json(rest_metadata.encode_error("no such route"), 404)
        return web.json_response({"name": name, "max_batch_size": served.max_batch_size})

    async def about(request: web.Request) -> web.Response:
        return _json(rest_metadata.encode_server_metadata(ServerMetadata("test", "1", served.extensions)))

    async def infer(request: web.Request) -> web.Response:
        body = await request.read()
        length = rest.parse_header_length(request.headers.get(rest.HEADER_LENGTH), len(body))
        asked = rest.decode_request(body, length, model_name=name, model_version=request.match_info.get("version", ""))
        headers = {key.lower(): value for key, value in request.headers.items()}
        try:
            answer = await served.infer(asked, headers, request.transport)
        except Failure as failure:
            assert isinstance(failure.status, int)
            return _json(rest_metadata.encode_error(failure.text), failure.status)
        if isinstance(answer, web.Response):
            return answer
        written = rest.encode_response(answer, asked)
        head = {} if written.header_nbytes is None else {rest.HEADER_LENGTH: str(written.header_nbytes)}
        return web.Response(body=b"".join(written.parts), content_type=written.content_type, headers=head)

    app = web.Application(client_max_size=2**26)
    app.router.add_get("/v2", about)
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{{version}}"):
        app.router.add_get(path, metadata)
        app.router.add_get(f"{path}/config", config)
        app.router.add_post(f"{path}/infer", infer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        served.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        yield served
    finally:
        await runner.cleanup()


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


# -- gRPC


@asynccontextmanager
async def grpc_server(
    server: ModelServer | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ModelServer]:
    """Serve over gRPC, on a port of the system's choice."""
    served = server or ModelServer()

    async def metadata(data: bytes) -> bytes:
        if parse("ModelMetadataRequest", data).name != served.metadata.name:
            raise grpclib.GRPCError(Status.NOT_FOUND, "unknown model")
        return grpc_metadata.encode_metadata(served.metadata)

    async def config(data: bytes) -> bytes:
        if served.max_batch_size is None:
            raise grpclib.GRPCError(Status.UNIMPLEMENTED, "no such method")
        found = message("ModelConfigResponse")()
        found.config.max_batch_size = served.max_batch_size
        return bytes(found.SerializeToString())

    async def infer(data: bytes, stream: Stream[bytes, bytes]) -> bytes:
        assert stream.metadata is not None
        headers = {key: str(value) for key, value in stream.metadata.items()}
        if stream.deadline is not None:
            headers["remaining_s"] = str(stream.deadline.time_remaining())
        try:
            answer = await served.infer(grpc.decode_request(data), headers, stream._stream.connection)
        except Failure as failure:
            assert isinstance(failure.status, Status)
            raise grpclib.GRPCError(failure.status, failure.text) from None
        return answer if isinstance(answer, bytes) else grpc.encode_response(answer)

    async with grpc_handlers({"ModelMetadata": metadata, "ModelConfig": config}, {"ModelInfer": infer}, tls) as url:
        served.url = url
        yield served


@asynccontextmanager
async def grpc_handlers(
    plain: dict[str, Callable[[bytes], Awaitable[bytes]]],
    streams: dict[str, Callable[[bytes, Any], Awaitable[bytes]]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """Serve functions of the bytes of a message."""

    class Service:
        def __mapping__(self) -> dict[str, Handler]:
            handlers = {name: self._handler(function, False) for name, function in plain.items()}
            handlers |= {name: self._handler(function, True) for name, function in streams.items()}
            return {method(name): handler for name, handler in handlers.items()}

        def _handler(self, function: Any, with_stream: bool) -> Handler:
            async def call(stream: Stream[bytes, bytes]) -> None:
                data = await stream.recv_message()
                assert data is not None
                await stream.send_message(await (function(data, stream) if with_stream else function(data)))

            return Handler(call, Cardinality.UNARY_UNARY, bytes, bytes)

    protocols: list[H2Protocol] = []

    class Recorded(Server):
        def _protocol_factory(self) -> H2Protocol:
            protocols.append(super()._protocol_factory())
            return protocols[-1]

    server = Recorded([Service()], codec=BytesCodec())
    await server.start("127.0.0.1", 0, ssl=tls)
    assert server._server is not None
    try:
        yield f"{'grpcs' if tls else 'grpc'}://127.0.0.1:{server._server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for protocol in protocols:
            if hasattr(protocol, "processor"):  # else its handshake failed
                protocol.processor.close()  # grpclib leaves idle ones open
        await server.wait_closed()


# -- sockets


@asynccontextmanager
async def tcp(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """A listening socket; `serve` gets each connection, which is closed when it returns. Yields the port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (asyncio.CancelledError, ConnectionError):
            pass  # the test is over, or the client left
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await server.wait_closed()


async def closed_port() -> int:
    """A port that nobody listens on."""
    async with tcp(_close) as port:
        return port


async def _close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    pass
