"""Batching as one would write it: a batch closes when it is full, or a fixed time after a thread is free for it."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self


class TimedBatcher:
    """One thread that runs `process` on up to `size` samples; for the length of an `async with`.

    :param timer_s: how long it waits for more of them after the first one; 0 takes what is there.
    """

    def __init__(self, process: Callable[[list[Any]], Sequence[Any]], size: int, timer_s: float) -> None:
        self._process = process
        self._size = size
        self._timer_s = timer_s
        self._waiting: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._work(), name="timed batcher")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        self._thread.shutdown()

    async def submit(self, sample: Any) -> Any:
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.put_nowait((sample, answer))
        return await answer

    async def _work(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            closes_at = self._loop.time() + self._timer_s
            while self._fill(batch) < self._size and self._timer_s:
                try:
                    async with asyncio.timeout_at(closes_at):
                        batch.append(await self._waiting.get())
                except TimeoutError:
                    break
            results = await self._loop.run_in_executor(self._thread, self._process, [sample for sample, _ in batch])
            for (_, answer), result in zip(batch, results, strict=True):
                answer.set_result(result)

    def _fill(self, batch: list[tuple[Any, asyncio.Future[Any]]]) -> int:
        while len(batch) < self._size and not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
        return len(batch)
