"""Endpoints that are down, slow, overloaded, or answer rubbish."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from grpclib.const import Status

from asyncline import (
    BadRequest,
    DeadlineExceeded,
    Engine,
    Graph,
    LoadError,
    OpError,
    Overloaded,
    Request,
    RequestError,
    Unavailable,
)
from asyncline.client import Remote, endpoints
from asyncline.client import base as client_base
from asyncline.client.pool import Pool
from asyncline.wire.oip import InferRequest, InferResponse, InferTensor, grpc, rest
from asyncline.wire.oip.schema import message
from tests.client.servers import (
    Failure,
    ModelServer,
    closed_port,
    doubled,
    grpc_handlers,
    grpc_server,
    http,
    response,
    tcp,
)

WIRES = {"http": http, "grpc": grpc_server}
both_wires = pytest.mark.parametrize("wire", WIRES)
X = np.array([1, 2, 3], np.float32)
REQUEST = InferRequest((InferTensor("x", "FP32", X[None]),), "scores")

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def engine_of(*urls: str, **more: Any) -> AsyncIterator[Engine]:
    async with Engine(Graph("g", Remote(list(urls), "scores", Request(), outputs="y", **more))) as engine:
        yield engine


async def outcome(wire: str, answer: Any, **more: Any) -> RequestError:
    """What becomes of a request to a server that gives this answer."""
    async with WIRES[wire](ModelServer(answer=answer)) as served, engine_of(served.url, **more) as engine:
        with pytest.raises(RequestError) as error:
            await engine.submit(X)
    return error.value


@pytest.fixture
def long_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first failure is enough to be left alone for as long as any test takes."""
    monkeypatch.setattr(endpoints, "REST_S", endpoints.MOST_REST_S)


def pool_of(engine: Engine) -> Pool:
    (runner,) = engine.runners
    found: Pool = runner.replicas[0]._op.model.pool  # type: ignore[attr-defined]
    return found


# -- at the start


@pytest.mark.parametrize("scheme", WIRES)
async def test_an_endpoint_that_is_down_is_told_at_the_start(scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{await closed_port()}"
    with pytest.raises(LoadError) as error:
        async with engine_of(url):
            pass
    assert str(error.value) == (
        "op 'scores' load_model: remote model 'scores': no endpoint can be reached: "
        f"{url}: remote model 'scores' cannot be reached"
    )


async def test_one_endpoint_that_is_down_does_not_keep_the_others_from_serving(
    caplog: pytest.LogCaptureFixture, long_rests: None
) -> None:
    down = f"http://127.0.0.1:{await closed_port()}"
    with caplog.at_level(logging.WARNING, "asyncline.client"):
        async with http() as served, engine_of(down, served.url) as engine:
            assert pool_of(engine).statistics().resting == (down,)
            assert (await engine.submit(X)).tolist() == [2, 4, 6]
    assert caplog.messages == [f"remote model 'scores': {down}: remote model 'scores' cannot be reached"]


@pytest.mark.parametrize("scheme", WIRES)
@pytest.mark.parametrize("greeting", [b"", b"220 smtp ready\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"])
async def test_another_protocol_at_the_endpoint_is_told_at_the_start(scheme: str, greeting: bytes) -> None:
    words = "that cannot be used: it is no HTTP" if scheme == "http" and greeting.startswith(b"220") else ""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(greeting)

    async with tcp(serve) as port:
        with pytest.raises(LoadError, match=f"op 'scores' load_model: .*{words}"):
            async with engine_of(f"{scheme}://127.0.0.1:{port}"):
                pass


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{}", 200, "remote model 'scores' does not say what its inputs are"),
        (b"[]", 200, "does not speak the Open Inference Protocol: expected an object"),
        (
            b'{"inputs": [{"name": "x"}]}',
            200,
            "does not speak the Open Inference Protocol: input 'x': shape is no list",
        ),
        (b'{"error": "out of order"}', 500, "answered 500 when asked for model 'scores': out of order"),
        (b'{"error": "unknown"}', 404, "has no model 'scores': unknown"),
        (b'{"error": "not ready"}', 400, "has no model 'scores': not ready"),
        (b"", 302, "answered 302 when asked for model 'scores'"),
    ],
)
async def test_metadata_that_cannot_be_used_is_told_at_the_start(body: bytes, status: int, words: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    async with tcp(_until_eof(serve)) as port:
        with pytest.raises(LoadError) as error:
            async with engine_of(f"http://127.0.0.1:{port}"):
                pass
    assert words in str(error.value)


async def test_a_server_that_is_silent_at_the_start_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    monkeypatch.setattr("asyncline.client.pool.DESCRIBE_S", 0.05)
    async with tcp(serve) as port:
        for scheme in WIRES:
            with pytest.raises(LoadError, match=r"no endpoint can be reached: .* did not answer within 50 ms"):
                async with engine_of(f"{scheme}://127.0.0.1:{port}"):
                    pass


# -- what the server says went wrong


OUTCOMES: list[tuple[str, int | Status, type[RequestError], str]] = [
    ("http", 400, BadRequest, "remote model 'scores' refused its input: too odd"),
    ("http", 422, BadRequest, "remote model 'scores' refused its input: too odd"),
    ("http", 404, Unavailable, "remote model 'scores' is not there: too odd"),
    ("http", 429, Overloaded, "remote model 'scores' is overloaded: too odd"),
    ("http", 500, OpError, "remote model 'scores' failed: too odd"),
    ("http", 401, OpError, "remote model 'scores' failed: too odd"),
    ("http", 503, Unavailable, "remote model 'scores' is not available: too odd"),
    ("http", 504, DeadlineExceeded, "remote model 'scores' did not answer within "),
    ("grpc", Status.INVALID_ARGUMENT, BadRequest, "remote model 'scores' refused its input: too odd"),
    ("grpc", Status.NOT_FOUND, Unavailable, "remote model 'scores' is not there: too odd"),
    ("grpc", Status.INTERNAL, OpError, "remote model 'scores' failed: too odd"),
    ("grpc", Status.UNAUTHENTICATED, OpError, "remote model 'scores' failed: too odd"),
    ("grpc", Status.UNAVAILABLE, Unavailable, "remote model 'scores' is not available: too odd"),
    ("grpc", Status.RESOURCE_EXHAUSTED, Unavailable, "remote model 'scores' is not available: too odd"),
    ("grpc", Status.DEADLINE_EXCEEDED, DeadlineExceeded, "remote model 'scores' did not answer within "),
]


@pytest.mark.parametrize(("wire", "status", "kind", "words"), OUTCOMES)
async def test_what_the_server_says_becomes_our_error(
    wire: str, status: int | Status, kind: type[RequestError], words: str
) -> None:
    def answer(request: InferRequest) -> InferResponse:
        raise Failure(status, "too odd")

    error = await outcome(wire, answer)
    assert isinstance(error, kind)
    assert error.message.startswith(f"op 'scores' process: {words}")


@both_wires
async def test_a_long_story_of_the_server_is_shortened(wire: str) -> None:
    def answer(request: InferRequest) -> InferResponse:
        raise Failure(500 if wire == "http" else Status.INTERNAL, "very\nlong " * 1000)

    error = await outcome(wire, answer)
    assert error.message == f"op 'scores' process: remote model 'scores' failed: {'very long ' * 20}..."


# -- rubbish


def rubbish_http(body: bytes, **headers: str) -> Callable[[InferRequest], web.Response]:
    return lambda request: web.Response(body=body, headers=headers)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (rubbish_http(b"<html>"), "the body is no JSON"),
        (rubbish_http(b""), "the body is empty"),
        (rubbish_http(b"[]"), "expected an object"),
        (rubbish_http(b"{}"), "output 'y' is missing"),
        (rubbish_http(b'{"outputs": [{"name": "y"}]}'), "output 'y': shape is no list of lengths"),
        (rubbish_http(b'{"outputs": []}xx', **{rest.HEADER_LENGTH: "15"}), "2 bytes come after the last output"),
        (rubbish_http(b"{}", **{rest.HEADER_LENGTH: "100"}), "Inference-Header-Content-Length 100 is more than"),
        (rubbish_http(b"{}", **{rest.HEADER_LENGTH: "x"}), "Inference-Header-Content-Length 'x' is no number"),
        (rubbish_http(b"{}", **{"Content-Encoding": "gzip"}), "it is compressed, which was not asked for"),
        (rubbish_http(bytes(20_000_001)), "20000001 bytes are over the limit of 20000000"),
        (lambda request: response(request, y=np.zeros((2, 3), np.float32)), "has the shape [2, 3] for 1 samples"),
        (lambda request: response(request, y=np.zeros((1, 4), np.float32)), "expected FP32 [-1, 3], got FP32 [1, 4]"),
        (lambda request: response(request, y=np.zeros((1, 3))), "expected FP32 [-1, 3], got FP64 [1, 3]"),
        (lambda request: response(request, z=np.zeros((1, 3), np.float32)), "output 'y' is missing"),
    ],
)
async def test_an_http_answer_that_cannot_be_used_is_the_ops_error(answer: Any, words: str) -> None:
    error = await outcome("http", answer, max_answer_mb=20)
    assert isinstance(error, OpError)
    assert words in error.message


async def test_an_http_answer_without_a_length_is_bounded_too() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"%x\r\n%s\r\n" % (100_000, bytes(100_000)))
            await writer.drain()

    async with tcp(serve) as port:
        connection = await _connection(f"http://127.0.0.1:{port}", max_answer_nbytes=1_000_000)
        with pytest.raises(OpError, match="it is over the limit of 1000000 bytes"):
            await connection.infer(REQUEST, 5, binary=True)
        await connection.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\xff", "the message is "),
        (b"", "output 'y' is missing"),
        (message("ModelInferResponse")(raw_output_contents=[b"1"]).SerializeToString(), "raw contents of 1"),
        (bytes(20_000_001), "20000001 bytes are over the limit of 20000000"),
        (grpc.encode_response(InferResponse((InferTensor("y", "FP32", np.zeros((2, 3), "<f4")),))), "for 1 samples"),
        (grpc.encode_response(InferResponse((InferTensor("y", "INT8", np.zeros((1, 3), "i1")),))), "got INT8 [1, 3]"),
    ],
)  # fmt: skip
async def test_a_grpc_answer_that_cannot_be_used_is_the_ops_error(answer: bytes, words: str) -> None:
    error = await outcome("grpc", lambda request: answer, max_answer_mb=20)
    assert isinstance(error, OpError)
    assert words in error.message


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        (b"\x01\x00\x00\x00\x01x", "it is compressed, which was not asked for"),
        (b"\x00\xff\xff\xff\xffx", "4294967295 bytes are over the limit of 64000000"),
        (b"\x00\x00\x00\x00\x05x", "it is cut off"),
        (b"\x00\x00", "it is cut off"),
    ],
)
async def test_a_grpc_frame_that_cannot_be_used_is_the_ops_error(prefix: bytes, words: str) -> None:
    async def infer(data: bytes, stream: Any) -> bytes:
        await stream.send_initial_metadata()
        await stream._stream.send_data(prefix, end_stream=True)
        return b""

    async with grpc_handlers({}, {"ModelInfer": infer}) as url:
        connection = await _connection(url)
        with pytest.raises(OpError, match=words):
            await connection.infer(REQUEST, 5, binary=True)
        await connection.close()


async def test_a_redirect_is_not_followed() -> None:
    served = ModelServer(
        answer=lambda request: web.Response(status=307, headers={"Location": "/v2/models/scores/infer"})
    )
    async with http(served), engine_of(served.url) as engine:
        with pytest.raises(OpError, match="remote model 'scores' failed"):
            await engine.submit(X)
    assert len(served.requests) == 1


# -- broken off


@both_wires
async def test_a_server_that_leaves_in_the_middle_is_unavailable(wire: str) -> None:
    async def answer(request: InferRequest) -> InferResponse:
        for connection in served.connections:
            if wire == "http":
                connection.abort()
            else:
                connection._transport.abort()
        return doubled(request)

    served = ModelServer(answer=answer)
    async with WIRES[wire](served), engine_of(served.url) as engine:
        with pytest.raises(Unavailable, match="remote model 'scores' broke off before its answer was complete"):
            await engine.submit(X)
        assert len(served.requests) == 1  # it may have been run: it is not sent again
        served.answer = doubled
        await _rested(engine)
        assert (await engine.submit(X)).tolist() == [2, 4, 6]


async def test_half_an_answer_is_none() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()

    async with tcp(serve) as port:
        connection = await _connection(f"http://127.0.0.1:{port}")
        with pytest.raises(Unavailable, match="broke off"):
            await connection.infer(REQUEST, 5, binary=True)
        await connection.close()


@both_wires
async def test_a_server_that_is_too_slow_is_not_waited_for(wire: str) -> None:
    gone = asyncio.Event()

    async def answer(request: InferRequest) -> InferResponse:
        try:
            await asyncio.sleep(60)
        finally:
            gone.set()
        return doubled(request)

    served = ModelServer(answer=answer)
    async with WIRES[wire](served), engine_of(served.url) as engine:
        pool = pool_of(engine)
        with pytest.raises(DeadlineExceeded, match="remote model 'scores' did not answer within 100 ms"):
            await pool.infer(REQUEST, 0.1)
        if wire == "grpc":  # which tells the server, while aiohttp's would only notice at its next read
            async with asyncio.timeout(5):
                await gone.wait()
        assert pool.statistics().outstanding == {served.url: 0}


@both_wires
async def test_a_cancel_stays_a_cancel(wire: str) -> None:
    async def answer(request: InferRequest) -> InferResponse:
        await asyncio.sleep(60)
        return doubled(request)

    served = ModelServer(answer=answer)
    async with WIRES[wire](served), engine_of(served.url) as engine:
        pool = pool_of(engine)
        asked = asyncio.ensure_future(pool.infer(REQUEST, 10))
        await served.until(1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        statistics = pool.statistics()
    assert (statistics.outstanding, statistics.resting) == ({served.url: 0}, ())


async def test_a_cancel_that_meets_the_end_of_the_connection_stays_a_cancel() -> None:
    async def answer(request: InferRequest) -> InferResponse:
        await asyncio.sleep(60)
        return doubled(request)

    served = ModelServer(answer=answer)
    async with grpc_server(served), engine_of(served.url) as engine:
        pool = pool_of(engine)
        asked = asyncio.ensure_future(pool.infer(REQUEST, 10))
        await served.until(1)
        asked.cancel()
        (connection,) = pool._connections.values()
        connection._peer._channel._protocol.processor.close()  # type: ignore[attr-defined]  # as when it is lost
        with pytest.raises(asyncio.CancelledError):
            await asked


async def test_a_call_that_grpclib_ends_leaves_the_callers_timeouts_alone() -> None:
    """It ends one by cancelling the task in which it runs, and leaves it counted as cancelled."""

    async def answer(request: InferRequest) -> InferResponse:
        for connection in served.connections:
            connection._transport.abort()
        return doubled(request)

    served = ModelServer(answer=answer)
    async with grpc_server(served), engine_of(served.url) as engine:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                with pytest.raises(Unavailable, match="broke off"):
                    await pool_of(engine).infer(REQUEST, 10)
                await asyncio.sleep(60)


@both_wires
async def test_an_op_that_is_closed_while_it_asks_lets_go(wire: str) -> None:
    async def answer(request: InferRequest) -> InferResponse:
        await asyncio.sleep(60)
        return doubled(request)

    served = ModelServer(answer=answer)
    async with WIRES[wire](served):
        async with engine_of(served.url) as engine:
            asked = asyncio.ensure_future(engine.submit(X))
            await served.until(1)
            await engine.close()
            with pytest.raises(RequestError):
                await asked
            assert pool_of(engine).statistics().outstanding == {served.url: 0}


# -- other endpoints


@both_wires
async def test_a_request_that_was_refused_goes_to_another_endpoint(wire: str, long_rests: None) -> None:
    def refuse(request: InferRequest) -> InferResponse:
        raise Failure(503 if wire == "http" else Status.UNAVAILABLE, "full")

    async with WIRES[wire](ModelServer(answer=refuse)) as full, WIRES[wire]() as served:
        async with engine_of(full.url, served.url) as engine:
            for _ in range(3):
                assert (await engine.submit(X)).tolist() == [2, 4, 6]
            statistics = pool_of(engine).statistics()
    assert (statistics.requests, statistics.retries, statistics.resting) == (3, 1, (full.url,))
    assert len(full.requests) == 1


@pytest.mark.parametrize("scheme", WIRES)
async def test_a_request_to_an_endpoint_that_went_down_goes_to_another(scheme: str, long_rests: None) -> None:
    async with WIRES[scheme]() as served:
        async with WIRES[scheme]() as falls:
            engine = Engine(Graph("g", Remote([falls.url, served.url], "scores", Request(), outputs="y")))
            await engine.start()
        for _ in range(3):
            assert (await engine.submit(X)).tolist() == [2, 4, 6]
        assert pool_of(engine).statistics().resting == (falls.url,)
        await engine.close()


async def test_only_a_tenth_of_the_requests_is_sent_again() -> None:
    def refuse(request: InferRequest) -> InferResponse:
        raise Failure(503)

    one, two = ModelServer(answer=refuse), ModelServer(answer=refuse)
    async with http(one), http(two), engine_of(one.url, two.url) as engine:
        for _ in range(30):
            await _rested(engine)
            with pytest.raises(Unavailable, match="is not available"):
                await engine.submit(X)
        assert pool_of(engine).statistics().retries <= 1 + 30 / 10
    assert len(one.requests) + len(two.requests) == 30 + pool_of(engine).statistics().retries


@pytest.mark.parametrize("status", [400, 500, 504])
async def test_what_may_have_been_run_is_not_sent_again(status: int) -> None:
    def fail(request: InferRequest) -> InferResponse:
        raise Failure(status)

    one, two = ModelServer(answer=fail), ModelServer(answer=fail)
    async with http(one), http(two), engine_of(one.url, two.url) as engine:
        with pytest.raises(RequestError):
            await engine.submit(X)
    assert len(one.requests) + len(two.requests) == 1


async def test_where_all_endpoints_failed_a_request_is_refused_at_once(long_rests: None) -> None:
    def refuse(request: InferRequest) -> InferResponse:
        raise Failure(503)

    async with http(ModelServer(answer=refuse)) as served, engine_of(served.url) as engine:
        for _ in range(2):
            with pytest.raises(Unavailable) as error:
                await engine.submit(X)
        assert error.value.message.endswith("is not available: its endpoints failed and are left alone")
        assert error.value.retry_after_s == 10
        assert len(served.requests) == 1


async def test_why_an_endpoint_is_left_alone_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(request: InferRequest) -> InferResponse:
        raise Failure(503, "full")

    with caplog.at_level(logging.WARNING, "asyncline.client"):
        async with http(ModelServer(answer=refuse)) as served, engine_of(served.url) as engine:
            with pytest.raises(Unavailable):
                await engine.submit(X)
    reason = "remote model 'scores' is not available: full"
    assert caplog.messages == [f"server {served.url} is left alone for 0.1 s: {reason}"]


@pytest.mark.parametrize("between", [None, 500])
async def test_an_answer_of_any_kind_ends_the_row_of_failures(
    between: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = iter([503, between, 503])

    def answer(request: InferRequest) -> InferResponse:
        status = next(outcomes)
        if status is not None:
            raise Failure(status)
        return doubled(request)

    with caplog.at_level(logging.WARNING, "asyncline.client"):
        async with http(ModelServer(answer=answer)) as served, engine_of(served.url) as engine:
            for _ in range(3):
                await _rested(engine)
                await asyncio.gather(engine.submit(X), return_exceptions=True)
    assert [" for 0.1 s: " in text for text in caplog.messages] == [True, True]


@both_wires
async def test_where_a_batch_makes_several_requests_one_that_fails_leaves_the_others(wire: str) -> None:
    def answer(request: InferRequest) -> InferResponse:
        if request.inputs[0].array.min() < 0:
            raise Failure(400 if wire == "http" else Status.INVALID_ARGUMENT, "below 0")
        return doubled(request)

    served = ModelServer(answer=answer, max_batch_size=2)
    async with WIRES[wire](served), engine_of(served.url) as engine:
        (first, *_) = engine.runners[0].replicas
        results = await first._op.process([X, X, X, -X, X])  # type: ignore[attr-defined]
    kinds = [type(result) for result in results]
    assert kinds == [np.ndarray, np.ndarray, BadRequest, BadRequest, np.ndarray]
    assert results[2] is not results[3]


@both_wires
async def test_a_sample_that_the_remote_refuses_fails_alone(wire: str) -> None:
    def answer(request: InferRequest) -> InferResponse:
        if request.inputs[0].array.min() < 0:
            raise Failure(400 if wire == "http" else Status.INVALID_ARGUMENT, "below 0")
        return doubled(request)

    served = ModelServer(answer=answer)
    async with WIRES[wire](served), engine_of(served.url, batch_size=8, concurrency=1) as engine:
        values = [X, X, X, -X, X]
        found = await asyncio.gather(*map(engine.submit, values), return_exceptions=True)
    assert [type(each) for each in found] == [np.ndarray, np.ndarray, np.ndarray, BadRequest, np.ndarray]


@both_wires
async def test_a_batch_is_not_tried_in_parts_where_the_endpoint_is_at_fault(wire: str) -> None:
    def refuse(request: InferRequest) -> InferResponse:
        raise Failure(503 if wire == "http" else Status.UNAVAILABLE)

    served = ModelServer(answer=refuse)
    async with WIRES[wire](served), engine_of(served.url) as engine:
        results = await engine.runners[0].replicas[0]._op.process([X, X])  # type: ignore[attr-defined]
        assert pool_of(engine).statistics().requests == 1
    assert [type(result).__name__ for result in results] == ["Refused", "Refused"]
    assert results[0] is not results[1]


async def test_the_models_own_errors_do_not_count_against_an_endpoint() -> None:
    def fail(request: InferRequest) -> InferResponse:
        raise Failure(500)

    async with http(ModelServer(answer=fail)) as served, engine_of(served.url) as engine:
        for _ in range(3):
            with pytest.raises(OpError, match="remote model 'scores' failed"):
                await engine.submit(X)
    assert len(served.requests) == 3


@both_wires
async def test_what_a_client_reads_names_no_endpoint(wire: str) -> None:
    async with WIRES[wire]() as served, engine_of(served.url) as engine:
        port = served.url.rpartition(":")[2]
        served.answer = lambda request: InferResponse(())
        with pytest.raises(OpError) as error:
            await engine.submit(X)
        assert port not in error.value.message


# -- for these tests


def _until_eof(serve: Serve) -> Serve:
    async def wrapped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except asyncio.IncompleteReadError:
            pass

    return wrapped


async def _connection(url: str, max_answer_nbytes: int = 64_000_000) -> client_base.Connection:
    pool = Pool("scores", "", [client_base.Address.parse(url)], {}, max_answer_nbytes)
    return await pool._connect(client_base.Address.parse(url))


async def _rested(engine: Engine) -> None:
    """Let the time pass for which endpoints are left alone."""
    for endpoint in pool_of(engine)._endpoints.all:
        endpoint.rests_until = 0.0
