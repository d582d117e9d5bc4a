"""Answers in parts by msgpack over TCP, on a real socket in this process."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
import uvloop

from asyncline import DeadlineExceeded, Graph, OpError, ProductError, Reply, Request, op
from asyncline.client.tcp import AHEAD
from asyncline.wire.frame import messages
from asyncline.wire.frame.decoder import ERROR, HELLO, PART, RESULT

from .test_events import Flood, count, steps
from .test_tcp import Raw, echo, one_op, serving


async def said(raw: Raw) -> tuple[int, Any]:
    """The kind of the next frame, and what it says."""
    while True:
        kind, _, header, body = await raw.frame()
        if kind == PART:
            return kind, messages.decode_part(header, body)
        if kind == RESULT:
            return kind, messages.decode_result(header, body)
        if kind == ERROR:
            return kind, messages.decode_error(header).code
        assert kind == HELLO


async def test_parts_come_in_order_and_then_their_number() -> None:
    async with serving(Graph("test", count(Request()))) as door:
        raw = await door.raw()
        raw.call(1, 3, parts=100)
        assert [await said(raw) for _ in range(4)] == [(PART, (0, 0)), (PART, (1, 1)), (PART, (2, 2)), (RESULT, 3)]


async def test_a_client_iterates_over_parts_as_they_come() -> None:
    made, graph = steps()
    async with serving(graph) as door:
        connection = await door.connect()
        got = []
        made.go.put_nowait("first")
        async for part in connection.stream("test", 1):
            got.append(part)
            made.go.put_nowait("second" if len(got) == 1 else None)
        assert got == ["first", "second"]


async def test_far_more_parts_than_are_sent_ahead_all_come() -> None:
    async with serving(Graph("test", count(Request()))) as door:
        connection = await door.connect()
        for ahead in (1, 2, AHEAD):
            assert [part async for part in connection.stream("test", 500, ahead=ahead)] == list(range(500))


async def test_parts_may_be_arrays() -> None:
    @op()
    async def frames(n: int) -> AsyncIterator[Any]:
        picture = np.zeros((100, 100), np.uint8)
        for i in range(n):
            picture[:] = i  # what was sent is not touched by it
            yield picture

    async with serving(Graph("test", frames(Request()))) as door:
        connection = await door.connect()
        got = [part async for part in connection.stream("test", 20)]
        assert [int(part[5, 5]) for part in got] == list(range(20))


async def test_streams_and_calls_share_a_connection() -> None:
    async with serving(Graph("test", count(Request()))) as door:
        connection = await door.connect()

        async def read(n: int) -> list[Any]:
            return [part async for part in connection.stream("test", n)]

        lists = await asyncio.gather(*(read(n) for n in range(30)), *(connection.call("test", n) for n in range(30)))
        assert lists == 2 * [list(range(n)) for n in range(30)]


async def test_a_graph_that_does_not_stream_has_one_part() -> None:
    async with serving(one_op(echo)) as door:
        connection = await door.connect()
        assert [part async for part in connection.stream("test", {"a": 1})] == [{"a": 1}]


async def test_a_reply_is_the_last_part() -> None:
    @op(cpu="inline")
    def early(value: Any) -> Any:
        return Reply("cached")

    async with serving(Graph("test", count(early(Request())))) as door:
        connection = await door.connect()
        assert [part async for part in connection.stream("test", 3)] == ["cached"]


async def test_without_the_option_the_answer_is_the_list_of_parts() -> None:
    async with serving(Graph("test", count(Request()))) as door:
        assert await (await door.connect()).call("test", 3) == [0, 1, 2]


# -- failures -------------------------------------------------------------------------------------------


async def test_what_fails_in_mid_stream_is_raised_after_the_parts() -> None:
    made, graph = steps()
    async with serving(graph) as door:
        connection = await door.connect()
        for part in ("a", ProductError(7, "no more")):
            made.go.put_nowait(part)
        got = []
        with pytest.raises(ProductError, match="no more"):
            async for part in connection.stream("test", 1):
                got.append(part)  # noqa: PERF401  # those before the error count
        assert got == ["a"]


async def test_a_part_that_msgpack_cannot_carry_is_an_error() -> None:
    made, graph = steps()
    async with serving(graph) as door:
        connection = await door.connect()
        made.go.put_nowait(object())
        with pytest.raises(OpError, match="cannot be written as msgpack"):
            await anext(connection.stream("test", 1))
        await made.closed.wait()
        made.go.put_nowait(None)
        assert await connection.call("test", 1) == []


async def test_a_deadline_ends_the_stream() -> None:
    made, graph = steps()
    async with serving(graph) as door:
        connection = await door.connect()
        made.go.put_nowait("a")
        with pytest.raises(DeadlineExceeded):
            _ = [part async for part in connection.stream("test", 1, timeout=0.05)]
        await made.closed.wait()


@pytest.mark.parametrize("header", [b"", b"\x00", b"\xc0"])
async def test_a_more_that_makes_no_sense_is_hung_up_on(header: bytes) -> None:
    async with serving(Graph("test", count(Request()))) as door:
        raw = await door.raw()
        raw.call(1, 5, parts=1)
        assert await said(raw) == (PART, (0, 0))
        raw.send(b"".join(messages.frame(messages.decoder.MORE, 1, header)))
        await raw.goodbye()


async def test_a_more_for_nothing_is_nothing() -> None:
    async with serving(Graph("test", count(Request()))) as door:
        raw = await door.raw()
        raw.send(b"".join(messages.encode_more(9, 5)))
        raw.call(1, 1, parts=5)
        assert await said(raw) == (PART, (0, 0))


# -- flow -----------------------------------------------------------------------------------------------


async def test_no_more_parts_come_than_were_asked_for() -> None:
    async with serving(Graph("test", count(Request()))) as door:
        raw = await door.raw()
        raw.call(1, 6, parts=3)
        assert [await said(raw) for _ in range(3)] == [(PART, (n, n)) for n in range(3)]
        for stream in (2, 3):  # two answers later there would have been another
            raw.call(stream, 0)
            assert await said(raw) == (RESULT, [])
        for frame in (messages.encode_more(1, 2), messages.encode_more(1, 5)):
            raw.send(b"".join(frame))
        assert [await said(raw) for _ in range(4)] == [(PART, (3, 3)), (PART, (4, 4)), (PART, (5, 5)), (RESULT, 6)]


async def test_a_loop_that_does_not_take_parts_holds_the_generator_and_no_other_call() -> None:
    made = Flood(Request())
    async with serving(Graph("test", made)) as door:
        connection = await door.connect()
        async with aclosing(connection.stream("test", 10)) as slow:
            assert await anext(slow) == "x" * 10
            async with aclosing(connection.stream("test", 20)) as other:
                for _ in range(5 * AHEAD):
                    assert await anext(other) == "x" * 20
        assert made.made <= 7 * AHEAD + 2


async def test_a_connection_that_is_not_read_holds_its_streams() -> None:
    made = Flood(Request())
    async with serving(Graph("test", made), stall_timeout_s=0.5) as door:
        raw = await door.raw()
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is of a socket
        for stream in range(1, 11):
            raw.call(stream, 100_000, parts=65_535)
        async with asyncio.timeout(20):
            await made.closed.wait()  # it is hung up on
        assert made.made * 100_000 < 20_000_000
        await door.until_closed(0)


async def test_breaking_out_of_a_stream_cancels_it() -> None:
    made, graph = steps()
    async with serving(graph) as door:
        connection = await door.connect()
        made.go.put_nowait("a")
        async for _ in connection.stream("test", 1):
            break
        await made.closed.wait()
        await door.until_empty()
        made.go.put_nowait(None)
        assert await connection.call("test", 1) == []


async def test_a_client_that_leaves_ends_its_streams() -> None:
    made, graph = steps()
    async with serving(graph) as door:
        connection = await door.connect()
        made.go.put_nowait("a")
        stream = connection.stream("test", 1)
        await anext(stream)
        await connection.close()
        await made.closed.wait()
        await stream.aclose()


async def test_a_stop_lets_a_stream_end() -> None:
    made, graph = steps()
    async with serving(graph) as door:
        connection = await door.connect()
        made.go.put_nowait("a")
        stream = connection.stream("test", 1)
        assert await anext(stream) == "a"
        door.transport.close()
        for part in ("b", None):
            made.go.put_nowait(part)
        assert [part async for part in stream] == ["b"]


TESTS = [
    each
    for name, each in list(globals().items())
    if name.startswith("test_") and inspect.iscoroutinefunction(each) and not inspect.signature(each).parameters
]


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.__name__.removeprefix("test_"))
def test_on_uvloop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(test())
