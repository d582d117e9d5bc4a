"""`POST /{name}/{method}` over a real socket: what Paddle's clients send to the gateway, and what they get from us."""

from __future__ import annotations

import asyncio
import json
import shlex
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from asyncline import (
    BadRequest,
    Graph,
    Image,
    Json,
    Op,
    ProductError,
    Request,
    Response,
    Tensor,
    Text,
    context,
    op,
)
from asyncline.transports.rest.example import curl
from asyncline.wire.paddle import PipelineError, PipelineRequest, PipelineResponse
from tests.transports.test_rest import Client, echo, one_op, serving

NO_SERVICE = {
    "err_no": 3002,
    "err_msg": "Failed to inference: Service name error.",
    "key": [],
    "value": [],
    "tensors": [],
}


def body(**values: str) -> bytes:
    return json.dumps({"key": list(values), "value": list(values.values())}).encode()


async def answers(client: Client, data: bytes, path: str = "/test/prediction") -> Any:
    """The five fields of an answer, of whatever outcome."""
    answer = await client.post(path, data=data)
    assert answer.status == 200 and answer.headers["Content-Type"] == "application/json", answer.body
    assert list(answer.json) == ["err_no", "err_msg", "key", "value", "tensors"]
    return answer.json


async def numbers(client: Client, data: bytes) -> tuple[int, str]:
    answer = await answers(client, data)
    assert answer["key"] == answer["value"] == answer["tensors"] == []
    return answer["err_no"], answer["err_msg"]


# -- the route


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "?"])
async def test_the_content_type_is_not_looked_at(kind: str | None) -> None:
    async with serving(one_op(lambda values: values)) as client:
        head = f"POST /test/prediction HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body(a='1'))}\r\n".encode()
        head += f"Content-Type: {kind}\r\n".encode() if kind else b""
        answer = await client.raw(head + b"Connection: close\r\n\r\n" + body(a="1"))
        assert answer.endswith(b'\r\n\r\n{"err_no":0,"err_msg":"","key":["a"],"value":["1"],"tensors":[]}')
        assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")


async def test_any_method_will_do_and_no_body_is_no_values() -> None:
    async with serving(one_op(len)) as client:
        assert (await answers(client, b"", "/test/whatever"))["value"] == ["0"]


async def test_another_service_is_refused_by_name() -> None:
    async with serving(one_op(echo)) as client:
        assert await answers(client, body(a="1"), "/ocr/prediction") == NO_SERVICE


@pytest.mark.parametrize("path", ["/test/", "//prediction", "//"])
async def test_an_empty_part_of_the_path_is_not_found(path: str) -> None:
    async with serving(one_op(echo)) as client:
        answer = await client.raw(f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 404 ") and b"Content-Type: text/plain; charset=utf-8" in answer
        assert answer.endswith(b"\r\n\r\nNot Found\n")


async def test_any_other_verb_is_not_allowed() -> None:
    async with serving(one_op(echo)) as client:
        answer = await client.get("/test/prediction")
        assert (answer.status, answer.body) == (405, b"Method Not Allowed\n")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8" and answer.headers["Allow"] == "POST"


@pytest.mark.parametrize("path", ["/v2/health", "/docs/x", "/a/b/c", "/test/prediction/"])
async def test_other_paths_are_the_servers_own(path: str) -> None:
    async with serving(one_op(echo)) as client:
        assert (await client.post(path, data=b"{}")).error == (404, "not_found")


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"key": "a"}', b'{"key": [1]}', b"[" * 100_000, b"image=abc"])
async def test_a_body_that_cannot_be_read_is_400_in_the_gateways_words(data: bytes) -> None:
    async with serving(one_op(echo)) as client:
        answer = await client.post("/test/prediction", data=data)
        said = answer.json
        assert answer.status == 400 and answer.headers["Content-Type"] == "application/json"
        assert list(said) == ["error", "code", "message", "details"]
        assert said["error"] == said["message"] and (said["code"], said["details"]) == (3, [])
        assert (await answers(client, b"{}"))["err_no"] == 0


async def test_a_refusal_at_the_door_is_an_error_of_http() -> None:
    async with serving(one_op(echo), auth_token="secret", max_body_mb=0.001) as client:
        answer = await client.post("/test/prediction", data=b"{}")
        assert (answer.status, answer.json["code"]) == (401, 16) and "WWW-Authenticate" in answer.headers
        token = {"Authorization": "Bearer secret"}
        answer = await client.post("/test/prediction", data=b" " * 1001, headers=token)
        assert (answer.status, answer.json["code"]) == (413, 8)
        packed = await client.post("/test/prediction", data=b"{}", headers={**token, "Content-Encoding": "br"})
        assert (packed.status, packed.json["code"]) == (415, 12)
        assert (await client.post("/test/prediction", data=b"{}", headers=token)).status == 200


async def test_overload_says_when_to_come_again() -> None:
    started, release = asyncio.Event(), asyncio.Event()

    class Wait(Op):
        async def preprocess(self, values: Any) -> str:
            started.set()
            await release.wait()
            return "done"

    async with serving(Graph("test", Wait(Request())), max_in_flight=1) as client:
        first = asyncio.ensure_future(answers(client, b"{}"))
        await started.wait()
        answer = await client.post("/test/prediction", data=b"{}")
        assert (answer.status, answer.json["code"]) == (503, 8) and int(answer.headers["Retry-After"]) >= 1
        release.set()
        assert (await first)["value"] == ["done"]


async def test_a_body_that_stops_is_408() -> None:
    async with serving(one_op(echo), body_timeout_s=0.05) as client:
        answer = await client.raw(b"POST /test/prediction HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408 ") and b'"code":1,' in answer


async def test_a_large_body_comes_in_pieces() -> None:
    async with serving(one_op(lambda values: str(len(values["image"])))) as client:
        assert (await answers(client, body(image="x" * 1_000_000)))["value"] == ["1000000"]


# -- values


async def test_values_become_the_fields_they_are_for() -> None:
    request = Request(
        image=Image(), note=Text(), settings=Json(dict[str, int]), x=Tensor("FP32", [-1, 2]), left=Text(default="none")
    )

    def seen(image: bytes, note: str, settings: Any, x: Any, left: str) -> Any:
        assert x.dtype == np.float32
        return {"image": image, "note": note, "settings": settings, "x": x, "left": left, "count": 3}

    async with serving(one_op(seen, request, "image", "note", "settings", "x", "left")) as client:
        image = b64encode(b"\xff\xd8").decode()
        printed = repr(np.array([[1, 2], [3.5, np.nan]], np.float32))
        answer = await answers(client, body(image=image, note="<é>", settings='{"a": 1}', x=printed))
        assert dict(zip(answer["key"], answer["value"], strict=True)) == {
            "image": image,
            "note": "<é>",
            "settings": '{"a":1}',
            "x": "array([[1.0, 2.0], [3.5, nan]], dtype=float32)",
            "left": "none",
            "count": "3",
        }
        assert answer["tensors"] == []


async def test_tensors_come_and_go() -> None:
    async with serving(one_op(lambda x: {"y": x * 2}, Request(x=Tensor("INT64", [-1])), "x")) as client:
        tensor = {"name": "x", "elem_type": 0, "int64_data": ["1", 2], "shape": [2], "lod": [0, 2]}
        answer = await answers(client, json.dumps({"tensors": [tensor]}).encode())
        assert (answer["key"], answer["value"]) == (["y"], ["array([2, 4])"])
        (given,) = answer["tensors"]
        assert (given["name"], given["elem_type"], given["int64_data"], given["shape"]) == ("y", 0, ["2", "4"], [2])


async def test_the_clients_question_for_timings_is_no_field() -> None:
    async with serving(one_op(echo, Request(a=Text()), "a")) as client:
        assert (await answers(client, body(**{"a": "1", "pipeline.profile": "1"})))["value"] == ["1"]


async def test_a_logid_is_the_log_id() -> None:
    async with serving(one_op(lambda values: context().log_id)) as client:
        for logid in ("10000", 10000):
            answer = await client.post("/test/prediction", data=json.dumps({"logid": logid}))
            assert answer.json["value"] == ["10000"] and answer.headers["X-Log-Id"] == "10000"
        assert (await answers(client, b"{}"))["value"] == [""]


@pytest.mark.parametrize(
    ("values", "number", "message"),
    [
        ({}, 5000, "field 'x' is missing"),
        ({"x": "[1]", "y": "1"}, 5000, "no field 'y' (declared: x, z)"),
        ({"x": "[1, 'a']"}, 5000, "field 'x': expected strings only"),
        ({"x": "exit()"}, 5000, "field 'x': expected an array as Python prints it, or nested lists"),
        ({"x": "[[1]]"}, 5000, "field 'x': expected shape [-1], got [1, 1]"),
        ({"x": "[1]", "z": "{"}, 5000, "field 'z': the body is no JSON"),
    ],
)
async def test_a_value_that_does_not_fit_its_field_is_named(values: dict[str, str], number: int, message: str) -> None:
    request = Request(x=Tensor("FP32", [-1]), z=Json(default=None))
    async with serving(one_op(lambda x, z: z, request, "x", "z")) as client:
        found = await numbers(client, body(**values))
        assert found[0] == number and found[1].startswith(message)


@pytest.mark.parametrize(
    "message",
    [
        {"key": ["a", "b"], "value": ["1"]},
        {"tensors": [{"name": "x", "elem_type": 1, "float_data": [1], "shape": [2]}]},
        {"tensors": [{"name": "x", "elem_type": 13, "byte_data": "gASVFAAAAAAAAACMBXBvc2l4"}]},
        {"tensors": [{"name": "x", "elem_type": 1, "shape": [2147483647, 2147483647]}]},
    ],
)
async def test_a_package_that_does_not_fit_together_is_8000(message: Any) -> None:
    async with serving(one_op(echo)) as client:
        assert (await numbers(client, json.dumps(message).encode()))[0] == 8000


# -- outcomes


@pytest.mark.parametrize(
    ("error", "number", "message"),
    [
        (ProductError(77, "no stock"), 77, "no stock"),
        (ProductError("sold", "no stock"), 50, "no stock"),
        (PipelineError(7000, "not a dict"), 7000, "op 'fails' preprocess: not a dict"),
        (BadRequest("no such page"), 5000, "op 'fails' preprocess: no such page"),
        (ValueError("/etc/passwd is wrong"), 10000, "op 'fails' preprocess: ValueError: <path> is wrong"),
    ],
)
async def test_an_error_is_its_number(error: Exception, number: int, message: str) -> None:
    def fails(values: Any) -> None:
        raise error

    async with serving(one_op(fails)) as client:
        assert await numbers(client, b"{}") == (number, message)


async def test_a_deadline_is_6000() -> None:
    class Hang(Op):
        async def preprocess(self, values: Any) -> None:
            await asyncio.Event().wait()

    async with serving(Graph("test", Hang(Request())), timeout_ms=20) as client:
        assert await numbers(client, b"{}") == (6000, "the deadline of 20 ms passed in op 'hang'")


@pytest.mark.parametrize("value", [object(), {"a": object()}, {"a": np.array([object()])}])
async def test_an_answer_that_has_no_text_is_7000(value: Any) -> None:
    async with serving(one_op(lambda values: value)) as client:
        assert (await numbers(client, b"{}"))[0] == 7000


# -- graphs that take the messages themselves


class Whole(Request):
    takes_pipeline = True

    def unpack(self, payload: PipelineRequest) -> PipelineRequest:
        return payload


class AsItIs(Response):
    def pack(self, outputs: Any) -> Any:
        return outputs[None]


def whole_graph(answer: PipelineResponse) -> Graph:
    @op(cpu="inline")
    def look(request: PipelineRequest) -> PipelineResponse:
        if not answer.value:
            answer.value.append(f"{request.method} {request.key} {request.logid} {request.clientip}")
        return answer

    return Graph("test", AsItIs(look(Whole())))


async def test_a_graph_may_take_the_request_and_give_the_response_as_they_are() -> None:
    async with serving(whole_graph(PipelineResponse(12, "why", ["k"]))) as client:
        data = {"key": ["a"], "value": ["1"], "logid": 7, "clientip": "10.0.0.1"}
        assert await answers(client, json.dumps(data).encode()) == {
            "err_no": 12,
            "err_msg": "why",
            "key": ["k"],
            "value": ["prediction ['a'] 7 10.0.0.1"],
            "tensors": [],
        }


async def test_the_line_to_paste_is_a_request_of_paddles() -> None:
    async with serving(whole_graph(PipelineResponse())) as client:
        command, _, data, url = shlex.split(curl(client.engine.graph, client.transport.address))
        assert command == "curl"
        answer = await answers(client, data.encode(), url.removeprefix(client.transport.address))
        assert answer["value"] == ["prediction ['text'] 0 "]


@pytest.mark.parametrize(
    "response",
    [
        PipelineResponse(value=[1]),  # type: ignore[list-item]
        PipelineResponse(key=[None], value=["1"]),  # type: ignore[list-item]
        PipelineResponse(err_no=2**31, value=["1"]),
        PipelineResponse(err_no="1", value=["1"]),  # type: ignore[arg-type]
        PipelineResponse(err_msg=b"1", value=["1"]),  # type: ignore[arg-type]
    ],
)
async def test_a_response_that_no_message_holds_is_7000(response: PipelineResponse) -> None:
    async with serving(whole_graph(response)) as client:
        assert (await numbers(client, b"{}"))[0] == 7000


@pytest.mark.parametrize(
    "parts, values",
    [
        (["Hel", "lo"], ['["Hel","lo"]']),
        ([{"n": 1, "x": np.arange(2)}, {"n": 2, "x": np.zeros(1)}], ['[{"n":1,"x":[0,1]},{"n":2,"x":[0.0]}]']),
        ([], ["[]"]),
    ],
    ids=["text", "objects", "none"],
)
async def test_the_answer_of_a_graph_that_streams_is_the_list_of_its_parts(parts: list[Any], values: list[str]) -> None:
    class Stream(Op):
        async def preprocess(self, value: Any) -> AsyncIterator[Any]:
            for part in parts:
                yield part

    async with serving(Graph("test", Stream(Request()))) as client:
        answer = await answers(client, body(a="1"))
        assert (answer["err_no"], answer["key"], answer["value"]) == (0, ["output"], values)


async def test_a_stream_that_fails_half_way_has_no_answer() -> None:
    class Fails(Op):
        async def preprocess(self, value: Any) -> AsyncIterator[Any]:
            yield 1
            raise ProductError(51, "half way")

    async with serving(Graph("test", Fails(Request()))) as client:
        assert await numbers(client, body(a="1")) == (51, "half way")
