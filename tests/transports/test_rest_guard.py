"""REST and clients that are slow, greedy or speak something else: on real sockets, in this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest
import uvloop

from asyncline import Engine, Graph, Request, op
from asyncline.observe.prometheus import Metrics
from asyncline.observe.statistics import Statistics
from asyncline.settings import Source, merge
from asyncline.transports.guard.guard import ConnGuard
from asyncline.transports.guard.limits import Limits
from asyncline.transports.rest.transport import RestTransport

MB = 10**6
CHUNKED = b"POST /test HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class Door:
    """A transport, its Engine, and what is counted of both."""

    def __init__(self, engine: Engine, transport: RestTransport, guard: ConnGuard, statistics: Statistics) -> None:
        self.engine = engine
        self.transport = transport
        self.guard = guard
        self.statistics = statistics
        self.clients: list[Raw] = []

    async def connect(self, receive_nbytes: int | None = None) -> Raw:
        """:param receive_nbytes: of the kernel's buffer and of what is read ahead."""
        host, _, port = self.transport.address.removeprefix("http://").partition(":")
        client = socket.socket()
        client.setblocking(False)
        if receive_nbytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_nbytes)
        await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
        self.clients.append(Raw(*await asyncio.open_connection(sock=client, limit=receive_nbytes or 2**16)))
        return self.clients[-1]

    async def until(self, condition: Callable[[], object]) -> None:
        """Nothing announces what a server has seen of a client: let the loop go round, for a bounded time."""
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110  # as it says
                await asyncio.sleep(0)

    @property
    def closed(self) -> dict[str, int]:
        """How many connections have ended, by reason."""
        return {reason: count for (_, reason), count in self.statistics.connections_closed.items()}


class Raw:
    """A client that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, Any]:
        """The status of the next answer, and its JSON."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = next(line for line in head.split("\r\n") if line.startswith("Content-Length: "))
        body = await self.reader.readexactly(int(length.removeprefix("Content-Length: ")))
        assert "Server:" not in head
        return int(head.split()[1]), orjson.loads(body)

    async def goodbye(self) -> tuple[int, Any]:
        """The last answer: its status and code."""
        status, said = await self.answer()
        assert await self.reader.read() == b""
        return status, said["code"]

    async def until_closed(self) -> None:
        try:
            while await self.reader.read(2**16):
                pass
        except ConnectionError:
            pass

    def close(self) -> None:
        self.writer.close()

    async def wait_closed(self) -> None:
        self.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass


def post(value: Any, *headers: str) -> bytes:
    body = orjson.dumps(value)
    lines = ["POST /test HTTP/1.1", "Host: x", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


@asynccontextmanager
async def serving(
    function: Callable[[Any], Any], guard: dict[str, float] | None = None, **service: Any
) -> AsyncIterator[Door]:
    """:param guard: Limits that are no settings."""
    graph = Graph("test", op(cpu="inline")(function)(Request()))
    settings = merge(
        "test", {o.name: o.code_settings for o in graph.ops}, Source("test", {"service": {"http_port": 0, **service}})
    )
    engine = Engine(graph, settings)
    statistics = Statistics(engine)
    engine.hooks.add(statistics)
    guarding = ConnGuard(engine, settings.service, replace(Limits.of(settings.service), **(guard or {})))
    transport = RestTransport(engine, settings.service, Metrics(engine, statistics).render, guarding)
    await transport.start()
    async with engine:
        door = Door(engine, transport, guarding, statistics)
        yield door
        for client in door.clients:
            await client.wait_closed()
    transport.close()
    await transport.wait_closed()
    assert guarding.count == guarding.reserved == 0 and engine.admission.nbytes == 0 and engine.admission.in_flight == 0


def echo(value: Any) -> Any:
    return value


def many(count: int) -> str:
    return "x" * count


# -- what is no request ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (b"NONSENSE\r\n\r\n", (400, "bad_request")),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, "bad_request")),
        (b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(190), (400, "bad_request")),
        (b"\x01\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x80", (400, "bad_request")),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", (431, "too_large")),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 9000, (431, "too_large")),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Y: 1\r\n" * 200 + b"\r\n", (431, "too_large")),
        (b"POST /test HTTP/1.1\r\nHost: x\r\nContent-Length: -4\r\n\r\n", (400, "bad_request")),
        (b"POST /test HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967296\r\n\r\n", (413, "too_large")),
        (CHUNKED + b"zz\r\n", (400, "bad_request")),
        (CHUNKED + b"F" * 17 + b"\r\n", (400, "bad_request")),
        (post([[]], "Transfer-Encoding: chunked"), (400, "bad_request")),
    ],
    ids=range(12),
)  # fmt: skip
async def test_who_speaks_something_else_is_told_so_in_json_and_hung_up_on(
    said: bytes, outcome: tuple[int, str]
) -> None:
    async with serving(echo, {"linger_s": 0.05}) as door:
        raw, other = await door.connect(), await door.connect()
        raw.send(said)
        assert await raw.goodbye() == outcome
        other.send(post(1))
        assert await other.answer() == (200, 1)
        assert door.statistics.rejections == {outcome[1]: 1}


async def test_depth_100000_is_a_bad_request() -> None:
    async with serving(echo) as door:
        raw = await door.connect()
        raw.send(post(0, "Connection: close").replace(b"Content-Length: 1\r\n\r\n0", b"Content-Length: 200000\r\n\r\n"))
        raw.send(b"[" * 100_000 + b"]" * 100_000)
        assert await raw.goodbye() == (400, "bad_request")


async def test_a_chunk_that_is_malformed_fails_the_body_at_once() -> None:
    async with serving(echo, {"linger_s": 0.05}) as door:
        raw = await door.connect()
        raw.send(CHUNKED + b"1\r\n1\r\n")
        await door.until(lambda: door.engine.admission.nbytes)
        raw.send(b"zz\r\n")
        assert await raw.goodbye() == (400, "bad_request")


async def test_nonsense_behind_a_request_does_not_hurt_its_answer() -> None:
    async with serving(echo) as door:
        raw = await door.connect()
        first, rest = post([1, 2])[:-2], post([1, 2])[-2:]
        raw.send(first)
        await door.until(lambda: door.engine.admission.nbytes)
        raw.send(rest + b"NONSENSE\r\n\r\n")
        assert await raw.answer() == (200, [1, 2])
        assert await raw.goodbye() == (400, "bad_request")


async def test_errors_before_there_is_an_item_carry_the_log_id_and_are_counted() -> None:
    async with serving(echo) as door:
        raw = await door.connect()
        raw.send(post(1, "X-Log-Id: mine", "X-Timeout-Ms: soon"))
        head = await raw.reader.readuntil(b"\r\n\r\n")
        assert b"400 Bad Request" in head and b"X-Log-Id: mine\r\n" in head
        assert door.statistics.rejections == {"bad_request": 1}


# -- time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", post(1)], ids=["first", "second"])
@pytest.mark.parametrize("said", [b"", b"P", b"POST /test HTTP/1.1\r\nHost: x\r\nX-Long: "])
async def test_half_a_head_and_silence_are_ended(before: bytes, said: bytes) -> None:
    async with serving(echo, header_timeout_s=0.1, keepalive_s=0.2) as door:
        raw = await door.connect()
        if before:
            raw.send(before)
            assert await raw.answer() == (200, 1)
        raw.send(said)
        if not said:  # kept alive, or opened for later as browsers do: nobody to be told anything
            assert await raw.reader.read() == b""
            await door.until(lambda: door.closed == {"idle": 1})
            assert not door.statistics.rejections
        else:
            assert await raw.goodbye() == (408, "slow_client")
            await door.until(lambda: door.closed == {"slow": 1})


async def test_a_head_that_was_late_and_came_does_not_end_its_connection() -> None:
    async with serving(echo, header_timeout_s=0.5) as door:
        raw = await door.connect()
        raw.send(post(1)[:20])
        await asyncio.sleep(0.1)
        raw.send(post(1)[20:])
        assert await raw.answer() == (200, 1)
        await asyncio.sleep(0.5)
        raw.send(post(2))
        assert await raw.answer() == (200, 2)


async def test_the_rest_of_a_body_that_is_read_in_the_same_turn_begins_no_head() -> None:
    async def slow(value: Any) -> Any:
        await asyncio.sleep(0.1)
        return value

    async with serving(slow, header_timeout_s=0.05) as door:
        raw = await door.connect()
        await door.until(lambda: door.guard.count)
        assert door.transport._server is not None
        [connection] = door.transport._server.connections
        said = post("x" * 100)
        # As libuv does with what is longer than its buffer; the task that answers has not gone on by then.
        connection.data_received(said[:150])
        connection.data_received(said[150:])
        assert await raw.answer() == (200, "x" * 100)
        raw.send(post(2))
        assert await raw.answer() == (200, 2)


@pytest.mark.parametrize("part", ["head", "body", "chunks"])
async def test_who_sends_byte_by_byte_is_ended(part: str) -> None:
    begin = {
        "head": b"POST /test HTTP/1.1\r\nX: ",
        "body": b"POST /test HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n",
        "chunks": CHUNKED,
    }[part]
    async with serving(echo, {"grace_s": 0.05, "linger_s": 0.05}, header_timeout_s=0.05) as door:
        raw = await door.connect()
        raw.send(begin)

        async def drip() -> None:
            while True:
                raw.send(b"1" if part != "chunks" else b"1\r\n1\r\n")
                await asyncio.sleep(0.005)

        dripping = asyncio.create_task(drip())
        assert (await raw.answer())[1]["code"] == "slow_client"
        dripping.cancel()
        await raw.until_closed()
        await door.until(lambda: door.closed == {"slow": 1})


async def test_a_large_body_that_comes_fast_enough_may_take_longer_than_the_grace() -> None:
    async with serving(len, {"grace_s": 0.02, "upload_nbytes_s": 10_000}) as door:
        raw, body = await door.connect(), orjson.dumps("x" * 50_000)
        raw.send(b"POST /test HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        for place in range(0, len(body), 5000):
            raw.send(body[place : place + 5000])
            await asyncio.sleep(0.005)
        assert await raw.answer() == (200, 50_000)


async def test_a_million_tiny_chunks_are_bounded_by_the_body() -> None:
    """Here 20,000 of one byte, of a body of 10,000."""
    async with serving(echo, {"linger_s": 0.05}, max_body_mb=0.01) as door:
        raw = await door.connect()
        raw.send(CHUNKED + b"1\r\n1\r\n" * 20_000)
        assert (await raw.answer())[0] == 413
        await raw.until_closed()


# -- who does not read ----------------------------------------------------------------------------------


async def test_pipelined_answers_that_nobody_reads_are_not_made() -> None:
    """However short each is: aiohttp itself waits for none that has less than 64 KiB."""
    async with serving(many) as door:
        raw, other = await door.connect(4096), await door.connect()
        raw.send(post(60_000) * 1000)
        await door.until(lambda: door.engine.admission.nbytes)
        other.send(post(1))
        assert await other.answer() == (200, "x")
        assert door.engine.admission.nbytes < 500_000 and next(door.engine.ids) < 100
        for _ in range(1000):
            assert await raw.answer() == (200, "x" * 60_000)


async def test_ten_thousand_pipelined_requests_get_their_answers_in_order() -> None:
    async with serving(echo) as door:
        raw = await door.connect()
        raw.send(b"".join(post(n) for n in range(10_000)))
        for n in range(10_000):
            assert await raw.answer() == (200, n)


async def reads_nothing_and_is_ended() -> None:
    async with serving(many, stall_timeout_s=0.05) as door:
        raw, other = await door.connect(4096), await door.connect()
        raw.send(post(8 * MB))
        await door.until(lambda: door.engine.admission.nbytes > MB)
        await door.until(lambda: door.closed == {"stalled": 1})
        assert door.engine.admission.nbytes == 0
        other.send(post(1))
        assert await other.answer() == (200, "x")


async def test_who_reads_nothing_of_an_answer_is_ended() -> None:
    await reads_nothing_and_is_ended()


def test_who_reads_nothing_of_an_answer_is_ended_on_uvloop() -> None:
    uvloop.run(reads_nothing_and_is_ended())


@pytest.mark.parametrize("headers", [("Connection: close",), ()])
async def test_a_short_rest_that_nobody_reads_does_not_keep_a_connection(headers: tuple[str, ...]) -> None:
    """Not enough for the writing to be paused: the connection is idle, or closing, and still not gone."""
    async with serving(many, stall_timeout_s=0.05, keepalive_s=0.05) as door:
        raw = await door.connect(4096)
        raw.send(post(60_000) * 60 + post(60_000, *headers))
        # Read until the writing is not paused any more, and then nothing.
        await door.until(lambda: door.engine.admission.nbytes)
        while door.engine.admission.in_flight or door.engine.admission.nbytes > 0:
            await raw.reader.read(2**14)
        await door.until(lambda: door.guard.count == 0)


async def test_who_reads_slowly_but_does_is_served() -> None:
    async with serving(many, {"download_nbytes_s": 1}, stall_timeout_s=0.5) as door:
        raw = await door.connect(100_000)
        raw.send(post(4 * MB))
        got = 0
        while got < 4 * MB:
            got += len(await raw.reader.read(200_000))
            await asyncio.sleep(0.03)
        assert not door.closed


async def test_unread_answers_leave_less_room_for_others_requests() -> None:
    async with serving(many, max_in_flight_mb=4) as door:
        raw, other = await door.connect(4096), await door.connect()
        raw.send(post(8 * MB))
        await door.until(lambda: door.engine.admission.nbytes > 4 * MB)
        other.send(post(1))
        assert (await other.answer())[0] == 503
        raw.close()
        await door.until(lambda: door.engine.admission.nbytes == 0)
        other.send(post(1))
        assert await other.answer() == (200, "x")


async def test_who_does_not_read_cannot_keep_a_server_from_stopping() -> None:
    async with serving(many, {"linger_s": 0.05}) as door:
        raw = await door.connect(4096)
        raw.send(post(8 * MB))
        await door.until(lambda: door.engine.admission.nbytes > MB)
        door.transport.close()
        async with asyncio.timeout(5):
            await door.transport.wait_closed()
        assert door.guard.count == 0 and door.closed == {"stopping": 1}


# -- who may --------------------------------------------------------------------------------------------


async def test_connections_over_a_limit_are_closed_at_once_and_those_that_are_open_notice_nothing() -> None:
    async with serving(echo, {"reserved": 0}, max_connections=3) as door:
        inside = [await door.connect() for _ in range(3)]
        for each in inside:
            each.send(post(1))
            assert await each.answer() == (200, 1)
        outside = [await door.connect() for _ in range(5)]
        for each in outside:
            await each.until_closed()
        assert door.statistics.connections_refused == {("rest", "connections"): 5}
        inside.pop().close()
        await door.until(lambda: door.guard.count == 2)
        inside.append(await door.connect())
        for each in inside:
            each.send(post(2))
            assert await each.answer() == (200, 2)


async def test_over_the_limit_an_operator_is_answered_and_others_are_told_to_come_later() -> None:
    async with serving(echo, {"reserved": 2}, max_connections_per_peer=2) as door:
        inside = [await door.connect() for _ in range(2)]
        await door.until(lambda: door.guard.count == 2)
        for path in (b"/metrics", b"/readyz", b"/"):
            operator = await door.connect()
            operator.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            answer = await operator.reader.read()  # it is ended, as others want it
            assert answer.startswith(b"HTTP/1.1 200 ") and b"\r\nConnection: close\r\n" in answer
        assert not door.statistics.connections_refused
        client = await door.connect()
        client.send(post(1))
        assert await client.goodbye() == (503, "overloaded")
        assert door.statistics.connections_refused == {("rest", "peer"): 1}
        assert not door.statistics.rejections  # the door to the graph is not too small
        inside[0].send(post(1))
        assert await inside[0].answer() == (200, 1)


async def test_who_says_nothing_keeps_no_connection_of_the_reserve() -> None:
    async with serving(echo, {"reserved": 1, "header_s": 0.05}, max_connections=1) as door:
        await door.connect()
        await door.until(lambda: door.guard.count)
        silent = await door.connect()
        await door.until(lambda: door.guard.reserved)
        refused = await door.connect()
        await refused.until_closed()
        await silent.until_closed()
        await door.until(lambda: not door.guard.reserved)
        operator = await door.connect()
        operator.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await operator.answer())[0] == 200


async def test_metrics_tell_of_connections() -> None:
    async with serving(echo, {"reserved": 0}, max_connections=2) as door:
        raw, gone, outside = await door.connect(), await door.connect(), await door.connect()
        gone.send(b"NONSENSE\r\n\r\n")
        for each in (gone, outside):
            await each.until_closed()
        await door.until(lambda: door.guard.count == 1)
        raw.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = (await raw.reader.read()).decode()
        for line in (
            'asyncline_connections{wire="rest"} 1.0',
            'asyncline_connections_closed_total{reason="malformed",wire="rest"} 1.0',
            'asyncline_connections_refused_total{reason="connections",wire="rest"} 1.0',
            'asyncline_rejected_total{reason="bad_request"} 1.0',
        ):
            assert line in text
