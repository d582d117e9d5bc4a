"""gRPC on a real socket, in this process: what clients may say, and what they get for the rest."""

from __future__ import annotations

import asyncio
import gzip
import re
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest
from h2.events import ConnectionTerminated, ResponseReceived, StreamReset

from asyncline import (
    BadImage,
    BadRequest,
    DeadlineExceeded,
    FetchFailed,
    Graph,
    Op,
    Overloaded,
    ProductError,
    Request,
    Unavailable,
    context,
    op,
)
from asyncline.transports.grpc.limits import CallLimits
from tests.transports.grpc_door import BIG, CHAT, HOLD, RAISE, RUN, Door, framed, serving

grpc = pytest.importorskip("grpc", reason="pip install grpcio")

MB = 10**6


@op(cpu="inline")
def echo(value: bytes) -> bytes:
    return value


def echoes() -> Graph:
    return Graph("test", echo(Request()))


class Gate(Op):
    """Holds requests until a test opens it."""

    concurrency = 1000

    def init_op(self) -> None:
        self.open = asyncio.Event()
        self.entered = asyncio.Semaphore(0)
        self.left = asyncio.Semaphore(0)

    async def preprocess(self, value: bytes) -> bytes:
        self.entered.release()
        try:
            await self.open.wait()
        finally:
            self.left.release()
        return value


def failing(error: Exception) -> Graph:
    @op(cpu="inline")
    def fail(value: bytes) -> bytes:
        raise error

    return Graph("test", fail(Request()))


async def failed(call: Any) -> Any:
    """The error that a call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return caught.value


def trailers(error: Any) -> dict[str, str]:
    return dict(error.trailing_metadata())


# -- answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [0, 1, 16_379, 16_380, 70_000, 5 * MB, 15 * MB])
async def test_messages_of_all_sizes_come_back(nbytes: int) -> None:
    async with serving(echoes()) as door, door.channel() as channel:
        message = bytes(range(256)) * (nbytes // 256) + bytes(nbytes % 256)
        assert await channel.unary_unary(RUN)(message, timeout=20) == message


async def test_the_trailers_say_ids_and_where_the_time_went() -> None:
    async with serving(echoes()) as door, door.channel() as channel:
        call = channel.unary_unary(RUN)(b"", metadata=[("x-log-id", "mine")])
        await call
        said = dict(await call.trailing_metadata())
        assert (said["x-data-id"], said["x-log-id"]) == ("1", "mine")
        assert said["server-timing"].startswith("echo.wait;dur=") and "total;dur=" in said["server-timing"]


async def test_a_call_that_asks_for_its_trace_is_told_where_it_is() -> None:
    async with serving(echoes()) as door, door.channel() as channel:
        call = channel.unary_unary(RUN)(b"", metadata=[("x-trace", "1")])
        await call
        assert dict(await call.trailing_metadata())["x-trace"] == "/admin/timeline?data_id=1"
        call = channel.unary_unary(RUN)(b"")
        await call
        assert "x-trace" not in dict(await call.trailing_metadata())


async def test_an_op_sees_log_id_traceparent_priority_and_the_time_that_is_left() -> None:
    @op(cpu="inline")
    def look(value: bytes) -> bytes:
        at = context()
        return f"{at.log_id} {1 < at.remaining_s <= 3}".encode()

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serving(Graph("test", look(Request())), priorities=4) as door, door.channel() as channel:
        metadata = [("x-log-id", "mine"), ("traceparent", trace), ("x-priority", "3")]
        assert await channel.unary_unary(RUN)(b"", metadata=metadata, timeout=3) == b"mine True"


async def test_many_calls_on_one_connection_get_their_own_answers() -> None:
    async with serving(echoes()) as door, door.channel() as channel:
        run = channel.unary_unary(RUN)
        sent = [str(n).encode() * (n % 50) for n in range(1000)]
        assert await asyncio.gather(*map(run, sent)) == sent
        assert len(door.transport.connections) == 1


async def test_calls_are_answered_as_they_are_done() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate)) as door, door.channel() as channel:
        first = asyncio.ensure_future(channel.unary_unary(RUN)(b"1"))
        await gate.entered.acquire()
        assert await channel.stream_stream(CHAT)(iter([b"2"])).read() == b"2"
        assert not first.done()
        gate.open.set()
        assert await first == b"1"


@pytest.mark.parametrize("encoding", ["Gzip", "Deflate"])
@pytest.mark.parametrize("nbytes", [0, 200, 5 * MB])
async def test_compressed_messages_are_read_and_answered_likewise(encoding: str, nbytes: int) -> None:
    async with serving(echoes()) as door, door.channel() as channel:
        call = channel.unary_unary(RUN)(bytes(nbytes), compression=grpc.Compression[encoding])
        assert await call == bytes(nbytes)
        chat = channel.stream_stream(CHAT)(iter([bytes(nbytes)] * 2), compression=grpc.Compression[encoding])
        assert [len(message) async for message in chat] == [nbytes] * 2


async def test_an_answer_is_compressed_for_who_compresses_only() -> None:
    async with serving(echoes()) as door:
        raw = await door.raw()
        plain = raw.call(RUN, bytes(5000), grpc_accept_encoding="gzip")
        data, _ = await raw.answer(plain)
        assert data == framed(bytes(5000))
        stream = raw.call(RUN, None, grpc_encoding="gzip", grpc_accept_encoding="identity, gzip")
        raw.h2.send_data(stream, framed(gzip.compress(bytes(5000)), 1), end_stream=True)
        raw.flush()
        response = await raw.until(ResponseReceived, stream=stream)
        data, _ = await raw.answer(stream)
        assert dict(response.headers)["grpc-encoding"] == "gzip"
        assert data[0] == 1 and gzip.decompress(data[5:]) == bytes(5000)


async def test_a_chat_goes_both_ways_and_back_pressure_bounds_it() -> None:
    async with serving(echoes()) as door:
        raw = await door.raw()
        stream = raw.call(CHAT, None)
        sent = 0
        # The client takes none of the answers: the server stops to read, its windows say so.
        async with asyncio.timeout(20):
            while raw.h2.local_flow_control_window(stream) >= 10_005 and sent < 10 * MB:
                raw.h2.send_data(stream, framed(bytes(10_000)))
                raw.flush()
                sent += 10_000
                try:
                    async with asyncio.timeout(0.2 if raw.h2.local_flow_control_window(stream) < 10_005 else 0):
                        raw.events += raw.h2.receive_data(await raw.reader.read(2**16))
                except TimeoutError:
                    pass
        assert sent < 3 * MB


# -- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BadRequest("b"), "INVALID_ARGUMENT", "bad_request"),
        (BadImage("b"), "INVALID_ARGUMENT", "bad_image"),
        (FetchFailed("b"), "FAILED_PRECONDITION", "fetch_failed"),
        (ProductError(1234, "no money"), "FAILED_PRECONDITION", "1234"),
        (DeadlineExceeded("b"), "DEADLINE_EXCEEDED", "deadline"),
        (Unavailable("b"), "UNAVAILABLE", "unavailable"),
        (ValueError("b"), "INTERNAL", "op_error"),
    ],
)
async def test_an_outcome_has_its_status(error: Exception, status: str, code: str) -> None:
    async with serving(failing(error)) as door, door.channel() as channel:
        caught = await failed(channel.unary_unary(RUN)(b""))
        assert (caught.code().name, trailers(caught)["x-code"]) == (status, code)


async def test_a_message_says_where_and_survives_any_characters() -> None:
    async with serving(failing(BadRequest("für 100% ✓\nline"))) as door, door.channel() as channel:
        caught = await failed(channel.unary_unary(RUN)(b""))
        assert caught.details() == "op 'fail' preprocess: für 100% ✓ line"


async def test_a_defect_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(echoes()) as door, door.channel() as channel:
        caught = await failed(channel.unary_unary(RAISE)(b"x"))
        assert (caught.code().name, caught.details()) == ("INTERNAL", "the server failed; its log says how")
        assert "secret" in caplog.text


async def test_who_is_refused_at_the_door_hears_when_to_try_again() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate), max_in_flight=1) as door, door.channel() as channel:
        first = asyncio.ensure_future(channel.unary_unary(RUN)(b"1"))
        await gate.entered.acquire()
        caught = await failed(channel.unary_unary(RUN)(b"2"))
        assert (caught.code().name, trailers(caught)["x-code"]) == ("RESOURCE_EXHAUSTED", Overloaded.code)
        assert int(trailers(caught)["grpc-retry-pushback-ms"]) >= 1000
        gate.open.set()
        assert await first == b"1"


async def test_a_method_that_is_not_there_is_unimplemented() -> None:
    async with serving(echoes()) as door, door.channel() as channel:
        caught = await failed(channel.unary_unary("/test.Test/No")(b""))
        assert (caught.code().name, caught.details()) == ("UNIMPLEMENTED", "there is no method test.Test.No")


async def test_an_encoding_that_is_not_known_is_unimplemented_and_says_which_are() -> None:
    async with serving(echoes()) as door:
        raw = await door.raw()
        stream = raw.call(RUN, grpc_encoding="snappy")
        said = dict((await raw.until(ResponseReceived, stream=stream)).headers)
        assert said["grpc-status"] == "12" and said["grpc-accept-encoding"] == "identity,gzip,deflate"


@pytest.mark.parametrize("text", ["", "5", "S", "-1S", "123456789S", "1s", "1.5S", "9" * 5000 + "S"])
async def test_a_malformed_timeout_is_invalid(text: str) -> None:
    async with serving(echoes()) as door:
        raw = await door.raw()
        said = dict((await raw.until(ResponseReceived, stream=raw.call(RUN, grpc_timeout=text))).headers)
        assert said["grpc-status"] == "3" and said["grpc-message"].startswith("grpc-timeout: expected")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({":method": "GET"}, "405"),
        ({"content_type": "application/json"}, "415"),
        ({"content_type": "application/grpc-web"}, "415"),
    ],
)
async def test_http2_that_is_no_grpc_is_answered_as_http(headers: dict[str, str], status: str) -> None:
    async with serving(echoes()) as door:
        raw = await door.raw()
        said = dict((await raw.until(ResponseReceived, stream=raw.call(RUN, **headers))).headers)
        assert said[":status"] == status
        assert (await raw.answer(raw.call(RUN, b"x")))[0] == framed(b"x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected one message, got 0"),
        (framed(b"a") * 2, "expected one message, got 2"),
        (framed(b"a")[:-1], "the call ended within a message"),
        (b"\0\0", "the call ended within a message"),
        (framed(b"a", 2), "what was sent is no gRPC message"),
        (framed(b"a", 1), "a message is marked as compressed, but no grpc-encoding says how"),
    ],
)
async def test_a_call_without_its_one_message_is_invalid(data: bytes, message: str) -> None:
    async with serving(echoes()) as door:
        raw = await door.raw()
        stream = raw.call(RUN, None)
        raw.h2.send_data(stream, data, end_stream=True)
        raw.flush()
        said = dict((await raw.until(ResponseReceived, stream=stream)).headers)
        assert (said["grpc-status"], said["grpc-message"]) == ("3", message)
        assert (await raw.answer(raw.call(RUN, b"x")))[0] == framed(b"x")


# -- the token ------------------------------------------------------------------------------------------


async def test_a_token_is_wanted_but_for_health() -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with serving(echoes(), auth_token="sesame") as door, door.channel() as channel:
        run = channel.unary_unary(RUN)
        for metadata in ([], [("authorization", "Bearer wrong")], [("authorization", "sesame")]):
            assert (await failed(run(b"", metadata=metadata))).code().name == "UNAUTHENTICATED"
        assert await run(b"x", metadata=[("authorization", "bearer sesame")]) == b"x"
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1


# -- deadlines and cancels ------------------------------------------------------------------------------


async def test_a_deadline_ends_the_request() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate)) as door:
        raw = await door.raw()
        stream = raw.call(RUN, grpc_timeout="50m")
        said = dict((await raw.until(ResponseReceived, stream=stream)).headers)
        # Counted from the headers: what is left when the message is there, too, is a little less.
        assert said["grpc-status"] == "4"
        assert re.fullmatch(r"the deadline of (50|[1-4]?\d) ms passed in op 'gate'", said["grpc-message"])
        await gate.left.acquire()


async def test_a_deadline_that_has_passed_runs_nothing() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate)) as door:
        raw = await door.raw()
        said = dict((await raw.until(ResponseReceived, stream=raw.call(RUN, grpc_timeout="0n"))).headers)
        assert said["grpc-status"] == "4" and gate.entered.locked()


async def test_a_deadline_ends_a_stream() -> None:
    async with serving(echoes()) as door, door.channel() as channel:
        caught = await failed(channel.stream_stream(HOLD)(timeout=0.05).read())
        assert caught.code().name == "DEADLINE_EXCEEDED"
        await door.service.left.wait()


async def test_who_cancels_cancels_the_item() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate)) as door, door.channel() as channel:
        call = channel.unary_unary(RUN)(b"")
        await gate.entered.acquire()
        call.cancel()
        await gate.left.acquire()
        chat = channel.stream_stream(HOLD)()
        await chat.write(b"")
        chat.cancel()
        await door.service.left.wait()


async def test_who_hangs_up_cancels_the_item() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate)) as door:
        raw = await door.raw()
        raw.call(RUN)
        await gate.entered.acquire()
        raw.writer.transport.abort()
        await gate.left.acquire()
        await door.until_empty()


# -- limits ---------------------------------------------------------------------------------------------


async def test_a_message_over_the_limit_is_refused_before_it_is_here() -> None:
    async with serving(echoes(), max_body_mb=1) as door:
        raw = await door.raw()
        stream = raw.call(RUN, None)
        raw.h2.send_data(stream, b"\0\xff\xff\xff\xff" + bytes(100))
        raw.flush()
        said = dict((await raw.until(ResponseReceived, stream=stream)).headers)
        assert said["grpc-status"] == "8" and said["x-code"] == "too_large"
        assert said["grpc-message"] == "a message of 4294967295 bytes is over the limit of 1000000"
        assert (await raw.answer(raw.call(RUN, b"x")))[0] == framed(b"x")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_bomb_is_refused_at_the_limit(encoding: str) -> None:
    deflate = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    bomb = deflate.compress(bytes(30 * MB)) + deflate.flush()
    assert len(bomb) < 50_000
    async with serving(echoes(), max_body_mb=1) as door:
        for path in (RUN, CHAT):
            raw = await door.raw()
            stream = raw.call(path, None, grpc_encoding=encoding)
            for place in range(0, len(data := framed(bomb, 1)), 16_000):
                raw.h2.send_data(stream, data[place : place + 16_000])
            raw.h2.end_stream(stream)
            raw.flush()
            said = dict((await raw.until(ResponseReceived, stream=stream)).headers)
            assert (said["grpc-status"], said["x-code"]) == ("8", "too_large")
            assert said["grpc-message"] == "a message is over the limit of 1000000 bytes once it is inflated"
            await door.until_empty()


async def test_what_a_compressed_message_may_become_is_in_flight_and_then_what_it_is() -> None:
    look = op(cpu="inline")(lambda value: b"%d" % door.engine.admission.nbytes)
    async with serving(Graph("test", look(Request()))) as door, door.channel() as channel:
        for nbytes in (10_000, 10**6):
            call = channel.unary_unary(RUN)(bytes(nbytes), compression=grpc.Compression.Gzip)
            assert int(await call) == nbytes
        raw = await door.raw()
        whole = framed(gzip.compress(bytes(10_000)), 1)
        stream = raw.call(RUN, None, grpc_encoding="gzip")
        raw.h2.send_data(stream, whole[:10])
        raw.flush()
        async with asyncio.timeout(20):
            while door.engine.admission.nbytes != 1033 * (len(whole) - 5):  # noqa: ASYNC110  # as in `until_empty`
                await asyncio.sleep(0)
        raw.h2.send_data(stream, whole[10:], end_stream=True)
        raw.flush()
        assert (await raw.answer(stream))[0] == framed(b"10000")


async def test_a_compressed_message_that_is_none_is_invalid() -> None:
    async with serving(echoes()) as door:
        raw = await door.raw()
        whole = gzip.compress(b"hello")
        for data in (b"nonsense", whole[:-3], whole + whole, b""):
            stream = raw.call(RUN, None, grpc_encoding="gzip")
            raw.h2.send_data(stream, framed(data, 1), end_stream=True)
            raw.flush()
            assert dict((await raw.until(ResponseReceived, stream=stream)).headers)["grpc-status"] == "3"


async def test_bytes_in_flight_are_counted_before_they_are_here_and_given_back() -> None:
    async with serving(echoes()) as door:
        raw = await door.raw()
        stream = raw.call(RUN, None)
        raw.h2.send_data(stream, b"\0" + (5 * MB).to_bytes(4, "big") + bytes(1000))
        raw.flush()
        async with asyncio.timeout(20):
            while door.engine.admission.nbytes != 5 * MB:  # noqa: ASYNC110  # as in `until_empty`
                await asyncio.sleep(0)
        raw.h2.reset_stream(stream)
        raw.flush()
        await door.until_empty()


async def test_calls_over_the_limit_are_refused_so_that_a_client_may_try_again() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate), CallLimits(max_streams=2)) as door:
        raw = await door.raw()
        streams = [raw.call(RUN) for _ in range(3)]
        reset = await raw.until(StreamReset)
        assert (reset.stream_id, reset.error_code) == (streams[2], 7)
        gate.open.set()
        for stream in streams[:2]:
            assert (await raw.answer(stream))[1]["grpc-status"] == "0"


async def test_grpcio_waits_where_a_server_takes_fewer_calls() -> None:
    async with serving(echoes(), CallLimits(max_streams=2)) as door, door.channel() as channel:
        run = channel.unary_unary(RUN)
        assert await asyncio.gather(*(run(bytes(n)) for n in range(50))) == [bytes(n) for n in range(50)]


async def goodbye(raw: Any) -> Any:
    """The GOAWAY of a server that then hangs up."""
    async with asyncio.timeout(20):
        said = await raw.until(ConnectionTerminated)
        with pytest.raises(EOFError):
            await raw.until(type(None))
        return said


async def canary(door: Door) -> None:
    async with door.channel() as channel:
        assert await channel.unary_unary(RUN)(b"x") == b"x"


@pytest.mark.parametrize(
    "frame",
    [
        b"\0\0\x08\x06\0\0\0\0\0" + bytes(8),  # PING
        b"\0\0\0\x04\0\0\0\0\0",  # SETTINGS
        b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\0",  # PRIORITY
        b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01",  # WINDOW_UPDATE
        b"\0\0\0\x77\0\0\0\0\0",  # nobody knows
    ],
)
async def test_a_flood_of_frames_that_are_part_of_no_call_is_hung_up_on(frame: bytes) -> None:
    async with serving(echoes()) as door:
        raw = await door.raw()
        raw.send(frame * 3000)
        assert (await goodbye(raw)).error_code == 11
        await canary(door)


async def test_a_storm_of_resets_is_hung_up_on_and_all_requests_are_cancelled() -> None:
    gate = Gate(Request())
    # However long a thousand take here.
    async with serving(Graph("test", gate), CallLimits(resets_per_s=0)) as door:
        raw = await door.raw()
        for _ in range(1000):
            stream = raw.call(RUN)
            raw.h2.reset_stream(stream)
        raw.flush()
        assert (await goodbye(raw)).error_code == 11
        await door.until_empty()
        gate.open.set()
        await canary(door)


async def test_a_reset_in_one_packet_with_its_request_is_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(echoes()) as door:
        raw = await door.raw()
        said, send = [], raw.send
        raw.send = said.append  # type: ignore[method-assign]  # so that all of it is one write
        raw.h2.reset_stream(raw.call(RUN))
        stream = raw.call(RUN, b"x")
        raw.send = send  # type: ignore[method-assign]
        raw.send(b"".join(said))
        assert (await raw.answer(stream))[1]["grpc-status"] == "0"
        assert not caplog.records


async def test_pings_between_calls_are_in_order() -> None:
    async with serving(echoes()) as door:
        raw = await door.raw()
        for n in range(1000):
            raw.h2.ping(n.to_bytes(8, "big"))
            assert (await raw.answer(raw.call(RUN)))[1]["grpc-status"] == "0"


async def test_a_frame_over_the_limit_is_refused_before_it_is_here() -> None:
    async with serving(echoes()) as door:
        raw = await door.raw()
        raw.send(b"\xff\xff\xff\0\0\0\0\0\x01" + bytes(100))
        assert (await goodbye(raw)).additional_data == b"a frame of 16777215 bytes"


async def test_headers_over_the_limit_end_the_connection() -> None:
    async with serving(echoes()) as door:
        raw = await door.raw()
        raw.call(RUN, x="y" * 17_000)
        assert (await goodbye(raw)).error_code == 11
        await canary(door)


async def test_continuation_without_end_is_hung_up_on() -> None:
    async with serving(echoes()) as door:
        raw = await door.raw()
        raw.send(b"\0\0\x01\x01\0\0\0\0\x01\x82" + b"\0\0\x01\x09\0\0\0\0\x01\x84" * 100)
        await goodbye(raw)
        await canary(door)


async def test_nonsense_behind_the_preface_is_hung_up_on() -> None:
    async with serving(echoes()) as door:
        for nonsense in (b"\0\0\x05\0\0\0\0\0\0hello", b"\0\0\x08\x06\0\0\0\0\x01" + bytes(8), bytes(9)):
            raw = await door.raw()
            raw.send(nonsense)
            await goodbye(raw)
        await canary(door)


async def test_http1_is_told_that_this_is_grpc() -> None:
    async with serving(echoes()) as door:
        raw = await door.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await raw.rest()).startswith(b"HTTP/1.1 505 HTTP Version Not Supported\r\n")


async def test_nothing_is_said_before_the_preface_and_half_of_one_ends_in_time() -> None:
    async with serving(echoes(), guard={"header_s": 0.05}) as door:
        for hello in (b"", b"PRI * HTTP/2.0\r\n"):
            raw = await door.raw(hello)
            with pytest.raises((ConnectionError, AssertionError)):
                assert await raw.rest() is None
        await canary(door)


async def test_a_preface_in_pieces_is_read() -> None:
    async with serving(echoes()) as door:
        raw = await door.raw(b"")
        for byte in raw.hello:
            raw.send(bytes((byte,)))
            await raw.writer.drain()
            await asyncio.sleep(0)
        assert (await raw.answer(raw.call(RUN, b"x")))[0] == framed(b"x")


async def test_a_message_in_tiny_pieces_is_put_together_and_others_are_served_meanwhile() -> None:
    async with serving(echoes()) as door:
        raw = await door.raw()
        stream = raw.call(RUN, None)
        for byte in framed(bytes(range(256)) * 20):
            raw.h2.send_data(stream, bytes((byte,)))
        raw.h2.end_stream(stream)
        raw.flush()
        await canary(door)
        assert (await raw.answer(stream))[0] == framed(bytes(range(256)) * 20)


async def test_a_message_that_does_not_come_is_ended_and_the_connection_goes_on() -> None:
    async with serving(echoes(), guard={"body_s": 0.05}) as door:
        raw = await door.raw()
        stream = raw.call(RUN, None)
        raw.h2.send_data(stream, b"\0\0\0")
        raw.flush()
        said = dict((await raw.until(ResponseReceived, stream=stream)).headers)
        assert said["x-code"] == "slow_client" and said["grpc-status"] == "1"
        assert (await raw.answer(raw.call(RUN, b"x")))[0] == framed(b"x")


async def test_an_answer_that_is_not_taken_is_in_flight_and_its_call_ends_in_time() -> None:
    async with serving(echoes(), guard={"stall_s": 0.2}) as door:
        raw = await door.raw(initial_window_size=10)
        stream = raw.call(RUN, bytes(10_000))
        await raw.until(ResponseReceived, stream=stream)
        assert door.engine.admission.nbytes > 9_000
        reset = await raw.until(StreamReset, stream=stream)
        assert reset.error_code == 8
        await door.until_empty()


async def test_answers_go_on_when_windows_open() -> None:
    async with serving(echoes()) as door:
        raw = await door.raw(initial_window_size=10)
        stream = raw.call(RUN, bytes(10_000))
        await raw.until(ResponseReceived, stream=stream)
        raw.h2.increment_flow_control_window(20_000, stream)
        raw.flush()
        data, said = await raw.answer(stream)
        assert (data, said["grpc-status"]) == (framed(bytes(10_000)), "0")


async def test_who_never_reads_is_hung_up_on() -> None:
    big = Graph("test", op(cpu="inline")(lambda value: bytes(10 * MB))(Request()))
    async with serving(big, guard={"stall_s": 0.2}) as door:
        raw = await door.raw(initial_window_size=2**31 - 1)
        raw.h2.increment_flow_control_window(2**30)
        for _ in range(3):
            raw.call(RUN)
        await connections(door, 1)
        (connection,) = door.transport.connections
        async with asyncio.timeout(20):
            while "paused" not in repr(connection):  # noqa: ASYNC110  # as in `until_empty`
                await asyncio.sleep(0)
        assert door.engine.admission.nbytes > 10 * MB
        await connections(door, 0)
        await door.until_empty()


async def connections(door: Door, count: int) -> frozenset[Any]:
    """Those of the server, once there are so many."""
    async with asyncio.timeout(20):
        while len(door.transport.connections) != count:  # noqa: ASYNC110  # as in `until_empty`
            await asyncio.sleep(0)
    return door.transport.connections


async def test_an_idle_connection_is_asked_to_leave() -> None:
    async with serving(echoes(), guard={"keepalive_s": 0.1}) as door, door.channel() as channel:
        raw = await door.raw()
        assert (await goodbye(raw)).error_code == 0
        for _ in range(3):  # grpcio connects again, and nobody notices
            assert await channel.unary_unary(RUN)(b"x") == b"x"
            await connections(door, 0)


async def test_a_client_that_waits_and_is_not_there_is_hung_up_on() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate), CallLimits(ping_s=0.05, pong_s=0.5)) as door:
        there, gone = await door.raw(), await door.raw()
        stream = there.call(RUN, b"x")
        gone.call(RUN)
        answering = asyncio.ensure_future(there.answer(stream))  # and to pings
        await gate.left.acquire()
        gate.open.set()
        assert (await answering)[0] == framed(b"x")


# -- the end --------------------------------------------------------------------------------------------


async def test_a_stop_says_goaway_finishes_what_is_in_flight_and_ends() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate)) as door:
        raw = await door.raw()
        stream = raw.call(RUN, b"x")
        await gate.entered.acquire()
        door.transport.close()
        said = await raw.until(ConnectionTerminated)
        assert (said.error_code, said.last_stream_id) == (0, stream)
        gate.open.set()
        # h2 does not read on behind a GOAWAY, so this is looked at as it is.
        assert framed(b"x") in await raw.rest()
        await connections(door, 0)


async def test_streams_without_an_end_end_with_the_server() -> None:
    async with serving(echoes()) as door, door.channel() as channel:
        chat = channel.stream_stream(HOLD)()
        reading = asyncio.ensure_future(chat.read())
        await connections(door, 1)
        (connection,) = door.transport.connections
        async with asyncio.timeout(20):
            while not connection.calls:  # noqa: ASYNC110  # as in `until_empty`
                await asyncio.sleep(0)
        door.transport.close()
        await door.transport.wait_closed()
        assert (await failed(reading)).code().name == "UNAVAILABLE"


async def test_grpcio_goes_on_with_the_next_server_and_no_call_is_lost() -> None:
    async with serving(echoes()) as first:
        port = int(first.place.partition(":")[2])
        async with first.channel() as channel:
            run = channel.unary_unary(RUN)
            assert await run(b"1") == b"1"
            first.transport.close()
            async with serving(echoes(), grpc_port=port):
                answers = await asyncio.gather(*(run(bytes(n), wait_for_ready=True) for n in range(50)))
                assert answers == [bytes(n) for n in range(50)]


# -- TLS ------------------------------------------------------------------------------------------------


async def test_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -days 2 -subj /CN=localhost "
        "-addext subjectAltName=IP:127.0.0.1"
    )
    await asyncio.to_thread(subprocess.run, command.split(), check=True, capture_output=True)
    async with serving(echoes(), tls_cert=str(cert), tls_key=str(key)) as door:
        assert door.transport.address.startswith("grpcs://")
        credentials = grpc.ssl_channel_credentials(await asyncio.to_thread(cert.read_bytes))
        async with grpc.aio.secure_channel(door.place, credentials, options=BIG) as channel:
            assert await channel.unary_unary(RUN)(bytes(5 * MB)) == bytes(5 * MB)
