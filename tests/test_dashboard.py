"""The dashboard in a real browser, of a served graph that works."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.browser import CHROMIUM, Tab, tab
from tests.serving import Server

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
    pytest.mark.timeout(180),
]
LIVE = "document.getElementById('status').textContent === 'live'"


@asynccontextmanager
async def workshop(*arguments: str, app: str = "workshop:graph") -> AsyncIterator[Server]:
    """`asyncline serve workshop:graph`, without keeping the loop."""
    server = await asyncio.to_thread(Server, app, *arguments)
    try:
        yield server
    finally:
        server.process.terminate()
        await asyncio.to_thread(server.end)


@asynccontextmanager
async def load(address: str, **headers: str) -> AsyncIterator[None]:
    """Two clients; every tenth part is out of paint."""
    numbers = itertools.count()

    async def send() -> None:
        while True:
            async with session.post("/workshop", json={"n": next(numbers)}) as answer:
                await answer.read()

    async with aiohttp.ClientSession(address, headers=headers) as session:
        clients = [asyncio.create_task(send()) for _ in range(2)]
        try:
            yield
        finally:
            for client in clients:
                client.cancel()
            await asyncio.wait(clients)


async def text(page: Tab, selector: str) -> str:
    found: str = await page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")
    return found


async def test_it_draws_the_graph_and_what_it_does(tmp_path: Path) -> None:
    async with workshop() as server, load(server.address), tab(tmp_path) as page:
        await page.look()
        await page.open(f"{server.address}/dashboard")
        await page.wait_for(LIVE)
        names = await page.evaluate("[...document.querySelectorAll('.op')].map((op) => op.dataset.op).sort()")
        assert names == ["assemble", "clean", "measure", "paint", "weigh"]
        assert await page.evaluate("document.querySelectorAll('.edge').length") == 9
        # Once there are figures: a flow at every edge, batches, latencies, and the errors as they were said.
        await page.wait_for("document.querySelector('#verdict').textContent.startsWith('bottleneck: op ')")
        await page.wait_for("document.querySelectorAll('.edge[style*=dasharray]').length === 0")
        await page.wait_for("document.querySelectorAll('.histogram i').length > 0")
        await page.wait_for("document.querySelector('.chart path').getAttribute('d').includes('L')")
        await page.wait_for("document.querySelector('.errors').textContent.includes('out of paint')")
        assert "<img src=x onerror=alert(1)>" in await text(page, ".errors")
        assert await page.evaluate("document.querySelectorAll('img, b b, .errors img').length") == 0
        assert await page.evaluate("document.querySelectorAll('.op .flag:not(:empty)').length") == 1
        assert page.errors == []


async def test_an_op_is_chosen_by_mouse_or_keyboard_and_shows_its_stages_and_settings(tmp_path: Path) -> None:
    async with workshop() as server, tab(tmp_path) as page:
        await page.look()
        await page.open(f"{server.address}/dashboard")
        await page.wait_for(LIVE)
        await page.evaluate("document.querySelector('[data-op=measure]').dispatchEvent(new MouseEvent('click'))")
        assert (await text(page, "#detail h2")) == "Op measure"
        told = await text(page, "#detail")
        assert all(word in told for word in ("prep", "midp", "postp", "batch_size8", "Length and width of each part."))
        await page.evaluate("document.querySelector('[data-op=clean]').focus()")
        await page.press("Enter")
        assert (await text(page, "#detail h2")) == "Op clean"
        assert "Takes the <b>dust</b> off." in await text(page, "#detail")
        assert await page.evaluate("document.querySelector('[data-op=clean]').getAttribute('aria-pressed')") == "true"


async def test_it_fits_a_phone(tmp_path: Path) -> None:
    async with workshop() as server, tab(tmp_path) as page:
        await page.look(390, 844, dark=True)
        await page.open(f"{server.address}/dashboard")
        await page.wait_for(LIVE)
        assert await page.evaluate("document.documentElement.scrollWidth") == 390
        tops = "[...document.querySelectorAll('.op')].map((op) => Math.round(op.getBoundingClientRect().top))"
        assert len(set(await page.evaluate(tops))) > 2  # the layers lie one below the other
        colour = "getComputedStyle(document.body).backgroundColor"
        assert await page.evaluate(colour) == "rgb(16, 20, 24)"


async def test_it_says_which_op_kept_the_event_loop(tmp_path: Path) -> None:
    async with workshop(app="blocking:graph") as server, tab(tmp_path) as page:
        await page.look(390, 844)
        await page.open(f"{server.address}/dashboard")
        await page.wait_for(LIVE)
        assert await page.evaluate("document.getElementById('blocked').hidden")
        for by in ("sleep", "match"):
            said = f"document.getElementById('blocked').textContent.includes('Op {by}: preprocess kept the event loop')"
            for _ in range(10):  # where other programs have all cores, one may not be seen
                assert (await asyncio.to_thread(server.post, "/blocking", {"by": by}))[0] == 200
                await asyncio.sleep(1.1)
                if await page.evaluate(said):
                    break
            await page.wait_for(said)
        assert " times since the start" in await text(page, "#blocked")
        assert await page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.errors == []


async def test_it_asks_for_the_token(tmp_path: Path) -> None:
    async with workshop("--auth-token", "open-sesame") as server, tab(tmp_path) as page:
        await page.look()
        await page.open(f"{server.address}/dashboard")
        form = "document.getElementById('token')"
        await page.wait_for(f"!{form}.hidden")
        for token in ("wrong", "open-sesame"):
            await page.evaluate(f"document.getElementById('secret').value = '{token}'; {form}.requestSubmit()")
            await page.wait_for(LIVE if token != "wrong" else "document.getElementById('wrong').textContent")
        assert await page.evaluate(f"{form}.hidden && document.querySelectorAll('.op').length") == 5


async def test_it_says_that_the_server_is_gone_and_comes_back_by_itself(tmp_path: Path) -> None:
    async with tab(tmp_path) as page:
        await page.look()
        async with workshop() as server:
            await page.open(f"{server.address}/dashboard")
            await page.wait_for(LIVE)
        await page.wait_for("document.getElementById('status').textContent.includes('trying again in')")
        async with workshop("--http-port", server.address.rpartition(":")[2]):
            await page.wait_for(LIVE, 30)
            assert await page.evaluate("document.querySelectorAll('.op').length") == 5


async def test_it_records_a_timeline_and_downloads_it(tmp_path: Path) -> None:
    async with workshop() as server, load(server.address), tab(tmp_path) as page:
        await page.look()
        await page.open(f"{server.address}/dashboard")
        await page.wait_for(LIVE)
        await page.evaluate(
            "document.getElementById('seconds').value = 1; document.getElementById('record').requestSubmit()"
        )
        await page.wait_for("document.getElementById('said').textContent.startsWith('The timeline is written')")
        async with asyncio.timeout(40):
            await page.downloaded.wait()
    names = {
        event["name"]
        for event in json.loads(await asyncio.to_thread((tmp_path / "workshop-timeline.json").read_bytes))[
            "traceEvents"
        ]
    }
    assert any(name.startswith("request ") for name in names)
