"""JPEG decode in the lane of threads: two of them against one, and whose memory the consumer gets.

Beside it two bare threads against one, which is what the machine gives.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import simplejpeg
import uvloop

from asyncline import Engine, Graph, Request, op
from asyncline.images import Decode
from asyncline.settings import Source, merge
from loadtest.pairs import Spread, interleave
from loadtest.photos import photo
from loadtest.report import BenchmarkFailed, Budget, Report, Row

SIZE = 1200, 834  # pixels, 1 MP: width, height
THREADS = 2
CALLERS = 4
IMAGES = 120
"""Of one run."""
MIN_PAIRS = 9
"""Runs are short, for other work on the machine to meet as few of them as possible."""
WHAT = f"JPEG decode, 1 MP, lane of {THREADS} threads against one"
WHAT_BARE = f"JPEG decode, 1 MP, {THREADS} bare threads against one"


@op(cpu="inline")
def address(pixels: Any) -> int:
    """The consumer: where in memory its pixels lie."""
    if pixels.shape != (SIZE[1], SIZE[0], 3):
        raise ValueError(f"got {pixels.shape}")
    return int(pixels.__array_interface__["data"][0])


def decoding(threads: int) -> Engine:
    """A graph of Decode and a consumer, on `threads` threads."""
    graph = Graph("decode", address(Decode(Request())))
    code = {each.name: each.code_settings for each in graph.ops}
    return Engine(graph, merge(graph.name, code, Source("benchmark", {"dag": {"cpu_threads": threads}})))


async def images_per_s(engine: Engine, image: bytes) -> float:
    async def caller() -> None:
        for _ in range(IMAGES // CALLERS):
            await engine.submit(image)

    started_at = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CALLERS):
            tasks.create_task(caller())
    return IMAGES / (time.perf_counter() - started_at)


async def bare_images_per_s(threads: int, image: bytes) -> float:
    """Of a program that does nothing else, and drops what it decodes."""
    loop = asyncio.get_running_loop()

    def decode() -> None:
        simplejpeg.decode_jpeg(image)

    with ThreadPoolExecutor(threads) as pool:
        started_at = time.perf_counter()
        await asyncio.gather(*[loop.run_in_executor(pool, decode) for _ in range(IMAGES)])
        return IMAGES / (time.perf_counter() - started_at)


async def copies(engine: Engine, image: bytes) -> bool:
    """Whether the consumer's pixels lie elsewhere than the decoder wrote them."""
    written: list[int] = []
    real = simplejpeg.decode_jpeg

    def watched(*args: Any, **kwargs: Any) -> Any:
        pixels = real(*args, **kwargs)
        written.append(pixels.__array_interface__["data"][0])
        return pixels

    simplejpeg.decode_jpeg = watched
    try:
        read = await engine.submit(image)
    finally:
        simplejpeg.decode_jpeg = real
    if len(written) != 1:
        raise BenchmarkFailed(f"one image was decoded {len(written)} times")
    return bool(read != written[0])


def measure(pairs: int) -> Report:
    """At least MIN_PAIRS pairs of runs on THREADS threads and on one."""
    image = photo(*SIZE)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        stack = AsyncExitStack()
        several, one = (loop.run(stack.enter_async_context(decoding(threads))) for threads in (THREADS, 1))
        try:
            copied = loop.run(copies(several, image))
            for engine in (several, one):
                loop.run(images_per_s(engine, image))  # the first ones fill caches
            turns = interleave(
                max(pairs, MIN_PAIRS),
                lambda: loop.run(images_per_s(several, image)),
                lambda: loop.run(images_per_s(one, image)),
                lambda: loop.run(bare_images_per_s(THREADS, image)),
                lambda: loop.run(bare_images_per_s(1, image)),
            )
        finally:
            loop.run(stack.aclose())
    if copied:
        raise BenchmarkFailed("the consumer's pixels are a copy of the decoder's")
    rows = [
        Row(
            what,
            "images/s",
            Spread.of(turn[place] for turn in turns),
            Spread.of(turn[place + 1] for turn in turns),
            Spread.of(turn[place] / turn[place + 1] for turn in turns),
            budget,
        )
        for what, place, budget in ((WHAT, 0, Budget("≥", 1.8)), (WHAT_BARE, 2, None))
    ]
    note = (
        f"JPEG decode: {len(turns)} pairs of {IMAGES} images, {SIZE[0]} x {SIZE[1]} pixels in {len(image) // 1000} kB, "
        f"{CALLERS} callers; checked in this run: the pixels that the consumer gets lie where the decoder wrote them."
    )
    return Report(rows, [note])
