"""Gathering, and what Statistics count of it: nothing is lost between an Item's outcome and the counts."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from typing import Any

import pytest

from asyncline import Engine, Graph, ProductError, Reply, Request, op
from asyncline.engine.item import DATA_ID, STARTED_AT, TOTAL, Item
from asyncline.engine.times import MOST_NOTED, MOST_NUMBERS, PAGE
from asyncline.observe.gathering import Block, Gathering
from asyncline.observe.statistics import Statistics
from asyncline.testing import run_virtual, virtual_engine


class Payload(str):
    """Can be referred to weakly."""


@op(cpu="inline")
def first(x: Any) -> Any:
    if x == "bad":
        raise ProductError("not_today", "no")
    return x


@op(cpu="inline")
def second(x: Any) -> Any:
    return Reply(x) if x == "early" else x


@op(cpu="inline")
def third(x: Any) -> Any:
    return x


GRAPH = Graph("g", third(second(first(Request()))))
ENOUGH = -(-MOST_NUMBERS // (3 * 2 + 3))
"""Items of a whole Block."""


def run(observer: Gathering, engine: Engine, payloads: list[Any], **options: Any) -> list[Item]:
    engine.hooks.add(observer)
    return [engine.begin(payload, **options) for payload in payloads]


def gathered(payloads: list[Any], **options: Any) -> tuple[list[Block], list[Item]]:
    async def main() -> tuple[list[Block], list[Item]]:
        async with virtual_engine(GRAPH) as engine:
            gathering = Gathering(engine)
            blocks: list[Block] = []
            gathering.takers.append(blocks.append)
            items = run(gathering, engine, payloads, **options)
            gathering.hand_over()
            gathering.hand_over()
            return blocks, items

    return run_virtual(main())


def test_items_are_handed_on_when_they_are_enough_and_when_they_are_wanted() -> None:
    blocks, items = gathered(["x"] * (2 * ENOUGH + 5))
    assert [len(block.rows) for block in blocks] == [ENOUGH, ENOUGH, 5]
    rows = [row for block in blocks for row in block.rows.tolist()]
    assert rows == [item.times for item in items]
    assert rows[7][DATA_ID] == 8
    assert (rows[7][TOTAL], rows[7][STARTED_AT]) == (items[7].times[TOTAL], items[7].started_at)


def test_items_with_notes_are_handed_on_when_those_are_enough() -> None:
    blocks, _ = gathered(["x"] * (2 * MOST_NOTED + 1), log_id="mine")
    assert [len(block.rows) for block in blocks] == [MOST_NOTED, MOST_NOTED, 1]
    assert [block.places for block in blocks] == [[*range(MOST_NOTED)], [*range(MOST_NOTED)], [0]]


def test_a_note_has_the_place_of_its_row() -> None:
    bad = {0, 1, PAGE - 1, PAGE, 2 * PAGE + 3, ENOUGH - 1, ENOUGH, ENOUGH + PAGE}
    blocks, items = gathered(["bad" if n in bad else "x" for n in range(2 * ENOUGH)])
    assert [len(block.rows) for block in blocks] == [ENOUGH, ENOUGH]
    noted = [note.data_id for block in blocks for note in block.notes]
    assert noted == [items[place].data_id for place in sorted(bad)]
    assert noted == [row[DATA_ID] for block in blocks for row in block.rows[block.places].tolist()]


def test_only_what_is_out_of_the_ordinary_has_a_note() -> None:
    (block,), _ = gathered(["x", "bad", "x", "early"])
    assert block.places == [1, 3]
    assert [(note.data_id, note.code, note.message, note.done) for note in block.notes] == [
        (2, "product", "no", ()),
        (4, "ok", "", (0,)),
    ]
    (block,), _ = gathered(["x", "x"], log_id="mine", traceparent="00-ab-cd-01")
    assert block.places == [0, 1]
    assert [(note.data_id, note.log_id, note.traceparent, note.code, note.done) for note in block.notes] == [
        (1, "mine", "00-ab-cd-01", "ok", None),
        (2, "mine", "00-ab-cd-01", "ok", None),
    ]


def test_the_values_of_an_item_are_not_kept() -> None:
    async def main() -> tuple[Any, Any]:
        async with virtual_engine(GRAPH) as engine:
            gathering = Gathering(engine)
            good, bad = Payload("x"), Payload("bad")
            refs = weakref.ref(good), weakref.ref(bad)
            run(gathering, engine, [good, bad], log_id="mine")
            del good, bad
            gc.collect()
            found = refs[0](), refs[1]()
            gathering.hand_over()
            return found

    assert run_virtual(main()) == (None, None)


def test_a_taker_that_raises_is_removed_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    blocks: list[Block] = []

    def raising(block: Block) -> None:
        raise ValueError("no more")

    async def main() -> Gathering:
        async with virtual_engine(GRAPH) as engine:
            gathering = Gathering(engine)
            gathering.takers += [raising, blocks.append]
            run(gathering, engine, ["x"] * 2 * ENOUGH)
            gathering.hand_over()
            return gathering

    with caplog.at_level(logging.ERROR, "asyncline.observe"):
        gathering = run_virtual(main())
    assert [len(block.rows) for block in blocks] == [ENOUGH, ENOUGH]
    assert gathering.takers == [blocks.append]
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_every_request_is_counted_once_by_its_outcome_and_at_the_ops_that_were_done_with_it() -> None:
    payloads = ["x", "bad", "early", "x", "x"] * 601

    async def main() -> tuple[Statistics, list[Item]]:
        async with virtual_engine(GRAPH) as engine:
            statistics = Statistics(engine)
            items = run(statistics, engine, payloads)
            statistics.fold()
            return statistics, items

    statistics, items = run_virtual(main())
    assert statistics.outcomes == {"ok": 4 * 601, "product": 601}
    assert statistics.request_seconds.count == len(payloads)
    assert statistics.latency.count == 4 * 601
    counts = [statistics.op_seconds[name, "wait"].count for name in ("first", "second", "third")]
    assert counts == [4 * 601, 3 * 601, 3 * 601]
    assert statistics.last_started_at == items[-1].started_at
    assert [failure.data_id for failure in statistics.last_failures][-1] == 5 * 600 + 2


def test_seconds_add_up_whatever_became_of_the_requests() -> None:
    async def main() -> tuple[Statistics, list[Item]]:
        async with Engine(GRAPH) as engine:  # on the real clock: every request takes another time
            statistics = Statistics(engine)
            items = run(statistics, engine, ["x", "bad", "early"] * 50)
            statistics.fold()
            return statistics, items

    statistics, items = asyncio.run(main())
    assert statistics.request_seconds.sum == pytest.approx(sum(item.times[TOTAL] for item in items))
    assert statistics.failed_seconds == pytest.approx(sum(item.times[TOTAL] for item in items if item.error))
    waits = sum(item.times[0] for item in items if not item.error)
    assert statistics.op_seconds["first", "wait"].sum == pytest.approx(waits)
