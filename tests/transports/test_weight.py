"""What a request is decoded to is bounded, and is in flight as long as the request is, whatever it came by."""

from __future__ import annotations

import asyncio
import json
from io import BytesIO
from typing import Any

import aiohttp
import numpy as np
import pytest

from asyncline import Graph, Json, Overloaded, Request, op
from asyncline.errors import TooLarge
from asyncline.settings import LEAST_DECODED_NBYTES
from asyncline.transports.tcp.limits import CallLimits
from asyncline.wire import msgpack
from asyncline.wire.oip import InferRequest, InferTensor, grpc, schema
from tests.transports import grpc_door, test_rest, test_rest_oip, test_tcp

COUNT = 10**6
MAPS = b"[" + b"{}," * COUNT + b"0]"
PACKED = b"\xdd" + COUNT.to_bytes(4, "big") + b"\x80" * COUNT
"""A million empty maps, which are 72 MB."""
LIST = [0.5] * 10_000
LEAST_WEIGHT = 300_000
"""Of LIST, however it is sent."""


def graph(function: Any) -> Graph:
    return Graph("test", op(cpu="inline")(function)(Request(x=Json()).x))


def oip(text: str) -> bytes:
    return json.dumps({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": [text]}]}).encode()


def form(data: bytes) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("x", BytesIO(data), content_type="application/json", filename="x")
    return form


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/test", "application/json", b'{"x":' + MAPS + b"}"),
        ("/test", "application/msgpack", b"\x81\xa1x" + PACKED),
        ("/test", "", MAPS),
        ("/v2/models/test/infer", "application/json", oip(MAPS.decode())),
        ("/v2/models/test/infer", "application/json", b'{"x":' + MAPS + b"}"),
        ("/test/predict", "application/json", b'{"x":' + MAPS + b"}"),
        ("/test/predict", "application/json", json.dumps({"key": ["x"], "value": [MAPS.decode()]}).encode()),
    ],
    ids=["JSON", "msgpack", "form", "OIP element", "OIP", "Paddle", "Paddle value"],
)
async def test_a_body_of_rest_that_becomes_too_much_is_refused(path: str, kind: str, body: bytes) -> None:
    seen: list[Any] = []
    async with test_rest_oip.serving(graph(seen.append), max_body_mb=4) as client:
        sent = BytesIO(body) if kind else form(MAPS)
        answer = await client.post(path, data=sent, headers={"Content-Type": kind} if kind else {})
        assert f"over the limit of {LEAST_DECODED_NBYTES} bytes" in answer.body.decode()
        assert answer.status == 413
        if path == "/test":
            assert answer.json["code"] == "too_large"
        assert not seen


async def test_a_call_by_tcp_that_becomes_too_much_is_refused_and_the_next_is_served() -> None:
    async with test_tcp.serving(test_tcp.one_op(test_tcp.echo), max_body_mb=4) as door:
        raw = await door.raw()
        raw.call(1, [{}] * COUNT)
        stream, error = await raw.answer()
        assert (stream, type(error)) == (
            1,
            TooLarge,
        ) and f"over the limit of {CallLimits().max_value_weight} bytes" in error.message
        raw.call(2, "next")
        assert await raw.answer() == (2, "next")
        await door.until_empty()


async def test_what_a_body_became_is_in_flight_until_it_is_answered() -> None:
    weights: list[int] = []

    def look(x: Any) -> int:
        weights.append(client.engine.admission.nbytes)
        return len(x)

    body = {"x": LIST}
    async with test_rest_oip.serving(graph(look)) as client:
        for path, kind, data in [
            ("/test", "application/json", json.dumps(body).encode()),
            ("/test", "application/msgpack", msgpack.encode(body)),
            ("/v2/models/test/infer", "application/json", oip(json.dumps(LIST))),
            ("/test/predict", "application/json", json.dumps({"key": ["x"], "value": [json.dumps(LIST)]}).encode()),
        ]:
            answer = await client.post(path, data=data, headers={"Content-Type": kind})
            assert answer.status == 200, answer.body
            assert weights.pop() > LEAST_WEIGHT + len(data)
            assert client.engine.admission.nbytes == 0


async def test_what_a_value_by_tcp_became_is_in_flight_until_it_is_answered() -> None:
    async with test_tcp.serving(test_tcp.one_op(lambda value: (len(value), door.engine.admission.nbytes))) as door:
        connection = await door.connect()
        count, weight = await connection.call("test", LIST)
        assert count == len(LIST) and weight > LEAST_WEIGHT
        await door.until_empty()


async def test_who_finds_no_room_for_what_a_body_becomes_is_told_when_to_come_again() -> None:
    async with test_rest.serving(graph(len)) as client:
        admission = client.engine.admission
        others = admission.max_bytes - 200_000  # room for the bytes, not for what they become
        admission.reserve(others)
        answer = await client.post(json={"x": LIST})
        assert answer.error == (503, Overloaded.code) and int(answer.headers["Retry-After"]) >= 1
        admission.release(others)
        assert (await client.post(json={"x": LIST})).json == len(LIST)
        assert (await asyncio.gather(*[client.post(json={"x": LIST}) for _ in range(3)]))[2].status == 200


def infer(tensor: InferTensor, **parameters: Any) -> bytes:
    return grpc.encode_request(InferRequest((tensor,), "test", parameters=parameters))


def element(data: bytes, **parameters: Any) -> InferTensor:
    array = np.empty(1, object)
    array[0] = data
    return InferTensor("x", "BYTES", array, parameters)


NATIVE = {"native": "fields"}
MODEL_INFER, MODEL_STREAM_INFER = schema.method("ModelInfer"), schema.method("ModelStreamInfer")


@pytest.mark.parametrize(
    "message",
    [infer(element(MAPS)), infer(element(PACKED, form="msgpack"), **NATIVE)],
    ids=["JSON", "msgpack"],
)
async def test_a_message_of_grpc_that_becomes_too_much_is_refused_and_the_next_is_served(message: bytes) -> None:
    async with grpc_door.serving(graph(lambda x: x), max_body_mb=4) as door, door.channel() as channel:
        with pytest.raises(grpc_door.grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(MODEL_INFER)(message)
        assert refused.value.code() is grpc_door.grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "over the limit of 64000000 bytes" in refused.value.details()
        call = channel.stream_stream(MODEL_STREAM_INFER)(iter([message, infer(element(b"1"))]))
        answers = [grpc.decode_stream_response(await call.read()) for _ in range(2)]
        assert sorted("over the limit of 64000000 bytes" in error for _, error in answers) == [False, True]
        await door.until_empty()


async def test_what_a_message_of_grpc_became_is_in_flight_until_it_is_answered() -> None:
    weights: list[int] = []

    def look(x: Any) -> int:
        weights.append(door.engine.admission.nbytes)
        return len(x)

    messages = [
        infer(element(json.dumps(LIST).encode())),
        infer(element(msgpack.encode(LIST), form="msgpack"), **NATIVE),
    ]
    async with grpc_door.serving(graph(look)) as door, door.channel() as channel:
        for message in messages:
            await channel.unary_unary(MODEL_INFER)(message)
            assert weights.pop() > LEAST_WEIGHT + len(message)
            await door.until_empty()
            call = channel.stream_stream(MODEL_STREAM_INFER)(iter([message]))
            assert not grpc.decode_stream_response(await call.read())[1]
            assert weights.pop() > LEAST_WEIGHT + len(message)
            await door.until_empty()
