"""A graph that streams, served as a user serves it and read by other people's clients."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import aiohttp
import pytest

from asyncline import ProductError
from asyncline.client.tcp import AHEAD, TcpConnection
from tests.serving import Server, serving

HEADERS = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("streaming:count") as served:
        yield served


def ask(server: Server) -> dict[str, int]:
    """How many parts were made and how many streams have ended, before this."""
    _, (told,) = server.post("/count", {"order": {"ask": True}})
    return dict(told)


def wait_for_ended(server: Server, count: int) -> dict[str, int]:
    until = time.monotonic() + 10
    while (told := ask(server))["ended"] < count:
        assert time.monotonic() < until, told
        time.sleep(0.02)
    return told


def open_stream(server: Server, order: dict[str, Any]) -> socket.socket:
    """Ask for a stream as curl does."""
    host, _, port = server.address.removeprefix("http://").partition(":")
    made = socket.create_connection((host, int(port)), timeout=20)
    body = json.dumps({"order": order}).encode()
    made.sendall(
        b"POST /count HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    return made


def test_a_raw_socket_sees_every_part_as_an_event(server: Server) -> None:
    with open_stream(server, {"n": 3}) as sock, sock.makefile("rb") as file:
        assert file.readline() == b"HTTP/1.1 200 OK\r\n"
        lines = []
        for line in file:
            if line.startswith((b"data: ", b"event: ")):
                lines.append(line)
            if line == b"0\r\n":
                break
        assert lines[:4] == [b"data: 0\n", b"data: 1\n", b"data: 2\n", b"event: done\n"]
        assert json.loads(lines[4].removeprefix(b"data: "))["parts"] == 3


def test_aiohttp_reads_parts_as_they_come(server: Server) -> None:
    async def main() -> list[tuple[bytes, float]]:
        async with aiohttp.ClientSession() as session:
            order = {"order": {"n": 3, "pause_ms": 50}}
            async with session.post(server.address + "/count", json=order, headers=HEADERS) as response:
                assert response.content_type == "text/event-stream"
                return [(line, time.monotonic()) async for line in response.content if line.startswith(b"data: ")]

    lines = asyncio.run(main())
    assert [line for line, _ in lines[:3]] == [b"data: 0\n", b"data: 1\n", b"data: 2\n"]
    assert lines[2][1] - lines[0][1] > 0.05  # not all at the end


def test_without_the_header_it_is_a_list(server: Server) -> None:
    assert server.post("/count", {"order": {"n": 4}}) == (200, [0, 1, 2, 3])


def test_an_error_in_mid_stream_is_an_event(server: Server) -> None:
    with open_stream(server, {"n": 3, "fail_at": 1}) as sock, sock.makefile("rb") as file:
        lines = []
        for line in file:
            lines.append(line)
            if line == b"0\r\n":
                break
        at = lines.index(b"event: error\n")
        assert json.loads(lines[at + 1].removeprefix(b"data: "))["code"] == 7
        assert b"data: 0\n" in lines[:at]


def test_a_client_that_leaves_closes_the_generator(server: Server) -> None:
    before = ask(server)
    with open_stream(server, {"n": 10**6, "pause_ms": 1}) as sock:
        assert sock.recv(100)
    after = wait_for_ended(server, before["ended"] + 1)
    assert after["made"] - before["made"] < 10_000


def test_readers_that_never_read_cost_little_and_disturb_nobody(server: Server) -> None:
    before = ask(server)
    orders = {"n": 10**6, "nbytes": 100_000}
    socks = [open_stream(server, orders) for _ in range(20)]
    try:
        for _ in range(20):
            assert server.post("/count", {"order": {"n": 2}}) == (200, [0, 1])
        # Each is held after what two kernels and one write buffer keep.
        assert ask(server)["made"] - before["made"] < 20 * 100
    finally:
        for sock in socks:
            sock.close()
    wait_for_ended(server, before["ended"] + 20)


# -- msgpack over TCP -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tcp_server() -> Iterator[tuple[str, int]]:
    with serving("streaming:count", "--tcp-port", "0") as served:
        host, port = served.wait_for(r"and on tcp://(\S+):(\d+)").groups()
        yield host, int(port)


async def test_our_tcp_client_reads_parts_as_they_come(tcp_server: tuple[str, int]) -> None:
    async with await TcpConnection.open(*tcp_server) as connection:
        order = {"order": {"n": 3, "pause_ms": 50}}
        parts = [(part, time.monotonic()) async for part in connection.stream("count", order)]
        assert [part for part, _ in parts] == [0, 1, 2]
        assert parts[2][1] - parts[0][1] > 0.05
        assert await connection.call("count", {"order": {"n": 2}}) == [0, 1]


async def test_an_error_in_mid_stream_is_raised_by_our_tcp_client(tcp_server: tuple[str, int]) -> None:
    async with await TcpConnection.open(*tcp_server) as connection:
        got = []
        with pytest.raises(ProductError, match="not this one"):
            async for part in connection.stream("count", {"order": {"n": 3, "fail_at": 2}}):
                got.append(part)  # noqa: PERF401  # those before the error count
        assert got == [0, 1]


async def test_a_slow_tcp_loop_holds_its_generator_alone(tcp_server: tuple[str, int]) -> None:
    async with await TcpConnection.open(*tcp_server) as connection:
        (before,) = await connection.call("count", {"order": {"ask": True}})
        async with aclosing(connection.stream("count", {"order": {"n": 10**6, "nbytes": 10_000}})) as slow:
            await anext(slow)
            assert len(await connection.call("count", {"order": {"n": 1000}})) == 1000
            (after,) = await connection.call("count", {"order": {"ask": True}})
            assert after["made"] - before["made"] <= 1000 + 2 * AHEAD
        async with asyncio.timeout(10):
            while True:  # the slow one ends too, and nothing says when
                (after,) = await connection.call("count", {"order": {"ask": True}})
                if after["ended"] == before["ended"] + 2:
                    break
