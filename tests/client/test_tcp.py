"""The TCP client against a server in this process that does what it is told, mostly what it should not."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from asyncline import BadRequest, DeadlineExceeded, OpError, Overloaded, RequestError, Unavailable
from asyncline.client.base import Malformed, Refused
from asyncline.client.tcp import TcpConnection
from asyncline.errors import TooLarge, Unauthenticated
from asyncline.wire.frame import messages
from asyncline.wire.frame.decoder import CALL, CANCEL, HELLO, PREFIX, RESULT, Decoder, Frame
from asyncline.wire.frame.messages import ServerHello
from asyncline.wire.frame.values import Encoder

SERVER = ServerHello("test", 10**6, 4)


class FakeServer(asyncio.Protocol):
    """Says HELLO, and what a test makes it say; keeps what it was told."""

    def __init__(self, hello: ServerHello | None, servers: asyncio.Queue[FakeServer]) -> None:
        self._hello = hello
        self._servers = servers
        self._decoder = Decoder()
        self._heard: asyncio.Queue[Frame | None] = asyncio.Queue()
        self.socket: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.socket = transport
        self._servers.put_nowait(self)
        if self._hello is not None:
            self.say(messages.encode_hello(self._hello))

    def data_received(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            self._heard.put_nowait(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._heard.put_nowait(None)

    def say(self, *parts: Any) -> None:
        for part in parts:
            self.socket.write(part if isinstance(part, bytes) else b"".join(part))

    def answer(self, stream: int, value: Any) -> None:
        self.say(messages.encode_result(Encoder(copy=True), stream, 1, value)[0])

    async def heard(self, kind: int) -> tuple[int, Any]:
        """The stream, and of a CALL the value, of the next frame, which has to be of that kind."""
        frame = await self._heard.get()
        assert frame is not None and frame[0] == kind
        _, stream, header, body = frame
        return stream, messages.decode_call(header, body, 10**6)[2] if kind == CALL else None

    def hears_nothing(self) -> bool:
        return self._heard.empty()

    async def until_left(self) -> None:
        while await self._heard.get() is not None:
            pass


@asynccontextmanager
async def talking(hello: ServerHello | None = SERVER, **kwargs: Any) -> AsyncIterator[tuple[TcpConnection, FakeServer]]:
    async with listening(hello) as (port, servers):
        async with await TcpConnection.open("127.0.0.1", port, **kwargs) as connection:
            server = await servers.get()
            assert (await server.heard(HELLO))[0] == messages.VERSION
            yield connection, server


@asynccontextmanager
async def listening(hello: ServerHello | None) -> AsyncIterator[tuple[int, asyncio.Queue[FakeServer]]]:
    servers: asyncio.Queue[FakeServer] = asyncio.Queue()
    made: list[FakeServer] = []

    def make() -> FakeServer:
        made.append(FakeServer(hello, servers))
        return made[-1]

    listener = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1], servers
    finally:
        listener.close()
        for server in made:
            server.socket.abort()
        await listener.wait_closed()
        await asyncio.sleep(0)


def start(connection: TcpConnection, value: Any, **kwargs: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(connection.call("test", value, **kwargs))


# -- calls ----------------------------------------------------------------------------------------------


async def test_calls_go_at_once_and_answers_find_theirs_in_any_order() -> None:
    async with talking() as (connection, server):
        calls = [start(connection, n) for n in range(3)]
        heard = [await server.heard(CALL) for _ in calls]
        assert [value for _, value in heard] == [0, 1, 2] and connection.in_flight == 3
        for stream, value in reversed(heard):
            server.answer(stream, value * 10)
        assert await asyncio.gather(*calls) == [0, 10, 20]
        assert connection.in_flight == 0


async def test_an_array_is_received_where_it_stays() -> None:
    async with talking() as (connection, server):
        call = start(connection, np.arange(100_000))
        stream, array = await server.heard(CALL)
        server.answer(stream, array)
        found = await call
        assert not found.flags.writeable and found.ctypes.data % 64 == 0 and (found == np.arange(100_000)).all()


async def test_calls_beyond_what_the_server_takes_wait_for_their_turn() -> None:
    async with talking() as (connection, server):
        calls = [start(connection, n) for n in range(6)]
        first = [await server.heard(CALL) for _ in range(4)]
        calls[4].cancel()  # it waits, and is never sent
        for stream, value in first[:2]:
            server.answer(stream, value)
        assert (await server.heard(CALL))[1] == 5
        assert connection.in_flight == 3 and server.hears_nothing()
        for call in calls:
            call.cancel()


async def test_calls_wait_while_the_server_does_not_read() -> None:
    async with talking(ServerHello("test", 10**8, 100)) as (connection, server):
        server.socket.pause_reading()
        array = np.zeros(10**6, np.uint8)
        calls = [start(connection, array) for _ in range(30)]
        while not connection._is_paused:  # noqa: ASYNC110  # nothing tells that the kernel's buffers are full
            await asyncio.sleep(0)
        late = start(connection, "late")
        await asyncio.sleep(0)
        server.socket.resume_reading()
        for _ in calls:
            stream, value = await server.heard(CALL)
            assert value.size == 10**6
            server.answer(stream, None)
        stream, value = await server.heard(CALL)
        server.answer(stream, value)
        assert await late == "late"
        await asyncio.gather(*calls)


async def test_what_cannot_be_sent_fails_before_it_is() -> None:
    async with talking() as (connection, server):
        with pytest.raises(BadRequest, match="the request cannot be written as msgpack: a object has no msgpack form"):
            await connection.call("test", object())
        with pytest.raises(TooLarge, match="a body of 1000001 bytes is over the server's limit of 1000000"):
            await connection.call("test", np.zeros(1_000_001, np.uint8))
        with pytest.raises(ValueError, match="a timeout of 0 s: expected more than 0"):
            await connection.call("test", 1, timeout=0)
        assert server.hears_nothing() and connection.in_flight == 0


@pytest.mark.parametrize(
    "error", [Overloaded("busy", 7), OpError("op 'x' preprocess: no"), BadRequest("field 'x' is missing")]
)
async def test_an_error_of_the_server_is_raised(error: RequestError) -> None:
    async with talking() as (connection, server):
        call = start(connection, 1)
        stream, _ = await server.heard(CALL)
        server.say(messages.encode_error(stream, error, 17))
        with pytest.raises(type(error)) as caught:
            await call
        assert caught.value.message == error.message and caught.value.__notes__ == ["request 17"]


# -- giving up ------------------------------------------------------------------------------------------


async def test_a_cancelled_call_says_cancel_and_its_late_answer_goes_to_nobody() -> None:
    async with talking() as (connection, server):
        call = start(connection, 1)
        stream, _ = await server.heard(CALL)
        call.cancel()
        assert await server.heard(CANCEL) == (stream, None)
        assert connection.in_flight == 1  # until the server has answered
        server.answer(stream, "late")
        again = start(connection, 2)
        other, _ = await server.heard(CALL)
        server.answer(other, "mine")
        assert await again == "mine"
        assert connection.in_flight == 0


async def test_a_long_answer_that_nobody_waits_for_is_passed_over() -> None:
    async with talking() as (connection, server):
        call = start(connection, 1)
        stream, _ = await server.heard(CALL)
        call.cancel()
        await server.heard(CANCEL)
        server.answer(stream, np.zeros(300_000))
        again = start(connection, 2)
        server.answer((await server.heard(CALL))[0], 2)
        assert await again == 2


async def test_a_deadline_that_the_server_forgets_is_kept_here() -> None:
    async with talking() as (connection, server):
        slow, quick = start(connection, 1, timeout=60), start(connection, 2, timeout=0.02)
        heard = {value: stream for stream, value in [await server.heard(CALL), await server.heard(CALL)]}
        with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.02 s"):
            await quick
        assert await server.heard(CANCEL) == (heard[2], None)
        server.answer(heard[1], "slow")
        assert await slow == "slow"


async def test_a_deadline_passes_while_a_call_waits_for_its_turn_too() -> None:
    async with talking(ServerHello("test", 10**6, 1)) as (connection, server):
        first = start(connection, 1)
        stream, _ = await server.heard(CALL)
        with pytest.raises(DeadlineExceeded):
            await connection.call("test", 2, timeout=0.01)
        server.answer(stream, 1)
        assert await first == 1 and connection.in_flight == 0
        assert server.hears_nothing()


async def test_timeouts_of_all_lengths_are_kept_by_one_timer() -> None:
    async with talking(ServerHello("test", 10**6, 100)) as (connection, _):
        timeouts = [0.05, 0.01, 0.03, 0.02, 0.01, 0.06]
        began = asyncio.get_running_loop().time()
        found = await asyncio.gather(
            *(connection.call("test", n, timeout=s) for n, s in enumerate(timeouts)), return_exceptions=True
        )
        assert [type(each) for each in found] == [DeadlineExceeded] * 6
        assert asyncio.get_running_loop().time() - began >= 0.06


# -- answers that cannot be -----------------------------------------------------------------------------


async def test_an_answer_that_makes_no_sense_fails_its_call_alone() -> None:
    async with talking() as (connection, server):
        first, second = start(connection, 1), start(connection, 2)
        (one, _), (two, _) = await server.heard(CALL), await server.heard(CALL)
        server.say(PREFIX.pack(RESULT, 0, 1, one, 0) + b"\xc1")
        server.answer(two, "good")
        with pytest.raises(Malformed, match="gave an answer that cannot be used: the header is no msgpack"):
            await first
        assert await second == "good"


async def test_an_answer_over_the_limit_fails_its_call_alone() -> None:
    async with talking(max_answer_nbytes=100_000) as (connection, server):
        first, second = start(connection, 1), start(connection, 2)
        (one, _), (two, _) = await server.heard(CALL), await server.heard(CALL)
        server.answer(one, np.zeros(100_001, np.uint8))
        server.answer(two, np.zeros(100_000, np.uint8))
        with pytest.raises(Malformed, match="gave an answer of 100001 bytes, over the limit of 100000"):
            await first
        assert (await second).size == 100_000


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no frame of kind 72"),
        (messages.encode_result(Encoder(copy=True), 99, 1, 1)[0], "a RESULT of stream 99 that was not expected"),
        (messages.encode_error(99, OpError("x"), 1), "an? ERROR of stream 99 that was not expected"),
        (messages.encode_cancel(1), "a CANCEL of stream 1 that was not expected"),
        (messages.encode_hello(SERVER), "a HELLO of stream 1 that was not expected"),
        (PREFIX.pack(6, 0, 1, 0, 0) + b"\xc1", "no msgpack"),
    ],
    ids=["another protocol", "unknown result", "unknown error", "cancel", "second hello", "bad goaway"],
)
async def test_a_server_that_speaks_nonsense_is_left(said: Any, words: str) -> None:
    async with talking() as (connection, server):
        call = start(connection, 1)
        await server.heard(CALL)
        server.say(said)
        with pytest.raises(Unavailable, match=f"was lost before the answer came: .* does not speak .*{words}"):
            await call
        assert not connection.is_open and "ended" in repr(connection)
        with pytest.raises(Refused):
            await connection.call("test", 1)
        await server.until_left()


# -- the end --------------------------------------------------------------------------------------------


async def test_a_lost_connection_fails_what_was_sent_and_refuses_what_was_not() -> None:
    async with talking(ServerHello("test", 10**6, 1)) as (connection, server):
        sent, unsent = start(connection, 1), start(connection, 2)
        await server.heard(CALL)
        server.socket.abort()
        with pytest.raises(Unavailable, match="was lost before the answer came") as caught:
            await sent
        assert not isinstance(caught.value, Refused)
        with pytest.raises(Refused):
            await unsent
        await connection.wait_closed()
        assert not connection.is_open


async def test_after_a_goaway_what_was_sent_is_answered_and_then_it_leaves() -> None:
    async with talking(ServerHello("test", 10**6, 1)) as (connection, server):
        sent, unsent = start(connection, 1), start(connection, 2)
        stream, _ = await server.heard(CALL)
        server.say(messages.encode_goaway(Unavailable("the server is stopping")))
        with pytest.raises(Refused, match="takes no more calls by this connection: the server is stopping"):
            await unsent
        with pytest.raises(Refused):
            await connection.call("test", 3)
        assert connection.in_flight == 1
        server.answer(stream, "last")
        assert await sent == "last"
        await server.until_left()
        await connection.wait_closed()


async def test_a_close_fails_what_is_outstanding_and_may_be_done_twice() -> None:
    async with talking() as (connection, server):
        call = start(connection, 1)
        await server.heard(CALL)
        await connection.close()
        with pytest.raises(Unavailable, match="was lost before the answer came: it was closed"):
            await call
        await connection.close()
        await server.until_left()


async def test_a_close_does_not_wait_for_a_server_that_does_not_read() -> None:
    async with talking(ServerHello("test", 10**8, 100)) as (connection, server):
        server.socket.pause_reading()
        calls = [start(connection, np.zeros(10**6)) for _ in range(10)]
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await connection.close()
        assert {type(each) for each in await asyncio.gather(*calls, return_exceptions=True)} <= {Unavailable, Refused}


# -- connecting -----------------------------------------------------------------------------------------


async def test_nobody_there_is_a_refusal() -> None:
    async with listening(SERVER) as (port, _):
        pass
    with pytest.raises(Refused, match=rf"tcp://127\.0\.0\.1:{port} cannot be reached: .*[Cc]onnect"):
        await TcpConnection.open("127.0.0.1", port)


async def test_a_server_that_says_nothing_is_a_refusal() -> None:
    async with listening(None) as (port, servers):
        with pytest.raises(Refused, match=r"did not answer within 0\.02 s"):
            await TcpConnection.open("127.0.0.1", port, timeout=0.02)
        await (await servers.get()).until_left()


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            Malformed,
            "does not speak .*: there is no frame of kind 72",
        ),
        (messages.encode_goaway(Unauthenticated("a token is required")), Unauthenticated, "a token is required"),
        (PREFIX.pack(HELLO, 0, 1, 2, 0) + b"\x80", Malformed, "HELLO of version 2"),
        (PREFIX.pack(HELLO, 0, 1, 1, 0) + b"\x80", Malformed, "HELLO: graph: expected a str"),
        (None, Refused, "hung up without a HELLO"),
    ],
    ids=["another protocol", "no token", "another version", "half a hello", "nothing"],
)
async def test_a_server_that_says_no_hello_is_not_talked_to(said: Any, kind: type[RequestError], words: str) -> None:
    async with listening(None) as (port, servers):
        opening = asyncio.create_task(TcpConnection.open("127.0.0.1", port))
        server = await servers.get()
        if said is not None:
            server.say(said)
        else:
            server.socket.close()
        with pytest.raises(kind, match=words):
            await opening
        await server.until_left()


async def test_an_opening_that_is_cancelled_leaves_nothing_behind() -> None:
    async with listening(None) as (port, servers):
        opening = asyncio.create_task(TcpConnection.open("127.0.0.1", port))
        server = await servers.get()
        await server.heard(HELLO)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await server.until_left()
        del opening
        gc.collect()  # an exception that nobody took would be logged now


async def test_an_opening_may_be_cancelled_whenever() -> None:
    """At each of its turns; what the loop finds wrong with that it logs."""
    wrong: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, about: wrong.append(about))
    async with listening(SERVER) as (port, _):
        for turns in range(20):
            opening = asyncio.create_task(TcpConnection.open("127.0.0.1", port))
            for _ in range(turns):
                await asyncio.sleep(0)
            if opening.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await opening
            else:
                await (await opening).close()
            del opening
            for _ in range(5):
                await asyncio.sleep(0)
        async with await TcpConnection.open("127.0.0.1", port):
            pass  # by now the others have been accepted too
    gc.collect()
    assert not wrong


async def test_the_token_is_said_with_hello() -> None:
    async with listening(SERVER) as (port, servers):
        async with await TcpConnection.open("127.0.0.1", port, token="sesame") as connection:
            server = await servers.get()
            frame = await server._heard.get()
            assert frame is not None and messages.decode_client_hello(*frame[1:3]).token == "sesame"
            assert "sesame" not in repr(connection)


def test_it_needs_nothing_of_a_server() -> None:
    heavy = ["aiohttp", "grpclib", "uvloop", "asyncline.server", "asyncline.transports"]
    code = f"import sys, asyncline.client.tcp; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == []
