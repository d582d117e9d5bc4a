"""Streams of a TcpConnection, and servers that get them wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from asyncline import BadRequest, Unavailable
from asyncline.client.base import Malformed, Refused
from asyncline.client.tcp import TcpConnection
from asyncline.wire.frame import messages
from asyncline.wire.frame.decoder import CALL, CANCEL, MORE, PART, PREFIX
from asyncline.wire.frame.values import Encoder

from .test_tcp import FakeServer, start, talking


def read(connection: TcpConnection, **kwargs: Any) -> tuple[list[Any], asyncio.Task[None]]:
    """What comes of a stream, and the task that reads it."""
    got: list[Any] = []

    async def read_all() -> None:
        async for part in connection.stream("test", "order", **kwargs):
            got.append(part)  # noqa: PERF401  # it is looked at meanwhile

    return got, asyncio.create_task(read_all())


def part(server: FakeServer, stream: int, number: int, value: Any) -> None:
    server.say(messages.encode_part(Encoder(copy=True), stream, number, value)[0])


async def test_more_is_said_when_half_is_taken() -> None:
    async with talking() as (connection, server):
        got, task = read(connection, ahead=4)
        stream, _ = await server.heard(CALL)
        for number in range(2):
            part(server, stream, number, number)
        # What this says is malformed for `heard`, which only knows of calls.
        assert await server.heard(MORE) == (stream, None)
        server.answer(stream, 2)
        await task
        assert got == [0, 1] and connection.in_flight == 0


async def test_parts_that_nobody_takes_are_not_followed_by_more() -> None:
    async with talking() as (connection, server):
        parts = connection.stream("test", "order", ahead=2)
        first = asyncio.ensure_future(anext(parts))
        stream, _ = await server.heard(CALL)
        for number in range(2):
            part(server, stream, number, number)
        assert await first == 0
        other = start(connection, "other")
        await server.heard(CALL)
        assert server.hears_nothing()
        await parts.aclose()
        await server.heard(CANCEL)
        other.cancel()


async def test_parts_after_a_cancel_go_to_nobody() -> None:
    async with talking() as (connection, server):
        parts = connection.stream("test", "order")
        first = asyncio.ensure_future(anext(parts))
        stream, _ = await server.heard(CALL)
        part(server, stream, 0, "a")
        assert await first == "a"
        await parts.aclose()
        assert await server.heard(CANCEL) == (stream, None)
        part(server, stream, 1, "b")
        server.say(PREFIX.pack(PART, 0, 0, stream, 2**20) + bytes(2**20))
        call = start(connection, "other")
        other, _ = await server.heard(CALL)
        assert other != stream
        server.answer(stream, 2)
        server.answer(other, "fine")
        assert await call == "fine" and connection.in_flight == 0


@pytest.mark.parametrize(
    ("say", "words"),
    [
        (lambda server, stream: part(server, stream, 1, "x"), "PART 1 instead of 0"),
        (
            lambda server, stream: server.say(PREFIX.pack(PART, 0, 1, stream, 0) + b"\xc0"),
            "expected a number and a value",
        ),
        (
            lambda server, stream: server.say(PREFIX.pack(PART, 0, 0, stream, 2**20) + bytes(2**20)),
            "over the limit of 2000",
        ),
        (lambda server, stream: server.answer(stream, 5), "sent 0 parts and said 5"),
    ],
)
async def test_a_stream_that_makes_no_sense_fails_alone(say: Callable[[FakeServer, int], None], words: str) -> None:
    async with talking(max_answer_nbytes=2000) as (connection, server):
        _, task = read(connection)
        stream, _ = await server.heard(CALL)
        say(server, stream)
        with pytest.raises(Malformed, match=words):
            await task
        call = start(connection, "other")
        if "said" not in words:
            await server.heard(CANCEL)
        other, _ = await server.heard(CALL)
        server.answer(other, "fine")
        assert await call == "fine"


async def test_a_part_that_was_not_asked_for_ends_the_connection() -> None:
    async with talking() as (connection, server):
        call = start(connection, "order")
        stream, _ = await server.heard(CALL)
        part(server, stream, 0, "x")
        with pytest.raises(Unavailable, match="asked for none"):
            await call
        await server.until_left()


async def test_an_older_server_refuses_a_stream_and_nothing_else() -> None:
    async with talking() as (connection, server):
        _, task = read(connection)
        stream, _ = await server.heard(CALL)
        server.say(messages.encode_error(stream, BadRequest("no option 'parts'"), 1))
        with pytest.raises(BadRequest, match="no option 'parts'"):
            await task
        assert connection.is_open


async def test_a_lost_connection_fails_the_stream_after_its_parts() -> None:
    async with talking() as (connection, server):
        got, task = read(connection)
        stream, _ = await server.heard(CALL)
        part(server, stream, 0, "a")
        server.socket.close()
        with pytest.raises(Unavailable):
            await task
        assert got == ["a"]
        with pytest.raises(Refused):
            await anext(connection.stream("test", "order"))


async def test_a_deadline_that_the_server_forgets_ends_the_stream() -> None:
    async with talking() as (connection, server):
        _, task = read(connection, timeout=0.01)
        stream, _ = await server.heard(CALL)
        with pytest.raises(Exception, match=r"no answer within 0\.01 s"):
            await task
        assert await server.heard(CANCEL) == (stream, None)


@pytest.mark.parametrize("ahead", [0, 65536])
async def test_a_window_has_to_be_one(ahead: int) -> None:
    async with talking() as (connection, _):
        with pytest.raises(ValueError, match="parts ahead: expected 1 to 65535"):
            await anext(connection.stream("test", "order", ahead=ahead))
