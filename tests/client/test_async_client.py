"""AsyncClient by every wire against real servers in this process."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np
import pytest

from asyncline import (
    BadImage,
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    FetchFailed,
    OpError,
    Overloaded,
    ProductError,
    RequestError,
    Unavailable,
    UrlForbidden,
    WorkerCrashed,
    errors,
)
from asyncline.client import AsyncClient, Malformed, Refused
from asyncline.client import tcp as tcp_connection
from asyncline.client.wires import grpc, http
from asyncline.errors import NotFound, SlowClient, TooLarge, Unauthenticated, Unsupported
from tests.client.served import WIRES, served
from tests.client.servers import closed_port, tcp

every_wire = pytest.mark.parametrize("wire", WIRES)


# -- values ---------------------------------------------------------------------------------------------


@every_wire
@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -(2**63), 2**64 - 1, 1.5, "", "é\x00", b"", b"\xff" * 100_000, [], [1, "a", None, [b"x"]],
        {}, {"a": {"b": [1.0]}, "é": b"1"}, "x" * 100_000, list(range(10_000)),
    ],
    ids=repr,
)  # fmt: skip
async def test_a_value_comes_back_as_it_went(wire: str, value: Any) -> None:
    async with served() as server, server.client(wire) as client:
        answer = await client("told", value)
        assert answer == value and type(answer) is type(value)


@every_wire
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "float16", "float32", ">f8", "complex128"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (300, 200)])
async def test_an_array_comes_back_as_it_went(wire: str, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    async with served() as server, server.client(wire) as client:
        answer = await client("told", {"a": array, "more": [array]})
    for found in (answer["a"], *answer["more"]):
        assert found.dtype == array.dtype.newbyteorder("<") and found.shape == shape and not found.flags.writeable
        np.testing.assert_array_equal(found, array)


@every_wire
async def test_fields_are_a_dict_of_them_and_a_whole_payload_may_be_one_too(wire: str) -> None:
    async with served() as server, server.client(wire) as client:
        assert await client("told", a=1, b="x") == await client("told", {"a": 1, "b": "x"}) == {"a": 1, "b": "x"}
        assert await client("told") == {}
        with pytest.raises(TypeError, match="a whole payload as well as fields"):
            await client("told", 5, a=1)


@every_wire
async def test_what_has_no_form_is_refused_here(wire: str) -> None:
    async with served() as server, server.client(wire) as client:
        with pytest.raises(BadRequest, match="the request cannot be written as msgpack: a object has no msgpack form"):
            await client("told", object())


@every_wire
async def test_the_server_hears_log_id_priority_and_timeout(wire: str) -> None:
    async with served(priorities=3) as server, server.client(wire) as client:
        asked = asyncio.create_task(client("told", {"do": "wait"}, log_id="mine", priority=2, timeout=5.0))
        await server.orders.until(server.orders.begun)
        (item,) = server.engine._items.values()
        assert (item.log_id, item.priority) == ("mine", 2)
        assert item.expires_at - item.started_at <= 5.0  # the server's own would be 10
        server.orders.release.set()
        await asked


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"log_id": "a\r\nX-Evil: 1"}, "log_id"),
        ({"log_id": "x" * 129}, "log_id"),
        ({"priority": 0}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"traceparent": "00-x\r\n"}, "traceparent"),
    ],
)
async def test_options_that_no_server_takes_are_refused_here(options: dict[str, Any], field: str) -> None:
    async with AsyncClient("http://127.0.0.1:1") as client:
        with pytest.raises(BadRequest, match=field):
            await client("told", 1, **options)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e7])
async def test_a_timeout_that_is_none_is_refused(seconds: float) -> None:
    async with AsyncClient("http://127.0.0.1:1") as client:
        with pytest.raises(ValueError, match="a timeout of"):
            await client("told", 1, timeout=seconds)


# -- errors ---------------------------------------------------------------------------------------------

KINDS = (
    BadRequest, NotFound, Unauthenticated, TooLarge, Unsupported, BadImage, UrlForbidden, FetchFailed, SlowClient,
    Overloaded, Unavailable, DeadlineExceeded, OpError, WorkerCrashed,
)  # fmt: skip


@every_wire
@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_has_the_class_that_the_server_raised(wire: str, kind: type[RequestError]) -> None:
    async with served() as server, server.client(wire) as client:
        with pytest.raises(RequestError) as caught:
            await client("told", {"do": "raise", "kind": kind.__name__})
    error = caught.value
    assert type(error) is kind and error.code == kind.code
    assert error.message == "op 'run' preprocess: as told"
    assert error.__notes__ == ["request 0"] or error.__notes__ == ["request 1"]
    assert not error.was_refused


@every_wire
@pytest.mark.parametrize("code", [1001, "no_such_customer", "overloaded", "bad_image2", -5])
async def test_a_product_error_keeps_its_code(wire: str, code: int | str) -> None:
    async with served() as server, server.client(wire) as client:
        with pytest.raises(ProductError, match="as told") as caught:
            await client("told", {"do": "raise", "kind": "ProductError", "code": code})
        assert caught.value.code == code and type(caught.value.code) is type(code)


def test_every_error_of_a_request_is_tried() -> None:
    found = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RequestError)}
    assert found == {RequestError, Cancelled, ProductError, *KINDS}


@every_wire
async def test_a_hook_that_raises_is_an_op_error(wire: str) -> None:
    async with served() as server, server.client(wire) as client:
        with pytest.raises(OpError, match="op 'run' preprocess: ZeroDivisionError: as told"):
            await client("told", {"do": "crash"})


@every_wire
async def test_a_server_that_is_full_says_when_to_come_back_and_that_nothing_was_run(wire: str) -> None:
    async with served(max_in_flight=1) as server, server.client(wire) as client:
        first = asyncio.create_task(client("told", {"do": "wait"}))
        await server.orders.until(server.orders.begun)
        with pytest.raises(Overloaded) as caught:
            await client("told", 1)
        assert caught.value.retry_after_s >= 1 and caught.value.was_refused
        server.orders.release.set()
        await first


@every_wire
async def test_another_graph_is_not_found(wire: str) -> None:
    async with served() as server, server.client(wire) as client:
        for name in ("other", "a?b=c", "é"):
            with pytest.raises(NotFound):
                await client(name, 1)


@every_wire
async def test_a_token_is_sent_and_one_that_is_wrong_is_told(wire: str) -> None:
    async with served(auth_token="secret") as server:
        async with server.client(wire, token="secret") as client:
            assert await client("told", 1) == 1
        for token in ("wrong", None):
            async with server.client(wire, token=token) as client:
                with pytest.raises(Unauthenticated):
                    await client("told", 1)


@every_wire
async def test_too_large_a_request_is_told(wire: str) -> None:
    async with served(max_body_mb=0.1) as server, server.client(wire) as client:
        with pytest.raises(TooLarge):
            await client("told", b"x" * 200_000)
        assert await client("told", 1) == 1


@every_wire
async def test_too_large_an_answer_is_not_read(wire: str) -> None:
    async with served() as server, server.client(wire, max_answer_mb=0.1) as client:
        with pytest.raises(Malformed, match="over the limit"):
            await client("told", b"x" * 200_000)
        assert await client("told", 1) == 1


# -- deadlines, cancels ---------------------------------------------------------------------------------


@every_wire
async def test_the_server_says_where_a_deadline_passed(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (http, grpc, tcp_connection):  # on a busy machine the answer may take longer than the usual grace
        monkeypatch.setattr(module, "GRACE_S", 30)
    async with served() as server, server.client(wire) as client:
        with pytest.raises(DeadlineExceeded, match="op 'run'"):
            await client("told", {"do": "sleep"}, timeout=0.05)
        await server.until_empty()


@every_wire
async def test_a_server_that_says_nothing_ends_with_the_deadline(wire: str) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with tcp(silent) as port, AsyncClient(f"{wire}://127.0.0.1:{port}") as client:
        with pytest.raises((DeadlineExceeded, Refused)):
            await client("told", 1, timeout=0.05)


@every_wire
async def test_a_cancel_reaches_the_server(wire: str) -> None:
    async with served() as server, server.client(wire) as client:
        asked = asyncio.create_task(client("told", {"do": "sleep"}))
        await server.orders.until(server.orders.begun)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await server.orders.until(server.orders.cancelled)
        await server.until_empty()
        assert await client("told", 1) == 1


@every_wire
async def test_a_close_fails_the_calls_in_flight_and_cancels_them_there(wire: str) -> None:
    async with served() as server:
        client = server.client(wire)
        asked = [asyncio.create_task(client("told", {"do": "sleep"})) for _ in range(3)]
        await server.orders.until(server.orders.begun, 3)
        await client.close()
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(outcome, Unavailable)
        with pytest.raises(Refused, match="the client was closed"):
            await client("told", 1)
        await client.close()
        await server.until_empty()


@every_wire
async def test_a_close_while_it_connects_leaves_nothing(wire: str) -> None:
    async with served() as server:
        client = server.client(wire)
        asked = asyncio.create_task(client("told", 1))
        await asyncio.sleep(0)
        await client.close()
        (outcome,) = await asyncio.gather(asked, return_exceptions=True)
        assert outcome == 1 or isinstance(outcome, Unavailable)


@every_wire
async def test_answers_are_never_crossed_by_cancels(wire: str) -> None:
    """Ten thousand calls, of which a quarter is cancelled at any point of its way."""
    chance = random.Random(5)
    async with (
        served(max_in_flight=2000) as server,
        server.client(wire, connections=None if wire == "tcp" else 20) as client,
    ):

        async def ask(nonce: int) -> int:
            call = asyncio.ensure_future(client("told", {"nonce": nonce}))
            if nonce % 4 == 0:
                for _ in range(chance.randrange(20)):
                    await asyncio.sleep(0)
                call.cancel()
            try:
                assert await call == {"nonce": nonce}
            except asyncio.CancelledError:
                return 0
            return 1

        answered = 0
        for start in range(0, 10_000, 200):
            answered += sum(await asyncio.gather(*map(ask, range(start, start + 200))))
        assert answered >= 7500
        await server.until_empty()


# -- servers that come and go ---------------------------------------------------------------------------


@every_wire
async def test_nobody_there_is_refused(wire: str) -> None:
    address = f"{wire}://127.0.0.1:{await closed_port()}"
    async with AsyncClient(address, retries=0) as client:
        with pytest.raises(Refused, match=f"{address} cannot be reached"):
            await client("told", 1)
        assert not await client.ready()


@every_wire
async def test_a_client_finds_a_server_that_was_started_again(wire: str) -> None:
    async with served() as server:
        address = server.addresses[wire]
        client = server.client(wire)
        assert await client("told", 1) == 1
    port = {f"{wire}_port": int(address.rpartition(":")[2])}
    with pytest.raises(Unavailable):
        await client("told", 2)
    async with served(**port):
        assert await client("told", 3) == 3 and await client.ready()
    await client.close()


@every_wire
async def test_a_stranger_is_malformed(wire: str) -> None:
    async def rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n" * 10)
        await writer.drain()
        await reader.read()

    # By HTTP/2 this is the begin of a very long frame.
    kinds, timeout = ((DeadlineExceeded, Unavailable), 0.2) if wire == "grpc" else (Malformed, 20)
    async with tcp(rubbish) as port, AsyncClient(f"{wire}://127.0.0.1:{port}", timeout=timeout) as client:
        with pytest.raises(kinds):
            await client("told", 1)
        assert not await client.ready(timeout=0.1)


async def test_an_answer_of_another_http_server_is_malformed() -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>")
        await reader.read()

    async with tcp(page) as port, AsyncClient(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(Malformed, match="answered 502, which is none of asyncline's"):
            await client("told", 1)


async def test_a_server_whose_engine_has_ended_is_not_ready() -> None:
    async with served() as server, server.client("http") as client:
        assert await client.ready()
        await server.engine.close()
        assert not await client.ready()
        with pytest.raises(Unavailable) as caught:
            await client("told", 1)
        assert caught.value.was_refused


async def test_of_several_servers_the_one_that_is_there_answers() -> None:
    dead = f"tcp://127.0.0.1:{await closed_port()}"
    async with served() as server, AsyncClient([dead, server.addresses["tcp"], server.addresses["http"]]) as client:
        assert [await client("told", n) for n in range(20)] == list(range(20))
        assert await client.ready()


async def test_calls_go_where_the_fewest_are_outstanding() -> None:
    async with served() as one, served() as other:
        both = f"{one.addresses['tcp']},{other.addresses['tcp'].removeprefix('tcp://')}"
        async with AsyncClient(both) as client:
            asked = [asyncio.create_task(client("told", {"do": "wait"})) for _ in range(10)]
            await one.orders.until(one.orders.begun, 5)
            await other.orders.until(other.orders.begun, 5)
            one.orders.release.set()
            other.orders.release.set()
            await asyncio.gather(*asked)


async def test_connections_over_tcp_grow_with_the_calls_up_to_the_limit() -> None:
    async with served() as server, server.client("tcp", connections=3) as client:
        for _ in range(10):
            asked = [asyncio.create_task(client("told", {"do": "wait"})) for _ in range(6)]
            await server.orders.until(server.orders.begun, 6)
            server.orders.release.set()
            await asyncio.gather(*asked)
        (wire,) = [task.result() for task in client._wires.values()]
        assert len(wire._connections) == 3


# -- misuse ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("servers", "message"),
    [
        ("ftp://host:1", "write http://host:8000 or grpc://host:8001 or tcp://host:8002"),
        ("host:8000", "is no endpoint"),
        ("http://[::1", "is no endpoint"),
        ("tcp://host", "has no port: write tcp://host:8002"),
        ("tcp://host:1/path", "has a path, which only HTTP has"),
        ("tcp://a:1,b", "has no port"),
        ("tcp://a:1,a:1", "there twice"),
        ([], "there is no endpoint"),
        ("http://user:secret@host", "credentials"),
    ],
)
def test_an_address_that_is_none_is_refused(servers: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        AsyncClient(servers)
    assert "secret" not in str(caught.value)


def test_a_client_belongs_to_one_loop() -> None:
    client = AsyncClient("tcp://127.0.0.1:1", retries=0)

    async def ask() -> None:
        await client("told", 1)

    with pytest.raises(Refused):
        asyncio.run(ask())
    with pytest.raises(RuntimeError, match="belongs to the event loop"):
        asyncio.run(ask())


async def test_a_repr_shows_the_servers() -> None:
    async with AsyncClient("tcp://a:1,b:2") as client:
        assert repr(client) == "<AsyncClient <Endpoint tcp://a:1, 0 outstanding>, <Endpoint tcp://b:2, 0 outstanding>>"


async def test_a_close_fails_a_call_whose_answer_is_half_here() -> None:
    begun = asyncio.Event()

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await writer.drain()
        begun.set()
        await reader.read()

    async with tcp(half) as port:
        client = AsyncClient(f"http://127.0.0.1:{port}", retries=0)
        asked = asyncio.create_task(client("told", 1))
        await begun.wait()
        (wire,) = [task.result() for task in client._wires.values()]
        while not wire._peer._unread:  # type: ignore[attr-defined]  # noqa: ASYNC110  # nothing announces it
            await asyncio.sleep(0)
        async with asyncio.timeout(2):
            await client.close()
            with pytest.raises(Unavailable):
                await asked
