"""Compressed bodies, in and out: what is inflated, how far, and what is refused."""

from __future__ import annotations

import gzip
import json
import threading
import tracemalloc
import zlib
from typing import Any

import pytest

from asyncline import BadRequest, Graph, Image, Op, Request, op
from asyncline.errors import RequestError, TooLarge, Unsupported
from asyncline.transports import inflate
from asyncline.transports.inflate import ON_LOOP_NBYTES
from asyncline.transports.rest import coding
from tests.transports.test_rest import serving

HELLO = b'{"hello": "world"}'


@op(cpu="inline")
def echo(value: Any) -> Any:
    return value


def bare_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (gzip.compress(HELLO), "gzip"),
        (gzip.compress(HELLO), " X-GZIP"),
        (zlib.compress(HELLO), "deflate"),
        (bare_deflate(HELLO), "deflate"),
        (HELLO, "identity"),
    ],
)
async def test_a_compressed_body_is_inflated(data: bytes, name: str) -> None:
    assert await coding.inflate(data, name, 100) == HELLO
    assert await coding.inflate(memoryview(data), name, len(HELLO)) == HELLO


async def test_a_long_one_is_inflated_whole() -> None:
    data = bytes(range(256)) * 4096
    assert await coding.inflate(gzip.compress(data), "gzip", len(data)) == data


@pytest.mark.parametrize(
    ("data", "name", "most", "error", "says"),
    [
        (gzip.compress(HELLO), "gzip", len(HELLO) - 1, TooLarge, "over the limit of 17 bytes once it is inflated"),
        (gzip.compress(bytes(10**6)), "gzip", 10**6 - 1, TooLarge, "once it is inflated"),
        (gzip.compress(HELLO)[:-9], "gzip", 100, BadRequest, "ends early"),
        (b"", "gzip", 100, BadRequest, "ends early"),
        (b"", "deflate", 100, BadRequest, "ends early"),
        (gzip.compress(bytes(10**6))[:-9], "gzip", 10**6, BadRequest, "ends early"),
        (gzip.compress(HELLO) + b"x", "gzip", 100, BadRequest, "something comes after"),
        (HELLO, "gzip", 100, BadRequest, "not compressed as"),
        (HELLO, "deflate", 100, BadRequest, "not compressed as"),
        (HELLO, "br", 100, Unsupported, "content encoding 'br' is not accepted"),
        (HELLO, "gzip, gzip", 100, Unsupported, "is not accepted"),
    ],
)
async def test_what_is_not_compressed_well_is_refused(
    data: bytes, name: str, most: int, error: type[RequestError], says: str
) -> None:
    with pytest.raises(error) as refused:
        await coding.inflate(data, name, most)
    assert says in refused.value.message


async def test_of_a_bomb_no_more_is_inflated_than_the_limit() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            await coding.inflate(bomb, "gzip", 200_000)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("nbytes", [1, ON_LOOP_NBYTES, ON_LOOP_NBYTES + 1, 10**6])
@pytest.mark.parametrize("level", [0, 9])
async def test_what_is_long_is_inflated_in_a_thread(nbytes: int, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []
    inside = inflate._inflate

    def noting(*args: Any) -> bytes | None:
        found = inside(*args)
        if found is not None:
            threads.append(threading.current_thread() is not threading.main_thread())
        return found

    monkeypatch.setattr(inflate, "_inflate", noting)
    data = gzip.compress(bytes(nbytes), level)
    assert await coding.inflate(data, "gzip", 10**6) == bytes(nbytes)
    assert threads == [nbytes > ON_LOOP_NBYTES or len(data) > ON_LOOP_NBYTES]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, None), ("", None), ("identity", None), ("br, zstd", None), ("gzip", "gzip"), ("deflate", "deflate"),
        ("deflate, GZIP;q=0.5", "gzip"), ("gzip; q=0, deflate", "deflate"), ("gzip;q=0", None),
    ],
)  # fmt: skip
def test_an_answer_is_compressed_as_the_client_accepts_it(accept: str | None, chosen: str | None) -> None:
    assert coding.accepted_coding(accept) == chosen


# -- over the native route


@pytest.mark.parametrize(("compress", "name"), [(gzip.compress, "gzip"), (zlib.compress, "deflate")])
async def test_the_native_route_takes_and_gives_compressed_bodies(compress: Any, name: str) -> None:
    body = json.dumps(["x" * 100] * 10_000).encode()
    async with serving(Graph("test", echo(Request()))) as client:
        sent = {"data": compress(body), "headers": {"Content-Type": "application/json", "Content-Encoding": name}}
        client.session._auto_decompress = False
        answer = await client.post(**sent, skip_auto_headers=["Accept-Encoding"])
        assert answer.json == json.loads(body) and "Content-Encoding" not in answer.headers
        sent["headers"]["Accept-Encoding"] = name
        answer = await client.post(**sent)
        assert answer.headers["Content-Encoding"] == name and answer.headers["Vary"] == "Accept-Encoding"
        assert len(answer.body) < 20_000 and json.loads(zlib.decompress(answer.body, 47)) == json.loads(body)


async def test_a_short_answer_is_not_compressed() -> None:
    async with serving(Graph("test", echo(Request()))) as client:
        answer = await client.post(json="x" * 100, headers={"Accept-Encoding": "gzip"})
        assert answer.status == 200 and "Content-Encoding" not in answer.headers


async def test_a_bomb_is_refused_and_its_bytes_are_given_back() -> None:
    async with serving(Graph("test", echo(Request())), max_body_mb=0.1) as client:
        bomb = gzip.compress(bytes(10**7))
        answer = await client.post(data=bomb, headers={"Content-Encoding": "gzip"})
        assert answer.error == (413, "too_large")
        assert client.engine.admission.nbytes == 0


async def test_what_a_compressed_body_may_become_is_reserved() -> None:
    reserved = []

    class Note(Op):
        cpu = "inline"

        def preprocess(self, value: Any) -> int:
            reserved.append(client.engine.admission.nbytes)
            return 0

    async with serving(Graph("test", Note(Request()))) as client:
        data = gzip.compress(HELLO)
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        assert (await client.post(data=data, headers=headers)).status == 200
        assert reserved == [len(data) * inflate.DEFLATE_RATIO]


async def test_a_compressed_form_is_refused() -> None:
    async with serving(Graph("test", echo(Request(image=Image()).image))) as client:
        headers = {"Content-Encoding": "gzip", "Content-Type": "multipart/form-data; boundary=x"}
        answer = await client.post(data=gzip.compress(b"--x--\r\n"), headers=headers)
        assert answer.error == (415, "unsupported")
