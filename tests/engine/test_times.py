"""Times of Items: each is handed over once, when its Item has ended, whatever the order."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import numpy as np

from asyncline import Graph, Op, Request, op
from asyncline.engine.hooks import Observer
from asyncline.engine.item import DATA_ID, STARTED_AT, TOTAL, Item
from asyncline.engine.times import MOST_NOTED, MOST_NUMBERS, PAGE
from asyncline.settings import Source, merge
from asyncline.testing import run_virtual, virtual_engine


class Wait(Op):
    async def preprocess(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds


@op(cpu="inline")
def same(x: Any) -> Any:
    return x


class Seen(Observer):
    def __init__(self) -> None:
        self.times: list[list[float]] = []
        self.sizes: list[int] = []
        self.noted: list[int] = []

    def items_done(self, times: np.ndarray) -> None:
        self.times += times.tolist()
        self.sizes.append(len(times))

    def item_noted(self, item: Item) -> None:
        self.noted.append(item.data_id)

    @property
    def data_ids(self) -> list[int]:
        return [int(times[DATA_ID]) for times in self.times]


def test_an_item_is_handed_over_once_it_has_ended_and_only_once() -> None:
    async def main() -> None:
        seen = Seen()
        async with virtual_engine(Graph("g", Wait(Request()))) as engine:
            engine.hooks.add(seen)
            slow, quick, slower = [engine.begin(seconds) for seconds in (2.0, 1.0, 3.0)]
            await quick.wait()
            engine.hand_over()
            engine.hand_over()
            assert seen.data_ids == [quick.data_id]
            for item in (slow, slower):
                await item.wait()
            engine.hand_over()
            assert seen.data_ids == [quick.data_id, slow.data_id, slower.data_id]
            assert seen.times == [quick.times, slow.times, slower.times]
            assert [(times[STARTED_AT], times[TOTAL]) for times in seen.times] == [
                (quick.started_at, 1.0),
                (slow.started_at, 2.0),
                (slower.started_at, 3.0),
            ]

    run_virtual(main())


def test_items_are_handed_over_by_themselves_as_others_begin() -> None:
    seen = Seen()

    async def main() -> int:
        async with virtual_engine(Graph("g", same(Request())), observers=[seen]) as engine:
            numbers = len(engine.begin(0).times)
            enough = -(-MOST_NUMBERS // numbers)
            for _ in range(enough + PAGE):
                engine.begin(0)
            return enough

    enough = run_virtual(main())
    assert seen.sizes == [enough] and sorted(seen.data_ids) == [*range(1, enough + 1)]


def test_items_that_end_together_are_handed_over_in_blocks_no_larger_than_others() -> None:
    seen = Seen()

    async def main() -> tuple[int, int]:
        wait = Wait(Request(), channel_size=4000)
        settings = merge("g", {"wait": wait.code_settings}, Source("test", {"service": {"max_in_flight": 4000}}))
        async with virtual_engine(Graph("g", wait), settings=settings, observers=[seen]) as engine:
            items = [engine.begin(1.0) for _ in range(4000)]
            await asyncio.gather(*(item.wait() for item in items))
            engine.hand_over()
            return len(items[0].times), len(items)

    numbers, count = run_virtual(main())
    assert sum(seen.sizes) == count == len(set(seen.data_ids))
    assert max(seen.sizes) * numbers < MOST_NUMBERS + numbers


def test_those_of_which_there_is_more_to_tell_come_by_themselves_when_they_are_many() -> None:
    seen = Seen()

    async def main() -> None:
        async with virtual_engine(Graph("g", Wait(Request())), observers=[seen]) as engine:
            items = [engine.begin(1.0, log_id="mine") for _ in range(MOST_NOTED + 1)]
            await asyncio.gather(*(item.wait() for item in items))
            assert seen.sizes == [MOST_NOTED] and sorted(seen.data_ids) == sorted(seen.noted[:-1])

    run_virtual(main())


def test_nothing_is_kept_for_nobody() -> None:
    async def main() -> None:
        async with virtual_engine(Graph("g", same(Request()))) as engine:
            for _ in range(10 * PAGE):
                engine.begin(0)
            seen = Seen()
            engine.hooks.add(seen)
            engine.begin(0)
            engine.hand_over()
            # Perhaps some from before, but no more than a page of them.
            assert 10 * PAGE + 1 in seen.data_ids and len(seen.data_ids) <= PAGE + 1

    run_virtual(main())


def test_whoever_comes_while_items_are_in_flight_has_all_of_these() -> None:
    async def main() -> None:
        async with virtual_engine(Graph("g", Wait(Request()))) as engine:
            items = [engine.begin(1.0) for _ in range(3 * PAGE)]
            seen = Seen()
            engine.hooks.add(seen)
            await asyncio.gather(*(item.wait() for item in items))
            engine.hand_over()
            assert sorted(seen.data_ids) == [item.data_id for item in items]

    run_virtual(main())


def test_data_ids_are_unique_whoever_makes_them() -> None:
    async def main() -> None:
        async with virtual_engine(Graph("g", same(Request()))) as engine:
            found = []
            for n in range(3 * PAGE):
                found.append(engine.begin(0).data_id)
                if n % 5 == 0:
                    found.append(next(engine.ids))
            assert len(set(found)) == len(found)

    run_virtual(main())


def test_an_engine_that_is_let_go_is_freed() -> None:
    async def main() -> Any:
        async with virtual_engine(Graph("g", same(Request()))) as engine:
            engine.begin(0)
            return weakref.ref(engine.admission)

    admission = run_virtual(main())
    gc.collect()
    assert admission() is None
