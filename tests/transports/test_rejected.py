"""What is refused before there is an Item is counted, once and by its reason, whatever wire it came by."""

from __future__ import annotations

import asyncio

import pytest

from asyncline import Observer
from asyncline.wire.frame.decoder import CALL, HELLO
from asyncline.wire.oip import InferRequest, grpc
from asyncline.wire.oip.schema import method
from tests.client.served import Served, served
from tests.transports.grpc_door import Raw, framed

INFER, STREAM = method("ModelInfer"), method("ModelStreamInfer")


class Counts(Observer):
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def rejected(self, reason: str) -> None:
        self.reasons.append(reason)


async def by_http(server: Served, body: bytes) -> None:
    reader, writer = await opened(server, "http")
    head = f"POST /told HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await reader.read()
    writer.close()


async def by_tcp(server: Served, header: bytes) -> None:
    reader, writer = await opened(server, "tcp")
    hello = bytes((HELLO, 0, 1, 0)) + (1).to_bytes(4, "little") + bytes(4) + b"\x80"
    call = bytes((CALL, 0)) + len(header).to_bytes(2, "little") + (7).to_bytes(4, "little") + bytes(4) + header
    writer.write(hello + call)
    for _ in range(2):
        prefix = await reader.readexactly(12)
        await reader.readexactly(int.from_bytes(prefix[2:4], "little"))
    writer.close()


async def by_grpc(server: Served, path: str, message: bytes) -> None:
    raw = Raw(*await opened(server, "grpc"))
    raw.send(raw.hello)
    stream = raw.call(path, None, end=False)
    raw.h2.send_data(stream, framed(message), end_stream=True)
    raw.flush()
    while raw.h2.open_outbound_streams:
        raw.h2.receive_data(await raw.reader.read(2**16))
    await raw.close()


async def opened(server: Served, wire: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = server.addresses[wire].rpartition("/")[2].rpartition(":")
    return await asyncio.open_connection(host, int(port))


UNKNOWN = grpc.encode_request(InferRequest((), "other"))


@pytest.mark.parametrize(
    ("wire", "sent", "reason"),
    [
        ("http", [b"{"], "bad_request"),
        ("tcp", [b"\x91\xc0"], "bad_request"),
        ("tcp", [b"\x93\xa5other\x80\xc0"], "not_found"),
        ("grpc", [INFER, b"\xff"], "bad_request"),
        ("grpc", [INFER, UNKNOWN], "not_found"),
        ("grpc", ["/none.None/None", b""], "unsupported"),
        ("grpc", [STREAM, UNKNOWN], "not_found"),
    ],
)
async def test_what_cannot_be_read_is_counted_once(wire: str, sent: list[bytes], reason: str) -> None:
    counts = Counts()
    async with served() as server:
        server.engine.hooks.add(counts)
        ways = {"http": by_http, "tcp": by_tcp, "grpc": by_grpc}
        async with asyncio.timeout(20):
            await ways[wire](server, *sent)  # type: ignore[operator]  # each as it takes it
    assert counts.reasons == [reason]


@pytest.mark.parametrize("wire", ["http", "tcp", "grpc"])
async def test_what_finds_no_room_is_counted_once(wire: str) -> None:
    counts = Counts()
    async with served(max_in_flight=1) as server, server.client(wire) as client:
        server.engine.hooks.add(counts)
        first = asyncio.create_task(client("told", {"do": "wait"}))
        await server.orders.until(server.orders.begun)
        with pytest.raises(Exception, match="the most allowed"):
            await client("told", 1)
        server.orders.release.set()
        await first
    assert counts.reasons == ["overloaded"]
