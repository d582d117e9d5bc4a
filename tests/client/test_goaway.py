"""The gRPC client and servers that stop: what they have begun is answered, what they have not is sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import RequestReceived

from asyncline.client import AsyncClient, Refused
from asyncline.transports.grpc.transport import GrpcTransport
from asyncline.wire.oip import InferResponse, grpc, native
from tests.client.served import served
from tests.client.servers import tcp

HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0")]


def answer(h2: H2Connection, stream: int, value: int) -> None:
    tensors, kind = native.to_tensors(value, native.OUTPUT)
    message = grpc.encode_response(InferResponse(tensors, parameters={native.NATIVE: kind}))
    h2.send_headers(stream, HEADERS)
    h2.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message)
    h2.send_headers(stream, OK, end_stream=True)


def goaway(last: int) -> bytes:
    """h2 itself ends a connection with it."""
    return b"\0\0\x08\x07\0\0\0\0\0" + last.to_bytes(4, "big") + b"\0\0\0\0"


class Script:
    """An HTTP/2 server that does `on_request(writer, h2, stream)`; counts connections, and those that ended."""

    def __init__(self, on_request: Callable[[asyncio.StreamWriter, H2Connection, int, int], None]) -> None:
        self.on_request = on_request
        self.begun = self.ended = 0
        self.closed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.begun += 1
        number = self.begun
        h2 = H2Connection(H2Configuration(client_side=False))
        h2.initiate_connection()
        writer.write(h2.data_to_send())
        try:
            while data := await reader.read(65536):
                for event in h2.receive_data(data):
                    if isinstance(event, RequestReceived):
                        assert event.stream_id is not None
                        self.on_request(writer, h2, event.stream_id, number)
                writer.write(h2.data_to_send())
        finally:
            self.ended += 1
            self.closed.set()


async def test_a_call_is_answered_though_the_server_is_leaving_and_the_next_goes_elsewhere() -> None:
    def on_request(writer: asyncio.StreamWriter, h2: H2Connection, stream: int, number: int) -> None:
        writer.write(h2.data_to_send() + goaway(stream))
        answer(h2, stream, number)

    script = Script(on_request)
    async with tcp(script.serve) as port, AsyncClient(f"grpc://127.0.0.1:{port}", retries=0) as client:
        async with asyncio.timeout(5):
            assert [await client("told", 1) for _ in range(3)] == [1, 2, 3]
            while script.ended < 3:
                script.closed.clear()
                await script.closed.wait()


@pytest.mark.parametrize("how", ["goaway", "reset"])
async def test_a_call_that_the_server_has_not_begun_is_sent_again(how: str) -> None:
    tried: list[int] = []

    def on_request(writer: asyncio.StreamWriter, h2: H2Connection, stream: int, number: int) -> None:
        tried.append(number)
        if len(tried) > 1:
            answer(h2, stream, 5)
        elif how == "goaway":
            writer.write(h2.data_to_send() + goaway(0))
        else:
            h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)

    script = Script(on_request)
    async with tcp(script.serve) as port, AsyncClient(f"grpc://127.0.0.1:{port}") as client:
        assert await client("told", 1) == 5
    assert tried == ([1, 2] if how == "goaway" else [1, 1])


async def test_without_retries_it_is_told_that_nothing_was_run() -> None:
    def on_request(writer: asyncio.StreamWriter, h2: H2Connection, stream: int, number: int) -> None:
        writer.write(h2.data_to_send() + goaway(0))

    async with tcp(Script(on_request).serve) as port, AsyncClient(f"grpc://127.0.0.1:{port}", retries=0) as client:
        with pytest.raises(Refused, match="the server is stopping"):
            await client("told", 1)


async def test_a_close_ends_connections_that_are_being_left_too() -> None:
    script = Script(lambda writer, h2, stream, number: writer.write(goaway(stream)))
    async with tcp(script.serve) as port:
        client = AsyncClient(f"grpc://127.0.0.1:{port}", retries=0)
        asked = [asyncio.create_task(client("told", n)) for n in range(2)]
        async with asyncio.timeout(5):
            while script.begun < 1 or client._balancer.endpoints.all[0].outstanding < 2:  # noqa: ASYNC110  # nothing announces it
                await asyncio.sleep(0)
            await client.close()
            assert all(isinstance(each, Exception) for each in await asyncio.gather(*asked, return_exceptions=True))
            await script.closed.wait()


async def test_streams_go_on_while_the_server_is_leaving() -> None:
    async with served(streaming=True) as server, server.client("grpc") as client:
        parts = client.stream("told", [1, {"do": "wait"}, 3])
        assert await anext(parts) == 1
        transport = server.transports["grpc"]
        assert isinstance(transport, GrpcTransport)
        for connection in transport.connections:
            connection.leave()
        server.orders.release.set()
        assert [part async for part in parts] == [{"do": "wait"}, 3]
