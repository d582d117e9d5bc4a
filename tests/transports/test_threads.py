"""What is too much for a turn of the loop is decoded in a thread, whatever it came by."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest

from asyncline import Graph, Json, Request, op
from asyncline.transports import threads
from asyncline.transports.threads import LARGE_NBYTES, MOST, in_thread
from asyncline.wire import json as wire_json
from asyncline.wire.oip import InferRequest, InferTensor, grpc, schema
from tests.transports import grpc_door, test_rest_oip

LONG = json.dumps(["x" * 100] * 5000)
SHORT = json.dumps(["x" * 100] * 500)
assert len(SHORT) < LARGE_NBYTES < len(LONG)


@op(cpu="inline")
def size(value: Any) -> int:
    return len(value)


def graph() -> Graph:
    return Graph("test", size(Request(x=Json()).x))


@pytest.fixture
def decoded_on_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bool]]:
    """Whether the last of what is JSON was decoded on the loop, of lengths over a thousand."""
    found: list[bool] = []
    decode = wire_json.decode

    def noting(data: bytes, *args: Any, **kwargs: Any) -> Any:
        if len(data) > 1000:
            found.append(threading.current_thread() is threading.main_thread())
        return decode(data, *args, **kwargs)

    monkeypatch.setattr(wire_json, "decode", noting)
    yield lambda: found.pop()
    assert not found


def element(text: str) -> dict[str, Any]:
    return {"name": "x", "datatype": "BYTES", "shape": [1], "data": [text]}


@pytest.mark.parametrize(("text", "is_on_loop"), [(SHORT, True), (LONG, False)], ids=["short", "long"])
async def test_json_by_rest(text: str, is_on_loop: bool, decoded_on_loop: Callable[[], bool]) -> None:
    bodies = [
        ("/test", {}, f'{{"x":{text}}}'.encode()),
        ("/test", {"Content-Encoding": "gzip"}, gzip.compress(f'{{"x":{text}}}'.encode())),
        ("/test/predict", {}, json.dumps({"key": ["x"], "value": [text]}).encode()),
        ("/v2/models/test/infer", {}, json.dumps({"inputs": [element(text)]}).encode()),
    ]
    async with test_rest_oip.serving(graph()) as client:
        for path, headers, body in bodies:
            headers = {"Content-Type": "application/json", **headers}
            answer = await client.post(path, data=BytesIO(body), headers=headers)
            assert answer.status == 200, answer.body
            assert decoded_on_loop() is is_on_loop
            if not path.startswith("/test"):
                assert decoded_on_loop() is is_on_loop  # the body, and the element in it
            elif path.endswith("predict"):
                assert decoded_on_loop() is is_on_loop


def infer(text: str) -> bytes:
    array = np.empty(1, object)
    array[0] = text.encode()
    return grpc.encode_request(InferRequest((InferTensor("x", "BYTES", array),), "test"))


@pytest.mark.parametrize(("text", "is_on_loop"), [(SHORT, True), (LONG, False)], ids=["short", "long"])
async def test_json_by_grpc(text: str, is_on_loop: bool, decoded_on_loop: Callable[[], bool]) -> None:
    async with grpc_door.serving(graph()) as door, door.channel() as channel:
        await channel.unary_unary(schema.method("ModelInfer"))(infer(text))
        assert decoded_on_loop() is is_on_loop
        stream = channel.stream_stream(schema.method("ModelStreamInfer"))(iter([infer(text)]))
        assert not grpc.decode_stream_response(await stream.read())[1]
        assert decoded_on_loop() is is_on_loop


@pytest.mark.parametrize("name", ["ModelInfer", "ModelStreamInfer"])
async def test_who_leaves_while_a_message_is_decoded_leaves_nothing_behind(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, loop = threading.Event(), asyncio.get_running_loop()
    began = asyncio.Event()
    decode = grpc.decode_request

    def waiting(*args: Any) -> Any:
        loop.call_soon_threadsafe(began.set)
        assert may_end.wait(20)
        return decode(*args)

    monkeypatch.setattr(grpc, "decode_request", waiting)
    async with grpc_door.serving(graph()) as door:
        raw = await door.raw()
        stream = raw.call(schema.method(name), None, grpc_encoding="gzip")
        message = grpc_door.framed(gzip.compress(infer(LONG)), 1)
        raw.h2.send_data(stream, message, end_stream=name == "ModelInfer")
        raw.flush()
        async with asyncio.timeout(20):
            await began.wait()
        assert door.engine.admission.nbytes > LARGE_NBYTES
        await raw.close()
        await door.until_empty()
        may_end.set()
        await in_thread(int)  # behind it
        assert not door.engine.admission.nbytes


async def test_no_more_are_decoded_at_once_than_two() -> None:
    may_end = threading.Event()
    running: list[int] = []

    def work(number: int) -> int:
        running.append(number)
        assert may_end.wait(20)
        return number

    tasks = [asyncio.create_task(in_thread(work, number)) for number in range(5)]
    await asyncio.sleep(0)
    tasks[4].cancel()
    loop = asyncio.get_running_loop()
    loop.call_soon(may_end.set)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[:4] == list(range(4)) and isinstance(found[4], asyncio.CancelledError)
    assert 4 not in running  # nobody waited for it any more
    assert threads._threads._max_workers == MOST == 2


async def test_what_a_thread_raises_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 1, 0)
