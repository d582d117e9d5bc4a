"""Downloads by Fetch: their rate beside the one that their number at once allows, and the lag of the loop meanwhile."""

import asyncio
import time
from dataclasses import dataclass

import numpy as np
import uvloop

from asyncline import Engine, Graph, Image, Request, RequestError
from asyncline.images import Fetch, UrlPolicy
from loadtest.child import Child
from loadtest.fetch_origin import DELAY_S, NBYTES, image
from loadtest.pairs import Spread
from loadtest.report import BenchmarkFailed, Budget, Report, Row

IMAGES = 200
AT_ONCE = 20
"""From one host; 200 are ten full rounds of them. Fetch's own default is 16."""
EVERY_S = 0.005
"""How often the lag of the loop is looked at."""
BOUND_PER_S = AT_ONCE / DELAY_S


@dataclass(frozen=True)
class Turn:
    """What came of one go."""

    images_per_s: float
    lag_p99_ms: float


async def note_lags(lags_ms: list[float]) -> None:
    """Note by how much the loop is late, again and again."""
    while True:
        due_at = time.perf_counter() + EVERY_S
        await asyncio.sleep(EVERY_S)
        lags_ms.append((time.perf_counter() - due_at) * 1e3)


async def fetch_all(engine: Engine, origin: str, turn: int) -> Turn:
    """Ask for IMAGES at once, none of which was asked for before.

    :raises BenchmarkFailed: one did not come, or is another's.
    """
    paths = [f"/{turn}/{number}.jpg" for number in range(IMAGES)]
    lags_ms: list[float] = []
    started_at = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(engine.submit({"image": origin + path})) for path in paths]
            noting = tasks.create_task(note_lags(lags_ms))
            await asyncio.wait(asking)
            elapsed_s = time.perf_counter() - started_at
            noting.cancel()
    except* RequestError as failures:
        raise BenchmarkFailed(str(failures.exceptions[0])) from None
    for path, asked in zip(paths, asking, strict=True):
        if asked.result() != image(path):
            raise BenchmarkFailed(f"the image at {path} is another's")
    return Turn(IMAGES / elapsed_s, float(np.percentile(lags_ms, 99)))


def measure(pairs: int) -> Report:
    """`pairs` turns of IMAGES downloads."""
    policy = UrlPolicy(allow_cidrs=["127.0.0.1/32"])
    graph = Graph("fetch", Fetch(Request(image=Image(url=True)).image, policy=policy, per_host=AT_ONCE))
    with Child("loadtest.fetch_origin") as child, asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        origin = child.address()
        engine = Engine(graph)
        loop.run(engine.start())
        try:
            loop.run(fetch_all(engine, origin, 0))  # makes the connections
            turns = [loop.run(fetch_all(engine, origin, turn)) for turn in range(1, pairs + 1)]
        finally:
            loop.run(engine.close())
    return Report(
        [
            Row(
                f"Fetch, {IMAGES} images of a host that takes {DELAY_S * 1e3:.0f} ms, {AT_ONCE} at once",
                "images/s",
                Spread.of(turn.images_per_s for turn in turns),
                Spread.of([BOUND_PER_S]),
                Spread.of(turn.images_per_s / BOUND_PER_S for turn in turns),
                Budget("≥", 0.9),
            ),
            Row(
                "lag of the loop meanwhile, p99",
                "ms",
                Spread.of(turn.lag_p99_ms for turn in turns),
                budget=Budget("≤", 10, "ms"),
            ),
        ],
        [
            f"Fetch: {pairs} turns, images of {NBYTES / 1e3:g} kB; baseline: what {AT_ONCE} at once could "
            f"bring if nothing but the host took time; lag by timers of {EVERY_S * 1e3:g} ms."
        ],
    )
