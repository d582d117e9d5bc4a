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
