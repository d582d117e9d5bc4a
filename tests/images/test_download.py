"""Downloads: within their limits whatever the origin does, shared by who asks for the same, and kept."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import pytest
import uvloop
from aiohttp.client_proto import ResponseHandler

from asyncline import FetchFailed, Unavailable
from asyncline.images.cache import Cache
from asyncline.images.limits import FetchLimits
from asyncline.images.one_answer import MOST_INTERIM
from tests.images.downloads import downloads
from tests.images.origins import (
    PNG,
    Client,
    Handler,
    Origin,
    answer,
    answers,
    closes_after,
    hangs_after,
    origin,
    redirects,
    repeats,
    trickles,
    waits,
)


async def fetched(handler: Handler, path: str = "/image.png", **settings: Any) -> bytes:
    async with origin(handler) as made, downloads(**settings) as downloader:
        return await downloader.get(made.url(path))


# -- good origins


async def test_an_image_is_downloaded() -> None:
    async with origin(answers(answer())) as made, downloads() as downloader:
        assert await downloader.get(made.url("/a/b.png?size=1#part")) == PNG
        assert made.requests == ["/a/b.png?size=1"]
        assert made.headers[0]["accept-encoding"] == "identity"
        assert "cookie" not in made.headers[0] and "authorization" not in made.headers[0]


async def test_a_chunked_body_is_one_image() -> None:
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (PNG[:3], PNG[3:50], PNG[50:])) + b"0\r\n\r\n"
    assert await fetched(answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)) == PNG


async def test_a_body_may_end_with_its_connection() -> None:
    assert await fetched(closes_after(b"HTTP/1.0 200 OK\r\n\r\n" + PNG)) == PNG


@pytest.mark.parametrize("head", [b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF\1\2\3\4WEBPVP8 "])
async def test_every_known_format_passes(head: bytes) -> None:
    assert await fetched(answers(answer(head))) == head


async def test_an_image_exactly_at_the_limit_passes() -> None:
    assert await fetched(answers(answer()), nbytes=len(PNG)) == PNG


@pytest.mark.parametrize("status", ["301 x", "302 x", "303 x", "307 x", "308 x"])
async def test_redirects_are_followed(status: str) -> None:
    handler = redirects("/1", "2", "http://SELF/image", status=status)
    assert await fetched(handler, "/0") == PNG


async def test_connections_are_used_again_and_closed_in_the_end() -> None:
    async with origin(answers(answer())) as made:
        async with downloads() as downloader:
            for _ in range(3):
                await downloader.get(made.url())
            assert (made.connections, made.open, len(made.requests)) == (1, 1, 3)
        await made.until(lambda made: made.open == 0)


async def test_cookies_are_not_kept() -> None:
    async with origin(answers(answer(headers="Set-Cookie: a=1\r\n"))) as made, downloads() as downloader:
        await downloader.get(made.url())
        await downloader.get(made.url())
        assert "cookie" not in made.headers[1]


async def test_a_proxy_in_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with origin(answers(answer())) as proxy, origin(answers(answer())) as made, downloads() as downloader:
        monkeypatch.setenv("http_proxy", proxy.url(""))
        await downloader.get(made.url())
        assert (proxy.connections, made.connections) == (0, 1)


# -- hostile origins

LARGE = b"\xff\xd8\xff" + bytes(2_000_000)
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
MEGA = b"100000\r\n" + LARGE[: 1 << 20] + b"\r\n"
HOSTILE: dict[str, tuple[Handler, str]] = {
    "no answer": (hangs_after(b""), "took too long"),
    "slow headers": (trickles(b"", HEAD + b"X: " + b"y" * 1000), "took too long"),
    "half a head": (hangs_after(HEAD + b"Content-"), "took too long"),
    "slow body": (trickles(HEAD + b"Content-Length: 1000\r\n\r\n" + PNG, bytes(900)), "took too long"),
    "half a body": (hangs_after(HEAD + b"Content-Length: 1000\r\n\r\n" + PNG), "took too long"),
    "endless body": (repeats(HEAD + b"\r\n" + LARGE, bytes(100_000)), "more than 1 MB"),
    "endless chunks": (repeats(CHUNKED, MEGA), "more than 1 MB"),
    "endless small chunks": (repeats(CHUNKED + b"3\r\n\xff\xd8\xff\r\n", b"1\r\n\0\r\n"), "took too long|more than"),
    "endless headers": (repeats(HEAD, b"X-A: b\r\n" * 100), "malformed|took too long"),
    "endless header": (repeats(HEAD + b"X-A: ", b"b" * 1000), "malformed|took too long"),
    "endless interim answers": (repeats(b"", b"HTTP/1.1 103 x\r\n\r\n" * 10), "malformed"),
    "a flood of interim answers": (hangs_after(b"HTTP/1.1 103 x\r\n\r\n" * 20_000), "malformed"),
    "a length over the limit": (hangs_after(HEAD + b"Content-Length: 1000001\r\n\r\n"), "more than 1 MB"),
    "a giant length": (hangs_after(HEAD + b"Content-Length: 999999999999\r\n\r\n"), "more than 1 MB"),
    "too short for its length": (closes_after(HEAD + b"Content-Length: 1000\r\n\r\n" + PNG), "broke off"),
    "a negative length": (hangs_after(HEAD + b"Content-Length: -1\r\n\r\n" + PNG), "malformed"),
    "two lengths": (hangs_after(HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + PNG), "malformed"),
    "closes at once": (closes_after(b""), "broke off"),
    "no HTTP": (hangs_after(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), "malformed"),
    "gzip bomb": (answers(answer(gzip.compress(LARGE), headers="Content-Encoding: gzip\r\n")), "compressed"),
    "deflate": (answers(answer(b"x", headers="content-encoding: Deflate\r\n")), "compressed"),
    "gzip without a word": (answers(answer(gzip.compress(LARGE))), "no image"),
    "html": (answers(answer(b"<html><body>hello</body></html>", headers="Content-Type: image/png\r\n")), "no image"),
    "svg": (answers(answer(b"<svg xmlns='http://www.w3.org/2000/svg'/>")), "no image"),
    "nothing": (answers(answer(b"")), "no image"),
    "a little of nothing": (answers(answer(b"\xff\xd8")), "no image"),
    "a sound": (answers(answer(b"RIFF\0\0\0\0WAVEfmt ")), "no image"),
    "not found": (answers(answer(status="404 Not Found")), "answered 404"),
    "a broken server": (answers(answer(status="500 x")), "answered 500"),
    "a part": (answers(answer(status="206 x")), "answered 206"),
    "no content": (answers(b"HTTP/1.1 204 x\r\n\r\n"), "answered 204"),
    "a redirect to nowhere": (answers(answer(b"", "302 x")), "answered 302"),
    "many choices": (answers(answer(b"", "300 x", "Location: /1\r\n")), "answered 300"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_origin_is_the_clients_fault_and_over_in_time(name: str) -> None:
    handler, message = HOSTILE[name]
    async with origin(handler) as made, downloads(nbytes=1_000_000) as downloader:
        async with asyncio.timeout(2):
            with pytest.raises(FetchFailed, match=message) as raised:
                await downloader.get(made.url())
        assert "127.0.0.1" not in str(raised.value)
        await made.until(lambda made: made.open <= 1)


async def test_interim_answers_are_not_the_answer() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * MOST_INTERIM
    async with origin(answers(interim + answer())) as made, downloads() as downloader:
        for path in ("/1.png", "/2.png"):
            assert await downloader.get(made.url(path)) == PNG
        assert made.connections == 1


async def test_of_a_flood_of_interim_answers_little_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    monkeypatch.setattr(ResponseHandler, "feed_data", lambda self, data, size=0: read.append(data))
    async with origin(hangs_after(b"HTTP/1.1 103 x\r\n\r\n" * 20_000)) as made, downloads() as downloader:
        with pytest.raises(FetchFailed, match="malformed"):
            await downloader.get(made.url())
    assert len(read) == MOST_INTERIM


async def test_a_body_that_goes_on_past_its_length_ends_there() -> None:
    try:
        assert await fetched(repeats(HEAD + b"Content-Length: 108\r\n\r\n" + PNG, bytes(1000))) == PNG
    except FetchFailed as error:  # where the rest came together with it
        assert "malformed" in str(error)


async def test_a_body_below_the_least_rate_is_given_up() -> None:
    limits = FetchLimits(min_bytes_per_s=1000)
    assert (limits.least_nbytes(0.9), limits.least_nbytes(1.5)) == (0, 1500)
    handler = trickles(HEAD + b"Content-Length: 1000\r\n\r\n" + PNG[:8], bytes(900))
    with pytest.raises(FetchFailed, match="took too long"):
        await fetched(handler, min_bytes_per_s=10_000, total_s=5)


async def test_a_redirect_loop_ends_after_three() -> None:
    async with origin(redirects("/0")) as made, downloads() as downloader:
        with pytest.raises(FetchFailed, match="more than 3 times"):
            await downloader.get(made.url("/0"))
        assert len(made.requests) == 4


async def test_redirects_may_be_switched_off() -> None:
    with pytest.raises(FetchFailed, match="more than 0 times"):
        await fetched(redirects("/1"), "/0", redirects=0)


async def test_nobody_listens() -> None:
    async with origin(answers(answer())) as made:
        url = made.url()
    async with downloads() as downloader:
        with pytest.raises(FetchFailed, match="cannot be reached"):
            await downloader.get(url)


# -- many at once


async def test_equal_urls_in_flight_are_one_download() -> None:
    async with origin(waits(answer())) as made, downloads() as downloader:
        asking = [asyncio.create_task(downloader.get(made.url(f"/a.png#{i}"))) for i in range(10)]
        await made.until(lambda made: bool(made.requests))
        made.gate.set()
        assert await asyncio.gather(*asking) == [PNG] * 10
        assert made.requests == ["/a.png"]
        assert await downloader.get(made.url("/a.png")) == PNG
        assert len(made.requests) == 2


async def test_each_waiter_gets_an_error_of_its_own() -> None:
    async with origin(waits(answer(status="404 x"))) as made, downloads() as downloader:
        asking = [asyncio.create_task(downloader.get(made.url())) for _ in range(2)]
        await made.until(lambda made: bool(made.requests))
        made.gate.set()
        first, second = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(first, FetchFailed) and isinstance(second, FetchFailed) and first is not second
        assert str(first.at("a", "preprocess")) != str(second)


@pytest.mark.parametrize("leaves", [0, 1])
async def test_a_waiter_that_leaves_costs_the_others_nothing(leaves: int) -> None:
    async with origin(waits(answer())) as made, downloads() as downloader:
        asking = [asyncio.create_task(downloader.get(made.url())) for _ in range(2)]
        await made.until(lambda made: bool(made.requests))
        asking[leaves].cancel()
        await asyncio.wait([asking[leaves]])
        made.gate.set()
        assert await asking[1 - leaves] == PNG
        assert asking[leaves].cancelled() and len(made.requests) == 1


async def test_a_download_ends_when_nobody_waits_for_it() -> None:
    async with origin(waits(answer())) as made, downloads() as downloader:
        asking = [asyncio.create_task(downloader.get(made.url())) for _ in range(2)]
        await made.until(lambda made: bool(made.requests))
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        assert not downloader.statistics().in_flight
        # Whoever comes right after begins anew.
        again = asyncio.create_task(downloader.get(made.url()))
        await made.until(lambda made: len(made.requests) == 2 and made.open == 1)
        made.gate.set()
        assert await again == PNG


async def test_close_ends_what_is_in_flight() -> None:
    async with origin(waits(answer())) as made:
        async with downloads(per_host=1) as downloader:
            asking = [asyncio.create_task(downloader.get(made.url(f"/{i}"))) for i in range(3)]
            await made.until(lambda made: bool(made.requests))
        for task in asking:
            with pytest.raises(Unavailable):
                await task
        with pytest.raises(Unavailable):
            await downloader.get(made.url())
        await made.until(lambda made: made.open == 0)


async def test_a_host_gets_a_few_connections_and_the_rest_wait_longer_than_a_download_may_take() -> None:
    async def handler(made: Origin, client: Client, path: str) -> None:
        await asyncio.sleep(0.1)
        client.write(answer())

    async with origin(handler) as made, downloads(per_host=2, total_s=0.4) as downloader:
        async with asyncio.TaskGroup() as tasks:
            for i in range(14):
                tasks.create_task(downloader.get(made.url(f"/{i}")))
        assert made.most_at_once == 2
        assert made.connections == 2


async def test_downloads_are_bounded_in_all_and_a_slow_host_holds_up_only_itself() -> None:
    async with origin(waits(answer())) as slow, origin(answers(answer()), "127.0.0.2") as quick:
        async with downloads(per_host=1, total=2) as downloader:
            stuck = [asyncio.create_task(downloader.get(slow.url(f"/{i}"))) for i in range(5)]
            await slow.until(lambda made: bool(made.requests))
            assert await downloader.get(quick.url()) == PNG
            slow.gate.set()
            await asyncio.gather(*stuck)
            assert slow.most_at_once == 1


def test_no_answer_crosses_to_another_while_connects_are_cancelled() -> None:
    uvloop.run(storm(seconds=1.0))


async def storm(seconds: float) -> tuple[int, int]:
    """Downloads, each by a connection of its own, cancelled at every point; how many ended so, and how many well."""

    async def handler(made: Origin, client: Client, path: str) -> None:
        client.write(answer(PNG + path.encode(), headers="Connection: close\r\n"))
        client.close()

    cancelled, well = 0, 0
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    async with origin(handler) as made, downloads(per_host=32, total_s=10, connect_s=5) as downloader:

        async def client(number: int) -> None:
            nonlocal cancelled, well
            turn = 0
            while loop.time() < end:
                turn += 1
                path = f"/{number}.{turn}"
                asking = asyncio.create_task(downloader.get(made.url(path)))
                for _ in range(turn % 23):
                    await asyncio.sleep(0)
                if turn % 5:
                    asking.cancel()
                await asyncio.wait([asking])
                if asking.cancelled():
                    cancelled += 1
                else:
                    assert asking.result() == PNG + path.encode()
                    well += 1

        async with asyncio.TaskGroup() as tasks:
            for number in range(32):
                tasks.create_task(client(number))
    assert cancelled and well
    return cancelled, well


# -- the cache


async def test_what_is_cached_is_not_asked_for_again() -> None:
    async with origin(answers(answer())) as made, downloads(cache_nbytes=1000) as downloader:
        for _ in range(3):
            assert await downloader.get(made.url()) == PNG
        assert len(made.requests) == 1
        assert downloader.statistics().cached_nbytes == len(PNG)


async def test_errors_are_not_cached() -> None:
    async with origin(answers(answer(status="500 x"))) as made, downloads(cache_nbytes=1000) as downloader:
        for _ in range(2):
            with pytest.raises(FetchFailed):
                await downloader.get(made.url())
        assert len(made.requests) == 2


def test_the_cache_holds_what_was_used_last_within_its_bytes() -> None:
    cache = Cache(10, kept_s=60)
    cache.put("a", b"1234", 0)
    cache.put("b", b"1234", 0)
    assert cache.get("a", 1) == b"1234"
    cache.put("c", b"1234", 1)
    assert cache.get("b", 1) is None
    assert (len(cache), cache.nbytes) == (2, 8)
    cache.put("a", b"12", 2)
    assert (cache.get("a", 2), cache.nbytes) == (b"12", 6)
    cache.put("d", b"12345678901", 2)
    assert (len(cache), cache.nbytes) == (2, 6)


def test_the_cache_forgets_what_is_old() -> None:
    cache = Cache(10, kept_s=60)
    cache.put("a", b"1234", 0)
    assert cache.get("a", 59.9) == b"1234"
    assert cache.get("a", 60) is None
    assert cache.nbytes == 0
