"""Answers in parts, by every wire, against real servers in this process."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from asyncline import DeadlineExceeded, OpError, Overloaded, ProductError, Unavailable
from asyncline.client import AsyncClient, Malformed
from asyncline.errors import NotFound
from tests.client.served import WIRES, served
from tests.client.servers import tcp

every_wire = pytest.mark.parametrize("wire", WIRES)


async def parts_of(client: AsyncClient, orders: Any, **options: Any) -> list[Any]:
    return [part async for part in client.stream("told", orders, **options)]


@every_wire
async def test_parts_come_as_they_went(wire: str) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    sent = [1, "é\n\ndata: x", b"\xff" * 10_000, {"a": array}, None, [1.5]]
    async with served(streaming=True) as server, server.client(wire) as client:
        found = await parts_of(client, sent)
    np.testing.assert_array_equal(found[3]["a"], array)
    assert found[3]["a"].dtype == np.float32
    assert found[:3] + found[4:] == sent[:3] + sent[4:]


@every_wire
async def test_a_part_is_there_before_the_next_is_made(wire: str) -> None:
    async with served(streaming=True) as server, server.client(wire) as client:
        async with aclosing(client.stream("told", [1, {"do": "wait"}, 3])) as parts:
            assert await anext(parts) == 1
            await server.orders.until(server.orders.begun)
            server.orders.release.set()
            assert [part async for part in parts] == [{"do": "wait"}, 3]


@every_wire
async def test_no_parts_are_none_and_a_plain_answer_is_one(wire: str) -> None:
    async with served(streaming=True) as server, server.client(wire) as client:
        assert await parts_of(client, []) == []
        assert await client("told", [1, 2]) == [1, 2]
    async with served() as server, server.client(wire) as client:
        assert await parts_of(client, 5) == [5]


@every_wire
async def test_many_streams_go_at_once(wire: str) -> None:
    async with served(streaming=True) as server, server.client(wire) as client:
        several = [list(range(n, n + 50)) for n in range(20)]
        assert await asyncio.gather(*(parts_of(client, each) for each in several)) == several


@every_wire
async def test_an_error_comes_after_the_parts_before_it_and_has_its_class(wire: str) -> None:
    orders = [1, {"do": "raise", "kind": "ProductError", "code": 1001}]
    async with served(streaming=True) as server, server.client(wire) as client:
        for sent, kind in ((orders, ProductError), ([1, {"do": "crash"}], OpError)):
            found = []
            with pytest.raises(kind, match="as told") as caught:
                async for part in client.stream("told", sent):
                    found.append(part)  # noqa: PERF401  # what came before the error
            assert found == [1]
            assert kind is OpError or caught.value.code == 1001


@every_wire
async def test_an_error_before_the_first_part_is_as_of_a_call(wire: str) -> None:
    async with served(streaming=True, max_in_flight=1) as server, server.client(wire) as client:
        with pytest.raises(NotFound):
            await anext(client.stream("other", []))
        async with aclosing(client.stream("told", [1, {"do": "sleep"}])) as parts:
            await anext(parts)
            with pytest.raises(Overloaded) as caught:
                await parts_of(client, [1])
            assert caught.value.was_refused


@every_wire
async def test_leaving_a_stream_cancels_it_there(wire: str) -> None:
    async with served(streaming=True) as server, server.client(wire) as client:
        async with aclosing(client.stream("told", [1, {"do": "sleep"}])) as parts:
            await anext(parts)
            await server.orders.until(server.orders.begun)
        await server.orders.until(server.orders.cancelled)
        await server.until_empty()
        assert client._balancer.endpoints.all[0].outstanding == 0
        assert await parts_of(client, [1]) == [1]


@every_wire
async def test_a_cancel_between_parts_reaches_the_server(wire: str) -> None:
    async with served(streaming=True) as server, server.client(wire) as client:
        task = asyncio.create_task(parts_of(client, [1, {"do": "sleep"}]))
        await server.orders.until(server.orders.begun)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.orders.until(server.orders.cancelled)
        await server.until_empty()


@every_wire
async def test_the_deadline_is_of_all_parts_together(wire: str) -> None:
    async with served(streaming=True) as server, server.client(wire) as client:
        with pytest.raises(DeadlineExceeded):
            await parts_of(client, [1, {"do": "sleep"}], timeout=0.1)
        await server.until_empty()


@every_wire
async def test_a_close_ends_streams(wire: str) -> None:
    async with served(streaming=True) as server:
        client = server.client(wire)
        task = asyncio.create_task(parts_of(client, [1, {"do": "sleep"}]))
        await server.orders.until(server.orders.begun)
        await client.close()
        with pytest.raises(Unavailable):
            await task
        await server.until_empty()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"data: kzE=\n\n", Malformed),  # an array cut short
        (b"data: !!\n\n", Malformed),
        (b"event: error\ndata: []\n\n", Malformed),
        (b"", Unavailable),
    ],
)
async def test_rubbish_instead_of_events_is_told(body: bytes, kind: type[Exception]) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + body)
        await writer.drain()

    async with tcp(talk) as port, AsyncClient(f"http://127.0.0.1:{port}", retries=0) as client:
        with pytest.raises(kind):
            await parts_of(client, [1])
