"""The admin pages of a server that really runs."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

import pytest

from tests.serving import serving
from tests.transports.test_rest_observe import observed

PAGES = ["/admin/settings", "/admin/stacks", "/admin/log-level", "/admin/tracemalloc?seconds=0.01", "/admin/leaks"]


async def test_the_settings_in_force_hide_the_secret() -> None:
    token = {"Authorization": "Bearer hush-hush"}
    async with observed(auth_token="hush-hush", drain_s=3) as session:
        async with session.get("/admin/settings", headers=token) as answer:
            text = await answer.text()
            found = await answer.json()
    assert found["service"]["drain_s"] == 3 and found["service"]["auth_token"] == "**********"
    assert found["op"]["echo"]["batch_size"] == 1 and "hush" not in text
    assert found["sources"]["service.drain_s"] == "test" and found["sources"]["dag.fuse"] == "default"


async def test_stacks_name_threads_and_tasks() -> None:
    async with observed() as session, session.get("/admin/stacks") as answer:
        text = await answer.text()
    assert "asyncline loop guard\n" in text and "1 x asyncline engine g\n" in text


async def test_the_log_level_is_read_and_set() -> None:
    logger = logging.getLogger("asyncline")
    before = logger.level
    try:
        async with observed() as session:
            async with session.post("/admin/log-level", data="debug") as answer:
                assert (answer.status, await answer.text()) == (200, "debug\n")
            assert logger.level == logging.DEBUG
            async with session.get("/admin/log-level") as answer:
                assert await answer.text() == "debug\n"
            async with session.post("/admin/log-level", data="loud") as answer:
                assert answer.status == 400
                assert (await answer.json())["message"].startswith("no log level 'loud': use debug, ")
    finally:
        logger.setLevel(before)


async def test_one_capture_at_a_time() -> None:
    async with observed() as session:

        async def ask() -> int:
            async with session.get("/admin/tracemalloc?seconds=0.2") as answer:
                return answer.status

        assert sorted(await asyncio.gather(ask(), ask())) == [200, 503]
        assert await ask() == 200


async def test_a_capture_is_bounded() -> None:
    async with observed() as session, session.get("/admin/tracemalloc?seconds=31") as answer:
        assert answer.status == 400


async def test_leaks_are_shown_where_they_are_watched() -> None:
    async with observed() as session, session.get("/admin/leaks") as answer:
        assert answer.status == 404
    async with observed({"leak_watch": True}) as session, session.get("/admin/leaks") as answer:
        assert (await answer.json())["kind"] == "too early"


@pytest.mark.parametrize("path", PAGES)
async def test_all_of_it_asks_for_the_token(path: str) -> None:
    async with observed(auth_token="secret") as session, session.get(path) as answer:
        assert answer.status == 401


@pytest.mark.parametrize("path", ["/admin/settings", "/admin/leaks"])
async def test_what_cannot_be_set_takes_no_post(path: str) -> None:
    async with observed() as session, session.post(path, data="x") as answer:
        assert answer.status == 405


def test_the_level_reaches_worker_processes_and_usr1_logs_the_stacks(tmp_path: Path) -> None:
    with serving("logging_app:graph", "--log-level", "warning", "--log-dir", str(tmp_path)) as server:
        order = {"order": {"word": "quiet"}}
        assert server.post("/loud", order)[0] == 200
        assert server.post("/admin/log-level", b"info") == (200, "info\n")
        order["order"]["word"] = "heard"
        assert server.post("/loud", order)[0] == 200
        server.process.send_signal(signal.SIGUSR1)
        server.wait_for("x asyncline engine loud")
    text = (tmp_path / "pipeline.log").read_text()
    assert "process says heard" in text and "quiet" not in text
    assert " threads\n" in text


# -- pages of other sites, in a browser on this machine


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
async def test_a_page_of_another_site_sets_nothing_where_there_is_no_token(headers: dict[str, str]) -> None:
    level = logging.getLogger("asyncline").level
    async with observed() as session, session.post("/admin/log-level", data="error", headers=headers) as answer:
        assert answer.status == 401
        assert "without --auth-token" in (await answer.json())["message"]
    assert logging.getLogger("asyncline").level == level


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "[evil]", "a b", ""])
async def test_a_name_that_was_made_to_lead_here_is_shown_nothing(host: str) -> None:
    async with observed() as session, session.get("/admin/settings", headers={"Host": host}) as answer:
        assert answer.status == 401


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1:8000", "[::1]:8000", "10.0.0.1"])
async def test_addresses_and_localhost_are_no_names_of_others(host: str) -> None:
    async with observed() as session, session.get("/admin/settings", headers={"Host": host}) as answer:
        assert answer.status == 200


async def test_a_page_of_our_own_may_set() -> None:
    logger = logging.getLogger("asyncline")
    before = logger.level
    try:
        async with observed() as session:
            origin = str(session._base_url).rstrip("/")
            headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
            async with session.post("/admin/log-level", data="info", headers=headers) as answer:
                assert answer.status == 200
    finally:
        logger.setLevel(before)


async def test_with_a_token_the_token_decides() -> None:
    headers = {"Authorization": "Bearer secret", "Host": "models.example", "Origin": "https://console.example"}
    async with observed(auth_token="secret") as session:
        async with session.get("/admin/settings", headers=headers) as answer:
            assert answer.status == 200
