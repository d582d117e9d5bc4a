"""Msgpack over TCP on a real socket, in this process: what clients may say, and what they get for the rest."""

from __future__ import annotations

import asyncio
import inspect
import random
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
import uvloop

from asyncline import (
    BadImage,
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    Engine,
    FetchFailed,
    Graph,
    Image,
    Json,
    Op,
    OpError,
    Overloaded,
    ProductError,
    Reply,
    Request,
    RequestError,
    Tensor,
    Text,
    Unavailable,
    context,
    op,
)
from asyncline.client.base import Refused
from asyncline.client.tcp import TcpConnection
from asyncline.errors import NotFound, SlowClient, TooLarge, Unauthenticated
from asyncline.settings import Source, merge
from asyncline.transports.guard.guard import ConnGuard
from asyncline.transports.guard.limits import Limits
from asyncline.transports.tcp.limits import CallLimits
from asyncline.transports.tcp.transport import TcpTransport
from asyncline.wire.frame import decoder, messages
from asyncline.wire.frame.decoder import CALL, ERROR, GOAWAY, HELLO, PREFIX, RESULT, Decoder, Frame
from asyncline.wire.frame.messages import ClientHello, Options
from asyncline.wire.frame.values import Encoder


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate of 127.0.0.1 that signed itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -days 2 -subj /CN=localhost "
        "-addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return cert, key


HELLO_BYTES = b"".join(messages.encode_hello(ClientHello()))
MB = 10**6


class Door:
    """A transport, its Engine, and ways to it."""

    def __init__(self, engine: Engine, transport: TcpTransport, stack: list[Any]) -> None:
        self.engine = engine
        self.transport = transport
        self.opened = stack

    @property
    def where(self) -> tuple[str, int]:
        host, _, port = self.transport.address.partition("://")[2].partition(":")
        return host, int(port)

    async def connect(self, **kwargs: Any) -> TcpConnection:
        connection = await TcpConnection.open(*self.where, **kwargs)
        self.opened.append(connection)
        return connection

    async def raw(self, hello: bytes = HELLO_BYTES) -> Raw:
        raw = Raw(*await asyncio.open_connection(*self.where))
        self.opened.append(raw)
        raw.send(hello)
        return raw

    async def until_empty(self) -> None:
        """Nothing announces that a server has seen a client leave: let the loop go round, for a bounded time."""
        async with asyncio.timeout(20):
            while self.engine.admission.in_flight or self.engine.admission.nbytes:  # noqa: ASYNC110  # as it says
                await asyncio.sleep(0)

    async def until_closed(self, left: int) -> None:
        """Likewise, until the server has so many connections left."""
        async with asyncio.timeout(20):
            while len(self.transport.connections) > left:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0)


class Raw:
    """A client that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._decoder = Decoder()
        self._frames: list[Frame] = []

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def call(self, stream: int, value: Any, graph: str = "test", **options: Any) -> None:
        self.send(written(stream, value, graph, **options))

    async def frame(self) -> Frame:
        """The next one; EOFError at the end of the stream."""
        while not self._frames:
            data = await self.reader.read(2**16)
            if not data:
                raise EOFError
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)

    async def answer(self) -> tuple[int, Any]:
        """The stream of the next answer, and its value or error; of a GOAWAY, stream 0."""
        while True:
            kind, stream, header, body = await self.frame()
            if kind == RESULT:
                return stream, messages.decode_result(header, body)
            if kind in (ERROR, GOAWAY):
                return stream, messages.decode_error(header)
            assert kind == HELLO

    async def goodbye(self) -> RequestError:
        """What the GOAWAY says that has to be the last that comes."""
        stream, error = await self.answer()
        assert stream == 0
        with pytest.raises(EOFError):
            await self.frame()
        return error

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass


def written(stream: int, value: Any, graph: str = "test", **options: Any) -> bytes:
    """A CALL."""
    return b"".join(messages.encode_call(Encoder(copy=False), stream, graph, Options(**options), value)[0])


@asynccontextmanager
async def serving(
    graph: Graph, limits: CallLimits | None = None, guard: dict[str, float] | None = None, **service: Any
) -> AsyncIterator[Door]:
    """:param guard: Limits of its guard that are no settings."""
    written = {"service": {"tcp_port": 0, **service}, "dag": {"cpu_threads": 2, "cpu_workers": 1}}
    settings = merge(graph.name, {o.name: o.code_settings for o in graph.ops}, Source("test", written))
    engine = Engine(graph, settings)
    guarding = ConnGuard(engine, settings.service, replace(Limits.of(settings.service), **(guard or {})))
    transport = TcpTransport(engine, settings.service, guarding, limits)
    await transport.start()
    opened: list[Any] = []
    try:
        async with engine:
            door = Door(engine, transport, opened)
            yield door
            for each in opened:
                await each.close()
            await door.until_empty()
    finally:
        transport.close()
        await transport.wait_closed()


def one_op(function: Callable[..., Any], request: Request | None = None, *fields: str) -> Graph:
    request = request or Request()
    kind = op(cpu="inline")(function)
    return Graph("test", kind(*(getattr(request, field) for field in fields) if fields else (request,)))


def echo(value: Any) -> Any:
    return value


class Gate(Op):
    """Holds requests until a test opens it."""

    concurrency = 1000

    def init_op(self) -> None:
        self.open = asyncio.Event()
        self.entered = asyncio.Semaphore(0)
        self.left = asyncio.Semaphore(0)

    async def preprocess(self, value: Any) -> Any:
        self.entered.release()
        try:
            await self.open.wait()
        finally:
            self.left.release()
        return value


# -- answers --------------------------------------------------------------------------------------------


async def test_plain_values_arrays_and_bytes_come_back() -> None:
    async with serving(one_op(echo)) as door:
        connection = await door.connect()
        array = np.arange(60_000, dtype=np.float32).reshape(2, -1)
        sent = {"a": [1, 2.5, None, "é"], "image": b"\xff" * 100_000, "x": array, "long": ["text"] * 30_000}
        got = await connection.call("test", sent)
        assert (got["x"].dtype, got["x"].shape) == (np.float32, (2, 30_000)) and (got.pop("x") == array).all()
        assert got == {key: value for key, value in sent.items() if key != "x"}


async def test_arrays_arrive_as_read_only_views_and_the_budget_knows_their_bytes() -> None:
    seen: list[Any] = []

    async with serving(one_op(lambda value: seen.append(value) or door.engine.admission.nbytes)) as door:
        connection = await door.connect()
        assert MB <= await connection.call("test", {"x": np.ones(MB // 8)}) < 1.1 * MB
        assert not seen[0]["x"].flags.writeable and seen[0]["x"].flags.aligned and (seen[0]["x"] == 1).all()


async def test_what_an_op_changes_after_its_answer_is_not_in_it() -> None:
    total = np.zeros(20_000)

    def add(value: int) -> np.ndarray[Any, Any]:
        nonlocal total
        total += value
        return total

    async with serving(one_op(add)) as door:
        connection = await door.connect()
        answers = await asyncio.gather(*(connection.call("test", 1) for _ in range(10)))
        assert [answer[0] for answer in answers] == list(range(1, 11))


async def test_arrays_of_the_cpu_pool_come_back() -> None:
    from tests.engine.pool_ops import Busy

    async with serving(Graph("test", Busy(Request(), cpu="process"))) as door:
        connection = await door.connect()
        assert await connection.call("test", ["add", 1], timeout=9) == 1


async def test_calls_are_answered_as_they_are_done() -> None:
    signals = {n: asyncio.Event() for n in range(3)}

    async def wait(value: int) -> int:
        await signals[value].wait()
        return value

    async with serving(Graph("test", op(concurrency=3)(wait)(Request()))) as door:
        raw = await door.raw()
        for n in signals:
            raw.call(n, n)
        for n in (1, 2, 0):
            signals[n].set()
            assert await raw.answer() == (n, n)


async def test_fields_are_those_of_the_request() -> None:
    request = Request(image=Image(max_mb=1), x=Tensor("FP32", [-1, 2]), note=Text(default="-"), n=Json(list[int]))

    def see(image: bytes, x: np.ndarray[Any, Any], note: str, n: list[int]) -> Any:
        assert type(image) is bytes
        return [len(image), x, note, sum(n)]

    async with serving(one_op(see, request, "image", "x", "note", "n")) as door:
        connection = await door.connect()
        fields = {"image": bytes(9000), "x": np.ones((3, 2), np.float32), "n": [1, 2]}
        size, x, note, n = await connection.call("test", fields)
        assert (size, x.shape, x.dtype, note, n) == (9000, (3, 2), np.float32, "-", 3)
        for change, words in [
            ({"x": np.ones((3, 3), np.float32)}, r"field 'x': expected shape \[-1, 2\], got \[3, 3\]"),
            ({"x": np.ones((3, 2), np.complex64)}, "field 'x': expected FP32, got complex64"),
            ({"note": 5}, "field 'note': expected a string"),
            ({"colour": 5}, "no field 'colour'"),
        ]:
            with pytest.raises(BadRequest, match=words):
                await connection.call("test", fields | change)
        with pytest.raises(TooLarge, match="field 'image': an image of 1000001 bytes"):
            await connection.call("test", fields | {"image": bytes(MB + 1)})


async def test_options_reach_the_hooks() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    def see(value: Any) -> Any:
        here = context()
        return [here.traceparent, here.log_id, here.remaining_s < 3]

    async with serving(one_op(see)) as door:
        connection = await door.connect()
        assert await connection.call("test", 0, timeout=2.5, log_id="a b", traceparent=trace) == [trace, "a b", True]
        assert await connection.call("test", 0) == [None, "", False]


async def test_a_lower_priority_than_there_is_is_the_lowest() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate), priorities=3) as door:
        connection = await door.connect()
        calls = [asyncio.create_task(connection.call("test", n, priority=n)) for n in (1, 3, 99)]
        for _ in calls:
            await gate.entered.acquire()
        assert sorted(item.priority for item in door.engine._items.values()) == [1, 3, 3]
        gate.open.set()
        assert await asyncio.gather(*calls) == [1, 3, 99]


async def test_ten_thousand_pipelined_calls_get_one_answer_each() -> None:
    async with serving(one_op(echo)) as door:
        raw = await door.raw()
        raw.send(b"".join(written(stream, stream) for stream in range(10_000)))
        assert [await raw.answer() for _ in range(10_000)] == [(n, n) for n in range(10_000)]


async def test_no_answer_goes_to_another_call() -> None:
    async def wander(value: list[int]) -> list[int]:
        for _ in range(value[1]):
            await asyncio.sleep(0)
        return value

    chance = random.Random(7)
    async with serving(Graph("test", op(concurrency=1000)(wander)(Request()))) as door:
        connections = [await door.connect() for _ in range(3)]

        async def caller(number: int) -> int:
            answered = 0
            for count in range(100):
                nonce = [number * 1000 + count, chance.randrange(6)]
                call = asyncio.create_task(chance.choice(connections).call("test", nonce, timeout=20))
                for _ in range(chance.randrange(12)):
                    await asyncio.sleep(0)
                call.cancel()
                try:
                    assert await call == nonce
                    answered += 1
                except asyncio.CancelledError:
                    pass
            return answered

        answered = await asyncio.gather(*map(caller, range(30)))
        assert 0 < sum(answered) < 3000
        nonces = [[n, 0] for n in range(300)]
        assert (
            await asyncio.gather(*(connections[n % 3].call("test", nonce) for n, nonce in enumerate(nonces))) == nonces
        )


# -- what the graph refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "code", "message"),
    [
        (ValueError("bad /srv/x.onnx"), OpError, "op_error", "op 'fail' preprocess: ValueError: bad <path>"),
        (BadImage("no image"), BadImage, "bad_image", "op 'fail' preprocess: no image"),
        (FetchFailed("too slow"), FetchFailed, "fetch_failed", "op 'fail' preprocess: too slow"),
        (ProductError(1001, "no such customer"), ProductError, 1001, "no such customer"),
    ],
)
async def test_what_an_op_raises_is_raised_by_the_call(
    error: Exception, kind: type[RequestError], code: Any, message: str
) -> None:
    def fail(value: Any) -> Any:
        raise error

    async with serving(one_op(fail)) as door:
        connection = await door.connect()
        with pytest.raises(RequestError) as caught:
            await connection.call("test", 1)
        assert (type(caught.value), caught.value.code, caught.value.message) == (kind, code, message)
        assert caught.value.__notes__ == ["request 1"]


async def test_an_answer_that_msgpack_cannot_carry_is_the_graphs_fault() -> None:
    async with serving(one_op(lambda value: object())) as door:
        connection = await door.connect()
        with pytest.raises(OpError, match="the answer cannot be written as msgpack: a object has no msgpack form"):
            await connection.call("test", 1)


async def test_an_answer_that_cannot_even_be_looked_at_is_the_graphs_fault() -> None:
    class Odd(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError("odd")

    async with serving(one_op(lambda value: Odd(x=b"x" * 5000, y=object()))) as door:
        connection = await door.connect()
        with pytest.raises(OpError):
            await connection.call("test", 1)
        with pytest.raises(OpError):
            await connection.call("test", 1)


async def test_a_reply_is_the_answer() -> None:
    async with serving(one_op(lambda value: Reply({"early": value}))) as door:
        assert await (await door.connect()).call("test", 1) == {"early": 1}


async def test_a_deadline_that_passes_says_where() -> None:
    async with serving(Graph("test", Gate(Request()))) as door:
        connection = await door.connect()
        with pytest.raises(DeadlineExceeded, match=r"^the deadline of 30 ms passed in op 'gate'"):
            await connection.call("test", 1, timeout=0.03)


async def test_the_surplus_is_refused_with_the_seconds_to_wait_and_the_rest_is_served() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate), max_in_flight=3) as door:
        connection = await door.connect()
        calls = [asyncio.create_task(connection.call("test", n)) for n in range(3)]
        for _ in calls:
            await gate.entered.acquire()
        with pytest.raises(Overloaded, match="3 requests are in flight") as caught:
            await connection.call("test", 9)
        assert caught.value.retry_after_s >= 1
        gate.open.set()
        assert await asyncio.gather(*calls) == [0, 1, 2]


async def test_one_connection_may_not_have_all_calls_in_flight() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate), CallLimits(max_streams=2)) as door:
        raw, other = await door.raw(), await door.connect()
        for stream in range(3):
            raw.call(stream, stream)
        stream, error = await raw.answer()
        assert stream == 2 and type(error) is Overloaded and "2 calls of this connection are in flight" in str(error)
        gate.open.set()
        assert await other.call("test", "other") == "other"
        assert [await raw.answer(), await raw.answer()] == [(0, 0), (1, 1)]


async def test_a_call_for_another_graph_is_not_found() -> None:
    async with serving(one_op(echo)) as door:
        with pytest.raises(NotFound, match=r"there is no graph 'nope' \(there is: test\)"):
            await (await door.connect()).call("nope", 1)


async def test_a_server_that_is_starting_says_so() -> None:
    graph = one_op(echo)
    settings = merge(graph.name, {"echo": {}}, Source("test", {"service": {"tcp_port": 0}}))
    engine = Engine(graph, settings)
    transport = TcpTransport(engine, settings.service)
    await transport.start()
    door = Door(engine, transport, [])
    async with await door.connect() as connection:
        with pytest.raises(Unavailable, match="the server is new"):
            await connection.call("test", 1)
    transport.close()
    await transport.wait_closed()


# -- bytes ----------------------------------------------------------------------------------------------


async def test_there_has_to_be_room_for_a_body_before_it_is_read() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate), max_in_flight_mb=1) as door:
        raw = await door.raw()
        held = written(1, np.zeros(900_000, np.uint8))
        raw.send(held)
        await gate.entered.acquire()
        surplus = written(2, np.zeros(200_000, np.uint8))
        raw.send(surplus[:-200_000])
        stream, error = await raw.answer()  # before its body is sent
        assert stream == 2 and type(error) is Overloaded and "201536 more are too many" in error.message
        gate.open.set()
        assert (await raw.answer())[0] == 1
        raw.send(surplus[-200_000:])
        raw.call(3, "small")
        assert await raw.answer() == (3, "small")


async def test_headers_are_counted_as_what_they_may_become_in_memory() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate), max_in_flight_mb=1) as door:
        raw = await door.raw()
        header = msgpack.packb(["test", {}, [{}] * 10_000])
        for stream in (1, 2):
            raw.send(PREFIX.pack(CALL, 0, len(header), stream, 0) + header)
        stream, error = await raw.answer()
        assert stream == 2 and type(error) is Overloaded and "request bytes are in flight" in str(error)
        gate.open.set()
        assert (await raw.answer())[0] == 1


async def test_a_client_that_leaves_within_a_body_gives_its_bytes_back() -> None:
    async with serving(one_op(echo)) as door:
        raw = await door.raw()
        raw.send(written(1, np.zeros(MB, np.uint8))[: MB // 2])
        async with asyncio.timeout(20):
            while not door.engine.admission.nbytes:  # noqa: ASYNC110  # nothing tells that it was read
                await asyncio.sleep(0)
        await raw.close()
        await door.until_empty()


async def test_a_client_that_does_not_read_is_not_listened_to_and_others_notice_nothing() -> None:
    size = 100_000
    async with serving(one_op(lambda value: np.full(size, value, np.uint8)), guard={"unread_nbytes": 2 * size}) as door:
        raw, other = await door.raw(), await door.connect()
        raw.send(b"".join(written(n % 256, n % 256) for n in range(1000)))
        for n in range(20):
            assert (await other.call("test", n) == n).all()
        # What lies in the kernel's buffers, and a little more; never all that was asked for.
        assert 0 < door.engine.admission.nbytes < 5 * size
        assert next(door.engine.ids) < 900
        for n in range(1000):
            stream, value = await raw.answer()
            assert stream == n % 256 and value[0] == n % 256
        await door.until_empty()


async def test_a_client_that_does_not_read_for_long_is_closed() -> None:
    graph = one_op(lambda value: np.zeros(MB, np.uint8))
    async with serving(graph, guard={"unread_nbytes": MB}, stall_timeout_s=0.2) as door:
        raw, other = await door.raw(), await door.connect()
        raw.send(b"".join(written(n, n) for n in range(100)))
        await door.until_closed(1)
        assert (await other.call("test", 1)).size == MB
        with pytest.raises((EOFError, ConnectionError)):
            while True:
                await raw.answer()


@pytest.mark.parametrize(("least_nbytes_s", "closed"), [(MB, False), (1000 * MB, True)])
async def test_a_client_that_reads_slowly_is_closed_only_where_that_is_too_slow(
    least_nbytes_s: int, closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time passes with what is read, about 300 MB/s of it, so that no machine is too busy for this."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    graph = one_op(lambda value: np.zeros(64 * MB, np.uint8))
    async with serving(graph, guard={"download_nbytes_s": least_nbytes_s}, stall_timeout_s=0.05) as door:
        raw = await door.raw()
        with monkeypatch.context() as patch:
            patch.setattr(loop, "time", lambda: now)
            raw.call(1, 1)
            left = 64 * MB
            try:
                while left > 0 and (data := await raw.reader.read(2**16)):
                    left -= len(data)
                    now += len(data) / (300 * MB)
            except ConnectionError:
                pass
        assert (left > 0) == closed


# -- cancels --------------------------------------------------------------------------------------------


async def test_a_cancelled_call_stops_its_work_and_frees_its_stream() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate)) as door:
        raw = await door.raw()
        raw.call(1, "first")
        await gate.entered.acquire()
        raw.send(b"".join(messages.encode_cancel(1)))
        await gate.left.acquire()
        stream, error = await raw.answer()
        assert stream == 1 and type(error) is Cancelled
        gate.open.set()
        raw.call(1, "second")
        assert await raw.answer() == (1, "second")


async def test_a_cancel_of_what_is_answered_or_never_was_is_nothing() -> None:
    async with serving(one_op(echo)) as door:
        raw = await door.raw()
        raw.call(1, 1)
        assert await raw.answer() == (1, 1)
        raw.send(b"".join(messages.encode_cancel(1) + messages.encode_cancel(99)))
        raw.call(2, 2)
        assert await raw.answer() == (2, 2)


async def test_a_caller_that_gives_up_cancels_its_call() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate)) as door:
        connection = await door.connect()
        call = asyncio.create_task(connection.call("test", 1))
        await gate.entered.acquire()
        call.cancel()
        await gate.left.acquire()
        gate.open.set()
        assert await connection.call("test", 2) == 2
        assert connection.in_flight == 0


@pytest.mark.parametrize("how", ["close", "half"])
async def test_a_client_that_leaves_cancels_what_it_began(how: str) -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate)) as door:
        raw = await door.raw()
        for stream in range(3):
            raw.call(stream, stream)
            await gate.entered.acquire()
        if how == "close":
            await raw.close()
        else:
            raw.writer.write_eof()
        for _ in range(3):
            await gate.left.acquire()
        await door.until_empty()


async def test_a_call_that_is_cancelled_while_queued_is_never_run() -> None:
    gate = Gate(Request(), concurrency=1)
    async with serving(Graph("test", gate)) as door:
        raw = await door.raw()
        raw.call(1, 1)
        await gate.entered.acquire()
        raw.call(2, 2)
        raw.send(b"".join(messages.encode_cancel(2)))
        assert type((await raw.answer())[1]) is Cancelled
        gate.open.set()
        assert await raw.answer() == (1, 1)
        raw.call(3, 3)
        assert await raw.answer() == (3, 3)
        assert gate.entered._value == 1  # of 3 alone: the one of 1 was taken


# -- what is no conversation ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (b"POST /test HTTP/1.1\r\nHost: x\r\n\r\n", BadRequest, "no frame of kind 80"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS", BadRequest, "no frame of kind 22"),
        (written(1, 1), BadRequest, "expected a HELLO first"),
        (written(1, np.zeros(50_000))[:100], BadRequest, "a CALL is not expected here"),
        (b"".join(messages.encode_cancel(1)), BadRequest, "expected a HELLO first"),
        (HELLO_BYTES + HELLO_BYTES, BadRequest, "a client says no HELLO here"),
        (HELLO_BYTES + PREFIX.pack(GOAWAY, 0, 0, 0, 0), BadRequest, "a client says no GOAWAY here"),
        (HELLO_BYTES + PREFIX.pack(RESULT, 0, 0, 0, 0), BadRequest, "a client says no RESULT here"),
        (HELLO_BYTES + PREFIX.pack(RESULT, 0, 0, 0, 70_000), BadRequest, "a RESULT is not expected here"),
        (HELLO_BYTES + PREFIX.pack(CALL, 0, 9, 1, 2**32 - 1), TooLarge, "a body of 4294967295 bytes is over the limit"),
        (HELLO_BYTES + PREFIX.pack(CALL, 9, 9, 1, 0), BadRequest, "no frame of kind 2 with flags 9"),
        (PREFIX.pack(HELLO, 0, 1, 2, 0) + b"\x80", RequestError, "HELLO of version 2"),
        (PREFIX.pack(HELLO, 0, 1, 1, 0) + b"\xc1", BadRequest, "no msgpack"),
        (PREFIX.pack(HELLO, 0, 1, 1, 0) + b"\x90", BadRequest, "HELLO: expected a map"),
    ],
    ids=str,
)
async def test_who_speaks_something_else_is_told_so_and_hung_up_on(
    said: bytes, kind: type[RequestError], words: str
) -> None:
    async with serving(one_op(echo)) as door:
        other = await door.connect()
        raw = await door.raw(said + bytes(1000))
        error = await raw.goodbye()
        assert isinstance(error, kind) and words in error.message
        assert await other.call("test", 1) == 1


async def test_a_stream_that_waits_for_its_answer_cannot_be_used_again() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate)) as door:
        raw = await door.raw()
        raw.call(1, "a")
        raw.call(1, "b")
        raw.call(2, "c")
        assert "stream 1 waits for its answer already" in (await raw.goodbye()).message
        await door.until_empty()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"", "no msgpack"),
        (b"\xc1", "no msgpack"),
        (b"\x91" * 60_000, "no msgpack"),
        (msgpack.packb(["test", {}]), "CALL: expected"),
        (msgpack.packb(["test", {"timeout": 5}, 1]), "no option 'timeout'"),
        (msgpack.packb(["test", {}, msgpack.ExtType(1, msgpack.packb([0, "object", [1]]))]), "unknown dtype"),
        (msgpack.packb(["test", {}, msgpack.ExtType(1, msgpack.packb([0, "int8", [2**40]]))]), "no section"),
        (msgpack.packb(["test", {}, {1: 2}]), "no msgpack: int is not allowed for map key"),
    ],
    ids=lambda header: header[:12].hex() if isinstance(header, bytes) else None,
)
async def test_a_call_that_makes_no_sense_fails_alone(header: bytes, words: str) -> None:
    async with serving(one_op(echo)) as door:
        raw = await door.raw()
        raw.send(PREFIX.pack(CALL, 0, len(header), 1, 0) + header)
        raw.call(2, 2)
        stream, error = await raw.answer()
        assert stream == 1 and type(error) is BadRequest and words in error.message
        assert await raw.answer() == (2, 2)


async def test_a_long_list_is_too_large_and_the_next_call_is_answered() -> None:
    async with serving(one_op(echo), CallLimits(max_value_nbytes=70_000)) as door:
        connection = await door.connect()
        with pytest.raises(TooLarge, match="send arrays"):
            await connection.call("test", [0.5] * 10_000)
        assert len(await connection.call("test", [0.5] * 7500)) == 7500


@pytest.mark.parametrize("element", [[], {}, [1], {"a": 1}])
async def test_what_would_keep_the_loop_is_too_large_however_few_bytes_it_has(element: Any) -> None:
    async with serving(one_op(echo)) as door:
        connection = await door.connect()
        with pytest.raises(TooLarge, match=r"decoded, .* send tensors, or less"):
            await connection.call("test", [element] * 100_000)
        assert await connection.call("test", [element] * 30_000) == [element] * 30_000
        assert len(await connection.call("test", [0.5] * 100_000)) == 100_000
        assert len(await connection.call("test", "x" * 1_000_000)) == 1_000_000


async def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    async with serving(one_op(echo), max_body_mb=0.001) as door:
        raw = await door.raw()
        raw.send(PREFIX.pack(CALL, 0, 100, 1, 1001))
        error = await raw.goodbye()
        assert type(error) is TooLarge and error.message == "a body of 1001 bytes is over the limit of 1000"
        connection = await door.connect()
        with pytest.raises(TooLarge, match="over the server's limit of 1000"):
            await connection.call("test", np.zeros(1001, np.uint8))
        assert (await connection.call("test", np.zeros(1000, np.uint8))).size == 1000


async def test_one_client_with_much_to_say_does_not_keep_others_waiting() -> None:
    order: list[Any] = []
    async with serving(one_op(order.append), CallLimits(burst=10)) as door:
        talker, other = await door.raw(), await door.raw()
        for each in (talker, other):
            assert (await each.frame())[0] == HELLO
        talker.send(b"".join(written(n, n) for n in range(300)))
        other.call(1, "other")
        assert await other.answer() == (1, None)
        assert [(await talker.answer())[0] for _ in range(300)] == list(range(300))
        assert order.index("other") < 50


# -- time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"", HELLO_BYTES[:5]])
async def test_who_does_not_say_hello_in_time_is_hung_up_on(said: bytes) -> None:
    async with serving(one_op(echo), header_timeout_s=0.03) as door:
        error = await (await door.raw(said)).goodbye()
        assert type(error) is SlowClient and error.message == "no HELLO within 0.03 s"


@pytest.mark.parametrize("nbytes", [1, 11, 14, 60, 40_000])
async def test_a_frame_that_stops_arriving_is_given_up(nbytes: int) -> None:
    async with serving(one_op(echo), body_timeout_s=0.05) as door:
        raw = await door.raw()
        raw.call(1, 1)
        raw.send(written(2, np.zeros(50_000, np.uint8))[:nbytes])
        assert await raw.answer() == (1, 1)
        error = await raw.goodbye()
        assert type(error) is SlowClient and error.message.startswith("a request did not arrive within 0.05 s")


async def test_a_frame_that_comes_byte_by_byte_is_given_up() -> None:
    async with serving(one_op(echo), body_timeout_s=0.05) as door:
        raw = await door.raw()

        async def drip() -> None:
            for byte in written(1, "x" * 4000):
                raw.send(bytes([byte]))
                await asyncio.sleep(0.005)

        dripping = asyncio.create_task(drip())
        assert type(await raw.goodbye()) is SlowClient
        dripping.cancel()


async def test_a_connection_without_calls_is_ended_after_a_while() -> None:
    async with serving(one_op(echo), guard={"linger_s": 0.02}, keepalive_s=0.3) as door:
        raw, polite = await door.raw(), await door.connect()
        raw.call(1, 1)
        assert await raw.answer() == (1, 1)
        error = await raw.goodbye()
        assert type(error) is Unavailable and error.message == "nothing came for 0.3 s"
        await polite.wait_closed()
        with pytest.raises(Refused, match=r"takes no more calls by this connection: nothing came for 0\.3 s"):
            await polite.call("test", 1)


async def test_a_connection_with_calls_in_flight_is_not_idle() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate), guard={"linger_s": 0.02}, keepalive_s=0.03) as door:
        raw = await door.raw()
        raw.call(1, 1)
        await asyncio.sleep(0.1)
        gate.open.set()
        assert await raw.answer() == (1, 1)
        assert type(await raw.goodbye()) is Unavailable


# -- the end --------------------------------------------------------------------------------------------


async def test_a_server_that_stops_answers_what_it_has_and_takes_no_more() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate), guard={"linger_s": 0.1}) as door:
        where, connection, raw, idle = door.where, await door.connect(), await door.raw(), await door.connect()
        running = asyncio.create_task(connection.call("test", 1))
        raw.call(1, 1)
        for _ in range(2):
            await gate.entered.acquire()
        door.transport.close()
        draining = asyncio.create_task(door.engine.drain(20))
        await idle.wait_closed()
        stream, error = await raw.answer()
        assert stream == 0 and type(error) is Unavailable and error.message == "the server is stopping"
        raw.call(2, 2)
        stream, error = await raw.answer()
        assert stream == 2 and type(error) is Unavailable and error.message == "the server is draining"
        with pytest.raises(Refused):
            await connection.call("test", 2)
        with pytest.raises(OSError):
            await asyncio.open_connection(*where)
        gate.open.set()
        assert await running == 1 and await raw.answer() == (1, 1)
        assert await draining
        await connection.wait_closed()
        await door.transport.wait_closed()
        with pytest.raises(EOFError):
            await raw.frame()


async def test_what_a_drain_cuts_off_is_told_so() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate)) as door:
        connection = await door.connect()
        hanging = asyncio.create_task(connection.call("test", 1))
        await gate.entered.acquire()
        door.transport.close()
        assert not await door.engine.drain(0)
        with pytest.raises(Unavailable, match="the server is stopping"):
            await hanging
        await door.transport.wait_closed()


async def test_a_client_that_does_not_read_cannot_keep_a_server_from_stopping() -> None:
    async with serving(one_op(lambda value: np.zeros(MB, np.uint8)), guard={"linger_s": 0.05}) as door:
        raw = await door.raw()
        raw.send(b"".join(written(n, n) for n in range(50)))
        async with asyncio.timeout(20):
            while not door.engine.admission.nbytes:  # noqa: ASYNC110  # nothing tells that it is paused
                await asyncio.sleep(0)
        door.transport.close()
        async with asyncio.timeout(5):
            await door.transport.wait_closed()
        await door.until_empty()


# -- who may --------------------------------------------------------------------------------------------


async def test_a_token_has_to_be_said_with_hello() -> None:
    async with serving(one_op(echo), auth_token="sesame") as door:
        for token in (None, "", "wrong", "sesame ", "sésame"):
            with pytest.raises(Unauthenticated, match="a token is required: say it in HELLO"):
                await TcpConnection.open(*door.where, token=token)
        raw = await door.raw(HELLO_BYTES + written(1, 1))
        assert type(await raw.goodbye()) is Unauthenticated
        assert await (await door.connect(token="sesame")).call("test", 1) == 1


async def test_tls(certificate: tuple[str, str]) -> None:
    cert, key = certificate
    async with serving(one_op(echo), tls_cert=cert, tls_key=key) as door:
        assert door.transport.address.startswith("tcps://")
        connection = await door.connect(tls=ssl.create_default_context(cafile=cert))
        array = np.arange(500_000, dtype=np.int16)
        assert (await connection.call("test", array) == array).all()
        assert await asyncio.gather(*(connection.call("test", n) for n in range(200))) == list(range(200))
        with pytest.raises(Refused, match="certificate verify failed"):
            await TcpConnection.open(*door.where, tls=ssl.create_default_context())
        with pytest.raises(Refused):
            await TcpConnection.open(*door.where, timeout=5)


async def test_a_listening_socket_may_be_handed_over() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        graph = one_op(echo)
        async with serving(graph, tcp_fd=socket.socket.dup(listener).detach()) as door:
            assert door.where == ("127.0.0.1", port)
            assert await (await door.connect()).call("test", 1) == 1


def test_limits_stand_in_the_docstring_of_the_format() -> None:
    from asyncline.wire import frame
    from asyncline.wire.frame.values import MAX_DEPTH

    text = " ".join((frame.__doc__ or "").split())
    assert f"at most {decoder.MAX_HEADER_NBYTES:,} bytes" in text
    assert f"at most {MAX_DEPTH} deep" in text and CallLimits().max_value_nbytes == 2**20 and "at most 1 MiB" in text


# -- the loop of a server -------------------------------------------------------------------------------

# Its sockets pause, write and close in ways of their own.
TESTS = [
    each
    for name, each in list(globals().items())
    if name.startswith("test_") and inspect.iscoroutinefunction(each) and not inspect.signature(each).parameters
]


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.__name__.removeprefix("test_"))
def test_on_uvloop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(test())


def test_tls_on_uvloop(certificate: tuple[str, str]) -> None:
    uvloop.run(test_tls(certificate))
