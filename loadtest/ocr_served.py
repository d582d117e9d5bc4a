"""The served OCR graph, and clients that post pages to it."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from loadtest.child import Child
from loadtest.report import BenchmarkFailed

APP, CONFIG = "ops.ocr:graph", "config/ocr.yml"
CLIENTS = 8
PAGE_S = 120.0


class ServedOcr:
    """`asyncline serve ops.ocr:graph` under CLIENTS clients at most, each with a page in flight.

    :param child: serves that graph in another way.
    """

    name = "asyncline"

    def __init__(self, pages: Sequence[Path], child: Child | None = None) -> None:
        self._pages = [path.read_bytes() for path in pages]
        self._child = child or Child("asyncline", "serve", APP, "--config", CONFIG, "--http-port", "0")
        self._loop = asyncio.Runner()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._child)
            stack.enter_context(self._loop)
            self.address = self._child.address()
            self._session = self._loop.run(self._open())
            stack.callback(lambda: self._loop.run(self._session.close()))
            self.read([*range(len(self._pages))] * 2)  # warm
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self, pages: Sequence[int]) -> list[list[str]]:
        """The texts of pages by number."""
        return self._loop.run(self._post_all(pages))

    def cpu_s(self) -> float:
        return self._child.cpu_s()

    async def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.address, timeout=aiohttp.ClientTimeout(PAGE_S))

    async def _post_all(self, pages: Sequence[int]) -> list[list[str]]:
        clients = asyncio.Semaphore(CLIENTS)
        async with asyncio.TaskGroup() as tasks:
            posts = [tasks.create_task(self._post(page, clients)) for page in pages]
        return [post.result() for post in posts]

    async def _post(self, page: int, clients: asyncio.Semaphore) -> list[str]:
        headers = {"Content-Type": "image/jpeg"}
        try:
            async with clients, self._session.post("/ocr", data=self._pages[page], headers=headers) as answer:
                if answer.status == 200:
                    return [line["text"] for line in (await answer.json())["lines"]]
                problem = f"{answer.status}: {await answer.text()}"
        except (aiohttp.ClientError, TimeoutError) as error:
            problem = repr(error)
        raise BenchmarkFailed(f"{self.name} answered page {page} with {problem}")
