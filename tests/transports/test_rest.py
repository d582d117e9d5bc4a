"""REST over a real socket, in this process: what clients may send, and what they get for what they should not."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgpack
import numpy as np
import pytest
from pydantic import BaseModel

from asyncline import (
    BadImage,
    Each,
    Engine,
    FetchFailed,
    Graph,
    Image,
    Json,
    Op,
    OpError,
    ProductError,
    Reply,
    Request,
    Tensor,
    Text,
    UrlForbidden,
    context,
    op,
)
from asyncline.observe.prometheus import Metrics
from asyncline.observe.statistics import Statistics
from asyncline.settings import Source, merge
from asyncline.transports.rest.answer import STATUSES
from asyncline.transports.rest.example import curl
from asyncline.transports.rest.transport import RestTransport


class Client:
    """A client of one served graph, and the Engine behind it."""

    def __init__(self, session: aiohttp.ClientSession, engine: Engine, transport: RestTransport) -> None:
        self.session = session
        self.engine = engine
        self.transport = transport
        self.path = f"/{engine.graph.name}"

    async def post(self, path: str | None = None, **kwargs: Any) -> Answer:
        async with self.session.post(self.transport.address + (path or self.path), **kwargs) as response:
            return Answer(response.status, await response.read(), response.headers.copy())

    async def get(self, path: str, **kwargs: Any) -> Answer:
        async with self.session.get(self.transport.address + path, **kwargs) as response:
            return Answer(response.status, await response.read(), response.headers.copy())

    async def raw(self, data: bytes) -> bytes:
        """Send bytes, read until the server closes."""
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(data)
        got = await reader.read()
        writer.close()
        await writer.wait_closed()
        return got

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.transport.address.removeprefix("http://").partition(":")
        return host, int(port)


class Answer:
    def __init__(self, status: int, body: bytes, headers: Any) -> None:
        self.status = status
        self.body = body
        self.headers = headers

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str | int]:
        assert set(self.json) == {"code", "message", "request_id"}
        assert len(self.body) <= 512 and self.headers["Content-Type"] == "application/json"
        return self.status, self.json["code"]


@asynccontextmanager
async def serving(graph: Graph, **service: Any) -> AsyncIterator[Client]:
    written = {"service": {"http_port": 0, **service}, "dag": {"cpu_threads": 2}}
    settings = merge(graph.name, {o.name: o.code_settings for o in graph.ops}, Source("test", written))
    engine = Engine(graph, settings)
    statistics = Statistics(engine)
    engine.hooks.add(statistics)
    transport = RestTransport(engine, settings.service, Metrics(engine, statistics).render)
    await transport.start()
    async with engine, aiohttp.ClientSession() as session:
        yield Client(session, engine, transport)
        assert engine.admission.in_flight == 0 and engine.admission.nbytes == 0
    transport.close()
    await transport.wait_closed()


def one_op(function: Callable[..., Any], request: Request | None = None, *fields: str) -> Graph:
    request = request or Request()
    kind = op(cpu="inline")(function)
    return Graph("test", kind(*(getattr(request, field) for field in fields) if fields else (request,)))


def echo(value: Any) -> Any:
    return value


def size(image: bytes) -> int:
    return len(image)


def image_graph() -> Graph:
    return one_op(size, Request(image=Image(max_mb=0.001)), "image")


# -- answers --------------------------------------------------------------------------------------------


async def test_json_in_json_out_with_ids_and_timing() -> None:
    async with serving(one_op(echo)) as client:
        answer = await client.post(json={"a": [1, 2.5, None]}, headers={"X-Log-Id": "order-7"})
        assert (answer.status, answer.json) == (200, {"a": [1, 2.5, None]})
        assert answer.headers["X-Data-Id"] == "1" and answer.headers["X-Log-Id"] == "order-7"
        timing = answer.headers["Server-Timing"]
        assert timing.startswith("echo.wait;dur=") and "echo.pre;dur=" in timing and "total;dur=" in timing
        assert (await client.post(json=1)).headers["X-Data-Id"] == "2"


async def test_arrays_and_bytes_have_a_json_form() -> None:
    def answer(value: Any) -> Any:
        return {"a": np.arange(4, dtype=np.int16).reshape(2, 2).T, "b": b"xy", "c": np.float32(0.5), "d": (1, 2)}

    async with serving(one_op(answer)) as client:
        assert (await client.post(json=0)).json == {"a": [[0, 2], [1, 3]], "b": "eHk=", "c": 0.5, "d": [1, 2]}


async def test_msgpack_in_and_out() -> None:
    async with serving(one_op(echo)) as client:
        answer = await client.post(
            data=msgpack.packb({"raw": b"\x00\xff"}),
            headers={"Content-Type": "application/msgpack", "Accept": "application/msgpack"},
        )
        assert answer.headers["Content-Type"] == "application/msgpack"
        assert msgpack.unpackb(answer.body) == {"raw": b"\x00\xff"}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"12345", "image/jpeg"),
        (b"12345", "image/png"),
        (b"12345", "application/octet-stream"),
        (json.dumps({"image": b64encode(b"12345").decode()}).encode(), "application/json"),
        (json.dumps({"image": b64encode(b"12345").decode()}).encode(), "application/json; charset=utf-8"),
        (msgpack.packb({"image": b"12345"}), "application/msgpack"),
    ],
)
async def test_an_image_may_come_in_many_ways(data: bytes, kind: str) -> None:
    async with serving(image_graph()) as client:
        answer = await client.post(data=data, headers={"Content-Type": kind})
        assert (answer.status, answer.json) == (200, 5)


async def test_a_form_carries_files_texts_and_json() -> None:
    request = Request(image=Image(), note=Text(), numbers=Json(list[int]))

    def fields(image: bytes, note: str, numbers: list[int]) -> Any:
        return [len(image), note, sum(numbers)]

    async with serving(one_op(fields, request, "image", "note", "numbers")) as client:
        form = aiohttp.FormData()
        form.add_field("image", b"123", filename="x.jpg")
        form.add_field("note", "grüße")
        form.add_field("numbers", "[1, 2]")
        assert (await client.post(data=form)).json == [3, "grüße", 3]


async def test_a_bare_request_takes_text_and_bytes() -> None:
    async with serving(one_op(echo)) as client:
        assert (await client.post(data="hello")).json == "hello"
        assert (await client.post(data=b"hey", headers={"Content-Type": "image/jpeg"})).json == "aGV5"


async def test_a_tensor_and_defaults() -> None:
    request = Request(x=Tensor("FP32", [-1, 2]), scale=Json(float, default=10.0))

    def scaled(x: np.ndarray[Any, Any], scale: float) -> Any:
        assert x.dtype == np.float32
        return x * scale

    async with serving(one_op(scaled, request, "x", "scale")) as client:
        assert (await client.post(json={"x": [[1, 2], [3, 4]]})).json == [[10, 20], [30, 40]]
        assert (await client.post(json={"x": [[1, 2]], "scale": 2})).json == [[2, 4]]
        assert (await client.post(json={"x": [1, 2, 3]})).error == (400, "bad_request")


async def test_a_trace_context_and_ids_reach_the_hooks() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    def see(value: Any) -> Any:
        here = context()
        return [here.traceparent, here.log_id, here.remaining_s < 3]

    async with serving(one_op(see)) as client:
        headers = {"traceparent": trace, "X-Log-Id": "a b", "X-Timeout-Ms": "3000"}
        assert (await client.post(json=0, headers=headers)).json == [trace, "a b", True]
        assert (await client.post(json=0, headers={"traceparent": "rubbish"})).json == [None, "", False]


async def test_pipelined_requests_are_answered_in_order_and_http_1_0_is_closed() -> None:
    async with serving(one_op(echo)) as client:
        head = "POST /test HTTP/1.{} \r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1\r\n{}\r\n{}"
        first, second = (head.format(1, "", n).replace(" \r", "\r") for n in (1, 2))
        last = head.format(0, "", 3).replace(" \r", "\r")
        got = (await client.raw((first + second + last).encode())).decode()
        assert got.count("HTTP/1.1 200 OK") == 3
        assert [part.partition("\r\n\r\n")[2][0] for part in got.split("HTTP/1.1 200 OK")[1:]] == ["1", "2", "3"]
        assert got.count("Connection: close") == 1


async def test_curl_waits_for_a_100_continue() -> None:
    async with serving(image_graph()) as client:
        reader, writer = await asyncio.open_connection(*client.address)
        writer.write(b"POST /test HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()


# -- the client's faults --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "kind", "outcome", "says"),
    [
        (b'{"image": ', "application/json", (400, "bad_request"), "the body is no JSON"),
        (b"", "application/json", (400, "bad_request"), "the body is empty"),
        (b"", "image/jpeg", (400, "bad_request"), "the image is empty"),
        (b"[1]", "application/json", (400, "bad_request"), "expected an object with image"),
        (b"{}", "application/json", (400, "bad_request"), "field 'image' is missing"),
        (b'{"image": 5}', "application/json", (400, "bad_request"), "field 'image': expected the bytes"),
        (b'{"image": "*"}', "application/json", (400, "bad_request"), "field 'image': expected base64"),
        (b'{"image": "http://x/y"}', "application/json", (400, "bad_request"), "got a URL"),
        (b'{"image": "YQ==", "colour": 1}', "application/json", (400, "bad_request"), "no field 'colour'"),
        (b"\xc1", "application/msgpack", (400, "bad_request"), "the body is no msgpack"),
        (b"x" * 2000, "image/jpeg", (413, "too_large"), "over the limit of 0.001 MB"),
        (b"a=b", "application/x-www-form-urlencoded", (415, "unsupported"), "send application/json"),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x", (400, "bad_request"), "form"),
        (b"nothing", "multipart/form-data", (400, "bad_request"), "form is malformed"),
    ],
)
async def test_what_does_not_fit_is_named(data: bytes, kind: str, outcome: tuple[int, str], says: str) -> None:
    async with serving(image_graph()) as client:
        answer = await client.post(data=data, headers={"Content-Type": kind})
        assert answer.error == outcome
        assert says in answer.json["message"]
        assert (await client.post(data=b"1", headers={"Content-Type": "image/png"})).status == 200


@pytest.mark.parametrize("value", ["soon", "-1", "0", "1.5", "9" * 30])
async def test_a_timeout_that_is_no_number_is_refused(value: str) -> None:
    async with serving(one_op(echo)) as client:
        answer = await client.post(json=1, headers={"X-Timeout-Ms": value})
        assert answer.error == (400, "bad_request") and "X-Timeout-Ms" in answer.json["message"]


async def test_a_log_id_that_is_too_long_is_refused() -> None:
    async with serving(one_op(echo)) as client:
        assert (await client.post(json=1, headers={"X-Log-Id": "x" * 200})).error == (400, "bad_request")


async def test_an_unknown_graph_and_wrong_methods() -> None:
    async with serving(one_op(echo)) as client:
        answer = await client.post("/nope", json=1)
        assert answer.error == (404, "not_found") and "there is: test" in answer.json["message"]
        answer = await client.get("/test")
        assert answer.error == (405, "method_not_allowed") and answer.headers["Allow"] == "POST"
        assert (await client.get("/nope")).error == (404, "not_found")
        assert (await client.post("/healthz")).error == (405, "method_not_allowed")


async def test_a_declared_body_over_the_limit_is_refused_before_it_is_read() -> None:
    async with serving(one_op(echo), max_body_mb=0.001) as client:
        got = await client.raw(b"POST /test HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        assert b"413 Request Entity Too Large" in got and b'"too_large"' in got and b"Connection: close" in got


async def test_a_chunked_body_over_the_limit_is_refused() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 500

    async with serving(one_op(echo), max_body_mb=0.001) as client:
        assert (await client.post(data=chunks())).error == (413, "too_large")


async def test_a_chunked_body_within_the_limit_is_fine() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"[1,"
        yield b"2]"

    async with serving(one_op(echo)) as client:
        assert (await client.post(data=chunks(), headers={"Content-Type": "application/json"})).json == [1, 2]


async def test_a_body_that_stops_arriving_is_given_up() -> None:
    async with serving(one_op(echo), body_timeout_s=0.05) as client:
        got = await client.raw(b"POST /test HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n12")
        assert b"408 Request Timeout" in got and b'"slow_client"' in got


async def test_a_malformed_head_does_not_hurt_others() -> None:
    async with serving(one_op(echo)) as client:
        assert b"400 Bad Request" in await client.raw(b"NONSENSE\r\n\r\n")
        assert (await client.post(json=1)).status == 200


# -- the graph's faults ---------------------------------------------------------------------------------


def raising(error: Exception) -> Callable[[Any], Any]:
    def fail(value: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "outcome", "message"),
    [
        (
            ValueError("bad /srv/models/x.onnx here"),
            (500, "op_error"),
            "op 'fail' preprocess: ValueError: bad <path> here",
        ),
        (BadImage("no image"), (422, "bad_image"), "op 'fail' preprocess: no image"),
        (UrlForbidden(), (422, "url_forbidden"), f"op 'fail' preprocess: {UrlForbidden()}"),
        (FetchFailed("too slow"), (422, "fetch_failed"), "op 'fail' preprocess: too slow"),
        (ProductError(1001, "no such customer"), (422, 1001), "no such customer"),
        (OpError("x" * 5000), (500, "op_error"), "op 'fail' preprocess: " + "x" * 375 + "..."),
    ],
)
async def test_what_an_op_raises_becomes_a_json_error(error: Exception, outcome: Any, message: str) -> None:
    async with serving(one_op(raising(error))) as client:
        answer = await client.post(json=1)
        assert answer.error == outcome and answer.json["message"] == message
        assert answer.json["request_id"] == answer.headers["X-Data-Id"] == "1"
        assert "Server-Timing" in answer.headers


async def test_an_answer_that_json_cannot_carry_is_the_graphs_fault() -> None:
    async with serving(one_op(lambda value: object())) as client:
        answer = await client.post(json=1)
        assert answer.error == (500, "op_error") and "object" in answer.json["message"]


async def test_a_reply_is_the_answer() -> None:
    async with serving(one_op(lambda value: Reply({"early": value}))) as client:
        assert (await client.post(json=1)).json == {"early": 1}


class Gate(Op):
    """Holds requests until a test opens it."""

    concurrency = 100

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


async def test_a_deadline_that_passes_is_a_504() -> None:
    async with serving(Graph("test", Gate(Request()))) as client:
        answer = await client.post(json=1, headers={"X-Timeout-Ms": "30"})
        assert answer.error == (504, "deadline")
        assert answer.json["message"] == "the deadline of 30 ms passed in op 'gate'"


async def test_the_surplus_is_refused_with_retry_after_and_the_rest_is_served() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate), max_in_flight=3) as client:
        calls = [asyncio.create_task(client.post(json=n)) for n in range(3)]
        for _ in calls:
            await gate.entered.acquire()
        refused = await client.post(json=9)
        assert refused.error == (503, "overloaded") and int(refused.headers["Retry-After"]) >= 1
        gate.open.set()
        assert [(await call).json for call in calls] == [0, 1, 2]
        metrics = (await client.get("/metrics")).body.decode()
        assert 'asyncline_rejected_total{reason="overloaded"} 1.0' in metrics


async def test_a_client_that_leaves_while_its_request_runs_cancels_it() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate)) as client:
        _, writer = await asyncio.open_connection(*client.address)
        writer.write(b"POST /test HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n1")
        await gate.entered.acquire()
        writer.close()
        await gate.left.acquire()
        await writer.wait_closed()
        assert client.engine.admission.in_flight == 0
        gate.open.set()
        assert (await client.post(json=2)).json == 2


async def test_a_client_that_leaves_while_queued_is_never_run() -> None:
    gate = Gate(Request(), concurrency=1)
    async with serving(Graph("test", gate)) as client:
        first = asyncio.create_task(client.post(json=1))
        await gate.entered.acquire()
        second = asyncio.create_task(client.post(json=2))
        while client.engine.statistics().channels["gate"].depth < 1:  # noqa: ASYNC110  # no event tells of a queue
            await asyncio.sleep(0)
        second.cancel()
        while client.engine.admission.in_flight > 1:  # noqa: ASYNC110  # nor of a client's end
            await asyncio.sleep(0)
        gate.open.set()
        assert (await first).json == 1
        assert (await client.post(json=3)).json == 3
        metrics = (await client.get("/metrics")).body.decode()
        assert 'asyncline_requests_total{code="cancelled"} 1.0' in metrics
        assert 'asyncline_op_seconds_count{op="gate",stage="pre"} 2.0' in metrics


async def test_a_worker_crash_is_a_500_with_its_own_code() -> None:
    from tests.engine.pool_ops import Busy

    async with serving(Graph("test", Busy(Request(), cpu="process"))) as client:
        assert (await client.post(json=["kill", None])).error == (500, "worker_crashed")
        assert (await client.post(json=["add", 1])).json == 1
        assert "asyncline_workers_lost_total 1.0" in (await client.get("/metrics")).body.decode()


async def test_draining_refuses_and_closes_connections() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate)) as client:
        address = client.address
        running = asyncio.create_task(client.post(json=1))
        await gate.entered.acquire()
        client.transport.close()
        draining = asyncio.create_task(client.engine.drain(20))
        await asyncio.sleep(0)
        with pytest.raises(OSError):
            await asyncio.open_connection(*address)
        gate.open.set()
        answer = await running
        assert answer.json == 1 and answer.headers["Connection"] == "close"
        assert await draining


# -- pages ----------------------------------------------------------------------------------------------


async def test_health_ready_index_and_docs() -> None:
    async with serving(image_graph()) as client:
        assert (await client.get("/healthz")).json == {"status": "ok"}
        assert (await client.get("/readyz")).json == {"status": "ready"}
        index = (await client.get("/")).body.decode()
        assert "POST /test" in index and "/openapi.json" in index
        docs = await client.get("/docs")
        assert docs.headers["Content-Type"].startswith("text/html")
        assert b"//cdn" not in docs.body and b'src="http' not in docs.body
        async with client.session.head(client.transport.address + "/healthz") as head:
            assert head.status == 200 and await head.read() == b""


async def test_a_server_that_is_starting_is_alive_but_not_ready() -> None:
    graph = one_op(echo)
    engine = Engine(graph)
    settings = merge(graph.name, {"echo": {}}, Source("test", {"service": {"http_port": 0}}))
    transport = RestTransport(engine, settings.service, lambda: b"")
    await transport.start()
    async with aiohttp.ClientSession() as session:
        client = Client(session, engine, transport)
        assert (await client.get("/healthz")).status == 200
        answer = await client.get("/readyz")
        assert answer.status == 503 and answer.json == {"status": "not ready", "reason": "new"}
        answer = await client.post(json=1)
        assert answer.error == (503, "unavailable") and answer.headers["Retry-After"] == "1"
    transport.close()
    await transport.wait_closed()


async def test_metrics_count_what_happened() -> None:
    class Doubled(Op):
        cpu = "inline"

        def preprocess(self, values: list[int]) -> Each:
            return Each(values)

        def process(self, batch: list[int]) -> list[int]:
            return [2 * n for n in batch]

    async with serving(Graph("test", Doubled(Request(), batch_size=8))) as client:
        for _ in range(3):
            await client.post(json=[1, 2, 3, 4])
        await client.post(json=["x", None])
        text = (await client.get("/metrics")).body.decode()
        for line in (
            'asyncline_requests_total{code="ok"} 3.0',
            'asyncline_requests_total{code="op_error"} 1.0',
            'asyncline_op_errors_total{code="op_error",op="doubled"} 1.0',
            'asyncline_op_seconds_count{op="doubled",stage="mid"} 3.0',
            "asyncline_request_seconds_count 4.0",
            'asyncline_batch_size_count{op="doubled"} 6.0',  # the bad one, and its halves
            'asyncline_batch_size_sum{op="doubled"} 16.0',
            "asyncline_in_flight 0.0",
            "asyncline_ready 1.0",
        ):
            assert line in text


class Options(BaseModel):
    deep: bool = False


async def test_openapi_describes_fields_errors_and_bodies() -> None:
    request = Request(image=Image(description="a page"), options=Json(Options, default=Options()))

    def run(image: bytes, options: Options) -> int:
        """Reads a page."""
        return len(image)

    async with serving(one_op(run, request, "image", "options"), auth_token="secret") as client:
        document = (await client.get("/openapi.json")).json
        operation = document["paths"]["/test"]["post"]
        assert operation["summary"] == "Reads a page."
        content = operation["requestBody"]["content"]
        assert set(content) == {
            "application/json", "application/msgpack", "multipart/form-data", "image/*", "application/octet-stream",
        }  # fmt: skip
        schema = content["application/json"]["schema"]
        assert schema["required"] == ["image"] and schema["properties"]["options"]["default"] == {"deep": False}
        assert {"400", "413", "422", "500", "503", "504"} <= set(operation["responses"])
        assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


async def test_a_token_guards_the_graph_and_the_metrics_only() -> None:
    async with serving(one_op(echo), auth_token="sesame") as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "sesame"}):
            answer = await client.post(json=1, headers=headers)
            assert answer.error == (401, "unauthenticated") and answer.headers["WWW-Authenticate"] == "Bearer"
        assert (await client.get("/metrics")).error == (401, "unauthenticated")
        assert (await client.post(json=1, headers={"Authorization": "Bearer sesame"})).json == 1
        assert (await client.get("/healthz")).status == 200
        assert "sesame" not in str(client.transport._settings)


def test_every_code_has_a_status_and_a_clients_fault_is_never_ours() -> None:
    from asyncline import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RequestError)]
    for kind in kinds:
        assert kind.code in STATUSES
        if (kind.__doc__ or "").startswith("Expected error"):
            assert STATUSES[str(kind.code)] < 500


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"image": Image(example="a b.jpg")},
            "curl -H 'Content-Type: image/jpeg' --data-binary '@a b.jpg' http://h:1/test",
        ),
        ({"text": Text()}, """curl -H 'Content-Type: application/json' -d '{"text":"hello"}' http://h:1/test"""),
        (
            {"image": Image(), "note": Text(example="it's")},
            """curl -F image=@photo.jpg -F 'note=it'"'"'s' http://h:1/test""",
        ),
        (
            {"x": Tensor("INT8", [2, -1])},
            """curl -H 'Content-Type: application/json' -d '{"x":[[0],[0]]}' http://h:1/test""",
        ),
    ],
)
def test_the_curl_line_sends_an_example(fields: dict[str, Any], line: str) -> None:
    request = Request(**fields)
    assert curl(one_op(lambda *values: 1, request, *fields), "http://h:1") == line


async def test_answers_that_are_arrays_are_counted_like_others() -> None:
    async with serving(one_op(lambda value: np.arange(5))) as client:
        for _ in range(3):
            assert (await client.post(json=1)).json == [0, 1, 2, 3, 4]
        assert 'asyncline_requests_total{code="ok"} 3.0' in (await client.get("/metrics")).body.decode()


async def test_odd_headers_are_the_clients_fault() -> None:
    async with serving(one_op(echo), auth_token="sesame") as client:
        got = await client.raw(b"POST /test HTTP/1.0\r\nAuthorization: Bearer \xff\r\nContent-Length: 1\r\n\r\n1")
        assert b"401 Unauthorized" in got
        headers = {"Authorization": "Bearer sesame", "X-Timeout-Ms": "0" * 12 + "1" * 400}
        assert (await client.post(json=1, headers=headers)).error == (400, "bad_request")


async def test_an_error_of_a_users_class_has_the_status_of_its_base() -> None:
    from asyncline import BadRequest

    class Teapot(BadRequest):
        code = "teapot"

    async with serving(one_op(raising(Teapot("short and stout")))) as client:
        assert (await client.post(json=1)).error == (400, "teapot")
