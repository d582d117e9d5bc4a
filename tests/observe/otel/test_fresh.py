"""What has ended since the last time: nothing twice, and nothing left out."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncline import Graph, Request, op
from asyncline.graph.plan import plan
from asyncline.observe.otel.fresh import Fresh, Taken
from asyncline.observe.otel.ids import Ids
from asyncline.observe.timeline.kept import Kept, KeptItems
from asyncline.observe.timeline.records import BatchRecord
from asyncline.settings import merge


@op(cpu="inline")
def same(x: Any) -> Any:
    return x


GRAPH = Graph("g", same(Request()))
PLAN = plan(GRAPH, merge("g", {each.name: each.code_settings for each in GRAPH.ops}))


def item(data_id: int, ended_at: float) -> list[float]:
    """Its times, when it began, its id."""
    return [0.0, 0.0, 0.0, 0.0, 0.5, ended_at - 0.5, data_id]


def batch(ended_at: float) -> BatchRecord:
    return BatchRecord(0, 0, ended_at - 0.1, ended_at, 1, (1,), (0.0,), False)


def taken(
    at: float,
    items: list[list[float]],
    batches: list[BatchRecord] = [],  # noqa: B006  # read only
    done: int = 0,
    texts: list[int | str | None] = [],  # noqa: B006  # read only
) -> Taken:
    """Request 1 is in flight."""
    rows = [KeptItems(np.array(items), texts)] if items else []
    return Taken(Kept(PLAN, rows, [], batches, []), at, 0, done, {1: None})


def test_each_request_is_picked_once() -> None:
    fresh, kept = Fresh(Ids(1.0)), []
    found = []
    for at in range(1, 20):
        kept.append(item(at, at - 0.3))
        items, _, missed = fresh.pick(taken(float(at), kept, done=at))
        assert missed == 0
        found += [one.data_id for one in items]
    assert found == list(range(1, 20))


def test_what_ended_at_the_very_moment_is_picked_once() -> None:
    fresh = Fresh(Ids(1.0))
    assert len(fresh.pick(taken(1.0, [item(1, 1.0)], done=1))[0]) == 1
    assert len(fresh.pick(taken(2.0, [item(1, 1.0)], done=1))[0]) == 0


def test_a_batch_that_the_loop_heard_of_late_is_picked_once() -> None:
    fresh = Fresh(Ids(1.0))
    assert fresh.pick(taken(1.0, []))[1] == []
    late = batch(0.9)
    assert fresh.pick(taken(2.0, [], [late]))[1] == [late]
    assert fresh.pick(taken(3.0, [], [late, batch(2.5)]))[1] == [batch(2.5)]


def test_what_the_timeline_had_no_room_for_is_counted() -> None:
    fresh = Fresh(Ids(1.0))
    assert fresh.pick(taken(1.0, [item(n, 0.5) for n in range(8, 11)], done=10))[2] == 7
    assert fresh.pick(taken(2.0, [item(n, 1.5) for n in range(13, 16)], done=15))[2] == 2


def test_only_those_that_are_sampled_are_made_and_all_are_counted() -> None:
    fresh = Fresh(Ids(0.0))
    asked, not_asked = (f"00-{'a' * 32}-{'b' * 16}-0{flag}" for flag in (1, 0))
    texts: list[int | str | None] = [1, "", asked, "ok", 2, "", not_asked, "ok", 3, "mine", None, "ok"]
    batches = [BatchRecord(0, 0, 0.1 * n, 0.5, 1, (n,), (0.0,), False) for n in (1, 7, 8)]
    found = fresh.pick(taken(1.0, [item(n, 0.5) for n in range(6, 11)], batches, 6, texts))
    assert [(one.data_id, one.traceparent) for one in found[0]] == [(7, asked)]
    assert [batch.data_ids for batch in found[1]] == [(7,)]  # that of 1, which is in flight, is not sampled either
    assert found[2] == 1
    assert fresh.pick(taken(2.0, [item(n, 0.5) for n in range(6, 11)], batches, 6, texts)) == ([], [], 0)
