"""Whether dashboard, tracer, `asyncline top`, timeline and `/metrics` tell the same of one load of the OCR graph.

    python -m loadtest.agree [--pages 40]

Counts have to be equal, sums of seconds within 0.1 %, what is of a window as far as it is printed, percentiles within
2 % of exact ones. Exit code 1 where something differs.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import aiohttp

from asyncline.wire import json
from asyncline.wire.events import EventDecoder
from loadtest.agree_story import Story, is_same, pairs
from loadtest.child import ROOT, Child
from loadtest.ocr import LINES, PAGES
from loadtest.ocr_served import APP, CLIENTS, CONFIG, PAGE_S
from loadtest.pages import page
from loadtest.pairs import machine, number
from loadtest.report import BenchmarkFailed

WINDOW_S = 10
"""Of the dashboard, and so between two blocks of the tracer."""
START_S, TOP_S = 10.0, 30.0


class Dashboard:
    """Hears what a server's dashboard is told."""

    def __init__(self) -> None:
        self.graph = ""
        #: The data of the events `figures` that came by themselves, one each second.
        self.moments: list[dict[str, Any]] = []
        self._there = asyncio.Event()
        self._heard = asyncio.Condition()

    @classmethod
    @asynccontextmanager
    async def watching(cls, session: aiohttp.ClientSession) -> AsyncIterator[Self]:
        made = cls()
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(made._listen(session))
            async with asyncio.timeout(START_S):
                await made._there.wait()
            yield made
            listening.cancel()

    async def _listen(self, session: aiohttp.ClientSession) -> None:
        decoder = EventDecoder(16 * 2**20)
        async with session.get("/figures/live", timeout=aiohttp.ClientTimeout(None)) as answer:
            async for data in answer.content.iter_any():
                for kind, text in decoder.feed(data):
                    if kind == "graph":
                        self.graph = json.decode(text)["graph"]
                    elif self._there.is_set():
                        async with self._heard:
                            self.moments.append(json.decode(text))
                            self._heard.notify_all()
                    else:  # the first is of a second that has been
                        self._there.set()
        raise BenchmarkFailed("the dashboard's stream ended")

    async def hear(self, count: int) -> None:
        """Wait for so many more of them."""
        until = len(self.moments) + count
        async with asyncio.timeout(3 * count), self._heard:
            await self._heard.wait_for(lambda: len(self.moments) >= until)


async def watch(address: str, bodies: Sequence[bytes], kind: str, folder: Path) -> Story:
    """Post `bodies` to a server that had no request yet, CLIENTS at a time, and hear what is told of them.

    :param kind: their Content-Type.
    :param folder: where the server writes its logs.
    """
    client: Counter[str] = Counter()
    clients = asyncio.Semaphore(CLIENTS)
    halfway = asyncio.Event()

    async def post(body: bytes) -> None:
        headers = {"Content-Type": kind}
        async with clients, session.post(f"/{dashboard.graph}", data=body, headers=headers) as answer:
            await answer.read()
        client["requests"] += 1
        client["requests ok"] += answer.status == 200
        if client["requests"] >= len(bodies) // 2:
            halfway.set()

    async with (
        aiohttp.ClientSession(address, timeout=aiohttp.ClientTimeout(PAGE_S)) as session,
        Dashboard.watching(session) as dashboard,
    ):
        async with asyncio.TaskGroup() as posting:
            for body in bodies:
                posting.create_task(post(body))
            await halfway.wait()
            top = await asyncio.to_thread(_top, address)
        await dashboard.hear(WINDOW_S + 2)  # by then there is a block that ended after them
        async with session.get("/admin/timeline", params={"seconds": "600"}) as answer:
            timeline = json.decode(await answer.read())
        async with session.get("/metrics") as answer:
            metrics = await answer.text()
        tracer = await asyncio.to_thread((folder / "pipeline.tracer").read_text)
        return Story(dict(client), dashboard.moments, tracer, top, timeline, metrics)


def _top(address: str) -> str:
    # Wide enough for the verdict.
    environment = {**os.environ, "COLUMNS": "2000"}
    command = [sys.executable, "-m", "asyncline", "top", address, "--once"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TOP_S, check=False
    )
    if done.returncode:
        raise BenchmarkFailed(f"asyncline top: {done.stderr}")
    return done.stdout


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.agree", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pages", type=int, default=40, help="that are read")
    options = parser.parse_args()
    # So that a stop from outside ends the server too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    pages = [page(LINES, number, photo=number % 2 == 1) for number in range(PAGES)]
    bodies = [pages[number % PAGES] for number in range(options.pages)]
    where = machine()
    with TemporaryDirectory() as folder:
        arguments = ("--config", CONFIG, "--http-port", "0", "--log-dir", folder)
        with Child("asyncline", "serve", APP, *arguments, f"--set=dag.tracer.interval_s={WINDOW_S}") as child:
            story = asyncio.run(watch(child.address(), bodies, "image/jpeg", Path(folder)))
    print(f"{where}\n\n{_table(story)}\n")
    differences = story.differences()
    for difference in differences:
        print(f"- {difference}")
    print(f"{len(differences)} differences")
    return int(bool(differences))


def _table(story: Story) -> str:
    totals = story.totals()
    lines = [("what", *totals, "same"), tuple("---" for _ in range(len(totals) + 2))]
    lines += [
        (name, *(number(told[source]) if source in told else "–" for source in totals), "yes" if same else "**NO**")
        for name, told in pairs(totals)
        for same in [is_same(name, list(told.values()))]
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
