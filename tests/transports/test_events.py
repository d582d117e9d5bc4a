"""Server-sent events over a real socket, in this process."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncline import Graph, Op, ProductError, Reply, Request, op
from asyncline.graph.request import Input
from asyncline.transports.rest import events as events_module

from .test_rest import Client, one_op, serving

ACCEPT = {"Accept": "text/event-stream"}


class Steps(Op):
    """A part for every `go`; what is put into it is the part, an exception is raised."""

    def __init__(self, *inputs: Input, **settings: Any) -> None:
        super().__init__(*inputs, **settings)
        self.go: asyncio.Queue[Any] = asyncio.Queue()
        self.begun, self.closed = asyncio.Event(), asyncio.Event()

    async def preprocess(self, value: Any) -> AsyncIterator[Any]:
        self.begun.set()
        try:
            while (part := await self.go.get()) is not None:
                if isinstance(part, Exception):
                    raise part
                yield part
        finally:
            self.closed.set()


class Flood(Op):
    """Large parts, as fast as they are taken."""

    def __init__(self, *inputs: Input, **settings: Any) -> None:
        super().__init__(*inputs, **settings)
        self.made = 0
        self.closed = asyncio.Event()

    async def preprocess(self, nbytes: int) -> AsyncIterator[str]:
        try:
            while True:
                self.made += 1
                yield "x" * nbytes
        finally:
            self.closed.set()


@op()
async def count(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


def steps() -> tuple[Steps, Graph]:
    made = Steps(Request())
    return made, Graph("test", made)


def parse(body: bytes) -> list[tuple[str, Any]]:
    """Events as pairs of their kind and their data; comments are left out."""
    assert body.endswith(b"\n\n")
    events = []
    for block in body.decode().split("\n\n")[:-1]:
        lines = [line.partition(": ") for line in block.split("\n") if not line.startswith(":")]
        said = {name: value for name, _, value in lines}
        if said:
            events.append((said.get("event", "message"), json.loads(said["data"])))
    return events


async def begin(client: Client, body: bytes = b"1", version: str = "1.1", headers: str = "") -> Any:
    """A connection on which a stream has been asked for."""
    reader, writer = await asyncio.open_connection(*client.address)
    writer.write(
        f"POST /test HTTP/{version}\r\nHost: x\r\nAccept: text/event-stream\r\nContent-Type: application/json\r\n"
        f"{headers}Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return reader, writer


# -- what is said ---------------------------------------------------------------------------------------


async def test_every_part_is_an_event_and_the_end_is_one() -> None:
    async with serving(Graph("test", count(Request()))) as client:
        answer = await client.post(json=3, headers={**ACCEPT, "X-Log-Id": "order-7"})
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
        assert (answer.headers["X-Data-Id"], answer.headers["X-Log-Id"]) == ("1", "order-7")
        assert answer.headers["Cache-Control"] == "no-store"
        *parts, (kind, done) = parse(answer.body)
        assert parts == [("message", 0), ("message", 1), ("message", 2)]
        assert (kind, done["data_id"], done["parts"]) == ("done", 1, 3)
        assert {"count.wait", "count.pre", "total"} <= set(done["times_ms"])
        assert done["times_ms"]["total"] > 0


async def test_a_part_arrives_before_the_next_is_made() -> None:
    made, graph = steps()
    async with serving(graph) as client:
        reader, writer = await begin(client)
        for part in ("one", "two"):
            made.go.put_nowait(part)
            assert (await reader.readuntil(b"\n\n\r\n")).endswith(f'data: "{part}"\n\n\r\n'.encode())
        made.go.put_nowait(None)
        assert b"event: done" in await reader.readuntil(b"\n\n\r\n")
        assert await reader.readexactly(5) == b"0\r\n\r\n"
        writer.close()


async def test_the_connection_is_kept_after_a_stream() -> None:
    async with serving(Graph("test", count(Request()))) as client:
        reader, writer = await begin(client, b"2")
        await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        writer.close()


@pytest.mark.parametrize(
    ("version", "headers"), [("1.0", ""), ("1.0", "Connection: keep-alive\r\n"), ("1.1", "Connection: close\r\n")]
)
async def test_the_end_of_the_connection_may_be_the_end_of_the_stream(version: str, headers: str) -> None:
    async with serving(Graph("test", count(Request()))) as client:
        reader, writer = await begin(client, b"2", version, headers)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert b"Connection: close" in head
        assert (b"chunked" in head) == (version == "1.1")
        if version == "1.0":
            assert [data for _, data in parse(body)][:2] == [0, 1]
        writer.close()


async def test_an_answer_without_parts_is_only_an_end() -> None:
    async with serving(Graph("test", count(Request()))) as client:
        answer = await client.post(json=0, headers=ACCEPT)
        assert [kind for kind, _ in parse(answer.body)] == ["done"]


async def test_a_graph_that_does_not_stream_says_one_part() -> None:
    async with serving(one_op(lambda value: {"got": value})) as client:
        answer = await client.post(json=5, headers=ACCEPT)
        assert parse(answer.body)[0] == ("message", {"got": 5})
        assert [kind for kind, _ in parse(answer.body)] == ["message", "done"]


async def test_a_reply_before_the_stream_is_one_part() -> None:
    @op(cpu="inline")
    def early(value: Any) -> Any:
        return Reply("cached")

    async with serving(Graph("test", count(early(Request())))) as client:
        assert parse((await client.post(json=5, headers=ACCEPT)).body)[0] == ("message", "cached")


async def test_without_the_header_the_answer_is_the_list_of_parts() -> None:
    async with serving(Graph("test", count(Request()))) as client:
        answer = await client.post(json=3)
        assert (answer.json, answer.headers["Content-Type"]) == ([0, 1, 2], "application/json")


async def test_parts_of_any_text_stay_one_event_each() -> None:
    async with serving(one_op(lambda value: value)) as client:
        text = "a\n\ndata: b\r\n\u2028"
        assert parse((await client.post(json=text, headers=ACCEPT)).body)[0] == ("message", text)


# -- failures -------------------------------------------------------------------------------------------


async def test_what_fails_before_the_first_part_is_a_plain_error() -> None:
    made, graph = steps()
    async with serving(graph) as client:
        made.go.put_nowait(ProductError(7, "no"))
        answer = await client.post(json=1, headers=ACCEPT)
        assert answer.error == (422, 7)
        assert "Server-Timing" in answer.headers


async def test_a_malformed_request_for_a_stream_is_a_plain_error() -> None:
    async with serving(Graph("test", count(Request()))) as client:
        answer = await client.post(data=b"{", headers={**ACCEPT, "Content-Type": "application/json"})
        assert answer.error == (400, "bad_request")


async def test_what_fails_later_is_an_error_event_after_the_parts() -> None:
    made, graph = steps()
    async with serving(graph) as client:
        for part in ("a", ValueError("broken at /usr/lib/secret/file")):
            made.go.put_nowait(part)
        answer = await client.post(json=1, headers=ACCEPT)
        assert answer.status == 200
        (_, part), (kind, error) = parse(answer.body)
        assert (part, kind, error["code"], error["request_id"]) == ("a", "error", "op_error", "1")
        assert error["message"] == "op 'steps' preprocess: ValueError: broken at <path>"


async def test_a_deadline_ends_the_stream_with_an_error_event() -> None:
    made, graph = steps()
    async with serving(graph) as client:
        made.go.put_nowait("a")
        answer = await client.post(json=1, headers={**ACCEPT, "X-Timeout-Ms": "50"})
        assert [kind for kind, _ in parse(answer.body)] == ["message", "error"]
        assert parse(answer.body)[1][1]["code"] == "deadline"
        assert made.closed.is_set()


async def test_a_part_that_json_cannot_carry_is_an_error() -> None:
    made, graph = steps()
    async with serving(graph) as client:
        made.go.put_nowait(object())
        assert (await client.post(json=1, headers=ACCEPT)).error == (500, "op_error")
        await made.closed.wait()
        for part in ("a", object()):
            made.go.put_nowait(part)
        assert parse((await client.post(json=1, headers=ACCEPT)).body)[1][1]["code"] == "op_error"


# -- clients that leave, or read slowly -----------------------------------------------------------------


@pytest.mark.parametrize("parts", [0, 2])
async def test_a_client_that_leaves_ends_the_stream(parts: int) -> None:
    made, graph = steps()
    async with serving(graph) as client:
        reader, writer = await begin(client)
        for _ in range(parts):
            made.go.put_nowait("a")
            await reader.readuntil(b"\n\n\r\n")
        await made.begun.wait()
        writer.close()
        await made.closed.wait()
        assert client.engine.admission.in_flight == 0


def slow_socket() -> socket.socket:
    """One whose kernel keeps little; still less would leave the speed to the timers of TCP."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
    made.setblocking(False)
    return made


async def flood(client: Client, sock: socket.socket, nbytes: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, client.address)
    body = str(nbytes).encode()
    await loop.sock_sendall(
        sock,
        b"POST /test HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
    )


async def test_a_reader_that_never_reads_holds_the_generator_and_is_hung_up_on() -> None:
    made = Flood(Request())
    async with serving(Graph("test", made), stall_timeout_s=0.2) as client:
        with slow_socket() as sock:
            await flood(client, sock, 100_000)
            await made.closed.wait()
        assert made.made < 20
        assert client.engine.admission.in_flight == 0


async def test_a_slow_reader_gets_all_of_it() -> None:
    @op()
    async def some(n: int) -> AsyncIterator[str]:
        for _ in range(n):
            yield "x" * 100_000

    loop = asyncio.get_running_loop()
    async with serving(Graph("test", some(Request()))) as client:
        with slow_socket() as sock:
            await flood(client, sock, 60)
            got = bytearray()
            while not got.endswith(b"0\r\n\r\n"):
                got += await loop.sock_recv(sock, 16384)
                await asyncio.sleep(0)
        assert got.count(b"x" * 100) == 60 * 1000
        assert b'"parts":60' in got


async def test_a_slow_reader_is_kept_while_it_reads_enough() -> None:
    made = Flood(Request())
    loop = asyncio.get_running_loop()
    async with serving(Graph("test", made), stall_timeout_s=0.1) as client:
        with slow_socket() as sock:
            await flood(client, sock, 4_000_000)
            until = loop.time() + 0.5
            while loop.time() < until:
                assert await loop.sock_recv(sock, 65536)
                await asyncio.sleep(0.002)
            assert not made.closed.is_set()
        await made.closed.wait()


async def test_a_pause_has_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "HEARTBEAT_S", 0.01)
    made, graph = steps()
    async with serving(graph) as client:
        reader, writer = await begin(client)
        made.go.put_nowait("a")
        await reader.readuntil(b'data: "a"\n\n\r\n')
        for _ in range(2):
            assert await reader.readexactly(19) == b"e\r\n: still here\n\n\r\n"
        made.go.put_nowait(None)
        assert b"event: done" in await reader.readuntil(b"0\r\n\r\n")
        writer.close()


async def test_a_stop_lets_the_stream_end_and_closes_the_connection() -> None:
    made, graph = steps()
    async with serving(graph) as client:
        reader, writer = await begin(client)
        made.go.put_nowait("a")
        await reader.readuntil(b'data: "a"')
        client.transport.close()
        made.go.put_nowait(None)
        rest = await reader.read()
        assert rest.endswith(b"0\r\n\r\n") and b"event: done" in rest
        writer.close()


# -- pages ----------------------------------------------------------------------------------------------


async def test_the_pages_say_that_a_graph_streams() -> None:
    async with serving(Graph("test", count(Request()))) as client:
        index = (await client.get("/")).body.decode()
        assert "part by part with Accept: text/event-stream" in index
        content = (await client.get("/openapi.json")).json["paths"]["/test"]["post"]["responses"]["200"]["content"]
        assert "event: done" in content["text/event-stream"]["schema"]["description"]
        assert content["application/json"]["schema"]["type"] == "array"


async def test_the_time_to_the_first_part_is_in_the_metrics_of_a_graph_that_streams() -> None:
    async with serving(Graph("test", count(Request()))) as client:
        for n in (0, 1, 2):  # the first has none
            await client.post(json=n, headers=ACCEPT)
        assert "asyncline_first_part_seconds_count 2.0" in (await client.get("/metrics")).body.decode()
    async with serving(one_op(lambda value: value)) as client:
        assert "first_part" not in (await client.get("/metrics")).body.decode()
