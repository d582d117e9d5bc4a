"""The timeline: what is kept, and what a trace viewer is given. On a virtual clock."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from asyncline import Graph, Op, ProductError, Request, op
from asyncline.graph.plan import STAGES
from asyncline.observe.gathering import Gathering
from asyncline.observe.timeline.chrome import chrome, encoded
from asyncline.observe.timeline.recorder import Recorder
from asyncline.observe.timeline.records import BatchRecord, Records
from asyncline.observe.timeline.summary import summary
from asyncline.settings import Source, merge
from asyncline.testing import SimulatedLanes, run_virtual, virtual_engine
from tests.observe.trace_format import check_trace


class Get(Op):
    async def preprocess(self, x: Any) -> Any:
        await asyncio.sleep(0.05)
        return x


class Net(Op):
    cpu = "thread"
    batch_size = 4

    def preprocess(self, x: Any) -> Any:
        if x == "bad":
            raise ProductError("bad", "no")
        return x

    def process(self, batch: list[Any]) -> list[Any]:
        return batch

    def postprocess(self, result: Any, x: Any) -> Any:
        return result


@op(cpu="inline")
def merged(x: Any) -> Any:
    return x


TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECONDS = {("net", "preprocess"): 0.1, ("net", "process"): 0.4, ("net", "postprocess"): 0.05}


def recorded(payloads: list[Any], max_nbytes: int = 10**6, since: float = 0.0) -> Records:
    async def main() -> Records:
        graph = Graph("g", merged(Net(Get(Request()))))
        code = {op.name: op.code_settings for op in graph.ops}
        settings = merge("g", code, Source("test", {"dag": {"fuse": False}}))
        lanes = SimulatedLanes(lambda op, hook, size: SECONDS[op, hook])
        async with virtual_engine(graph, lanes, settings) as engine:
            gathering = Gathering(engine)
            recorder = Recorder(engine, gathering, max_nbytes)
            engine.hooks.add(gathering)
            engine.hooks.add(recorder)
            items = [engine.begin(payload, log_id=f"log {n}") for n, payload in enumerate(payloads)]
            await asyncio.gather(*(item.wait() for item in items))
            recorder.gauge(0.001, 5_000_000)
            return recorder.records().between(since, engine.clock())

    return run_virtual(main())


def test_every_request_hook_and_batch_is_kept() -> None:
    kept = recorded([1, 2, "bad"])
    assert sorted((item.data_id, item.log_id, item.code) for item in kept.items) == [
        (1, "log 0", "ok"),
        (2, "log 1", "ok"),
        (3, "log 2", "product"),
    ]
    assert sorted((job.hook, job.data_id, job.failed) for job in kept.jobs if job.op == 1) == [
        ("postprocess", 1, False),
        ("postprocess", 2, False),
        ("preprocess", 1, False),
        ("preprocess", 2, False),
        ("preprocess", 3, True),
    ]
    assert [batch.data_ids for batch in kept.batches] == [(1, 2)] or len(kept.batches) == 2
    assert sum(batch.rows for batch in kept.batches) == 2


@pytest.mark.parametrize("log_id", ["", "a request's own id"])
def test_the_memory_of_the_requests_is_bounded_and_the_newest_are_kept(log_id: str) -> None:
    count, max_nbytes = 15_000, 10**6

    async def main() -> tuple[int, Records]:
        async with virtual_engine(Graph("g", merged(Request())), SimulatedLanes()) as engine:
            gathering = Gathering(engine)
            recorder = Recorder(engine, gathering, max_nbytes)
            engine.hooks.add(gathering)
            tracemalloc.start()
            try:
                for number in range(count):
                    engine.begin(number, log_id=log_id and f"{log_id} {number}")
                return tracemalloc.get_traced_memory()[0], recorder.records().between(0.0, engine.clock())
            finally:
                tracemalloc.stop()

    nbytes, kept = run_virtual(main())
    assert 0.2 * max_nbytes < nbytes < 0.6 * max_nbytes  # their share is 0.45, and some are on their way
    first = kept.items[0].data_id
    assert 1 < first < 0.9 * count
    assert [item.data_id for item in kept.items] == list(range(first, count + 1))
    assert all(item.log_id == (log_id and f"{log_id} {item.data_id - 1}") for item in kept.items)


def test_what_is_kept_is_next_to_nothing_for_the_collector_to_go_through() -> None:
    async def main() -> tuple[int, int]:
        async with virtual_engine(Graph("g", merged(Request())), SimulatedLanes()) as engine:
            gathering = Gathering(engine)
            recorder = Recorder(engine, gathering, 10**6)
            engine.hooks.add(gathering)
            recorder.records()
            before = len(gc.get_objects())
            for number in range(1000):
                engine.begin(number, log_id=f"log {number}")
            gathering.hand_over()
            gc.collect()
            return len(gc.get_objects()) - before, len(recorder.records().between(0.0, engine.clock()).items)

    more, kept = run_virtual(main())
    assert kept == 1000 and more < 50


def test_the_memory_of_the_hooks_is_bounded_and_the_newest_are_kept() -> None:
    payloads = list(range(500))
    everything, kept = recorded(payloads), recorded(payloads, max_nbytes=10**5)
    assert 0 < len(kept.jobs) <= 0.35 * 10**5 / 64
    assert kept.jobs == everything.jobs[-len(kept.jobs) :]


def test_a_time_leaves_out_what_ended_before_it() -> None:
    everything = recorded(list(range(20)))
    ends = sorted(item.ended_at for item in everything.items)
    late = recorded(list(range(20)), since=ends[10])
    assert sorted(item.ended_at for item in late.items) == [end for end in ends if end >= ends[10]]


def test_a_trace_is_what_the_format_says() -> None:
    events = check_trace(json.loads(encoded(recorded([1, 2, 3, "bad", *range(20)]))))
    assert {event["ph"] for event in events} == set("XbestfCM")


def test_slices_of_a_row_do_not_overlap() -> None:
    rows = defaultdict(list)
    for event in chrome(recorded(list(range(30))))["traceEvents"]:
        if event["ph"] == "X":
            rows[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert len(rows) > 30
    for slices in rows.values():
        slices.sort()
        assert all(end <= start for (_, end), (start, _) in pairwise(slices))


def test_each_arrow_begins_at_a_request_and_goes_through_its_slices() -> None:
    events = chrome(recorded([1, 2]))["traceEvents"]
    slices = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            slices[event["pid"], event["tid"]].append(event)

    def slice_at(event: dict[str, Any]) -> str:
        (found,) = [
            one for one in slices[event["pid"], event["tid"]] if one["ts"] <= event["ts"] <= one["ts"] + one["dur"]
        ]
        return str(found["name"])

    way = [(event["ph"], slice_at(event)) for event in events if event.get("cat") == "flow" and event["id"] == 1]
    assert way == [
        ("s", "request 1"),
        ("t", "get.preprocess"),
        ("t", "net.preprocess"),
        ("t", "net.process"),
        ("f", "net.postprocess"),
    ]


def test_waits_are_shown_between_what_they_are_for() -> None:
    events = chrome(recorded(list(range(8))))["traceEvents"]
    begun = {(event["id"], event["name"]): event["ts"] for event in events if event["ph"] == "b"}
    ended = {(event["id"], event["name"]): event["ts"] for event in events if event["ph"] == "e"}
    assert begun.keys() == ended.keys()
    assert any(name == "net wait" and ended[key, name] - start > 1e5 for (key, name), start in begun.items())


def test_counters_have_the_channels_and_the_memory() -> None:
    counters = {event["name"]: event["args"] for event in chrome(recorded([1]))["traceEvents"] if event["ph"] == "C"}
    assert counters == {
        "in flight": {"requests": 0},
        "channel depth": {"get": 0, "net": 0, "merged": 0},
        "loop lag": {"ms": 1.0},
        "memory": {"MB": 5.0},
    }


def rows_of(records: Records) -> list[str]:
    events = chrome(records)["traceEvents"]
    names = {
        event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name" and event["pid"] == 2
    }
    order = {event["tid"]: event["args"]["sort_index"] for event in events if event["name"] == "thread_sort_index"}
    return sorted(names.values(), key=lambda name: order[next(tid for tid, one in names.items() if one == name)])


def test_batches_of_one_replica_that_overlap_have_rows_of_their_own() -> None:
    kept = recorded([1])
    batch = BatchRecord(1, 0, 1.0, 2.0, 1, (1,), (0.0,), False)
    overlapping = replace(kept, batches=[batch, batch._replace(started_at=1.5, ended_at=2.5)])
    assert [name for name in rows_of(overlapping) if "replica" in name] == ["net replica 0", "net replica 0 (2)"]


def test_rows_stand_in_the_order_of_the_graph_then_lanes_then_the_loop() -> None:
    kept = recorded([1])
    times = [*kept.items[0].times]
    times[2 * len(STAGES) + STAGES.index("pre")] = 0.001
    kept = replace(kept, items=[kept.items[0]._replace(times=times)])
    assert rows_of(kept) == ["get async", "net replica 0", "thread lane worker 1", "event loop"]


def test_the_json_is_written_event_by_event_and_is_the_same() -> None:
    kept = recorded([1, 2])
    assert json.loads(encoded(kept)) == json.loads(json.dumps(chrome(kept)))


def test_the_trace_context_that_came_in_is_shown() -> None:
    kept = recorded([1])
    items = [kept.items[0]._replace(traceparent=TRACEPARENT)]
    (request,) = [event for event in chrome(replace(kept, items=items))["traceEvents"] if event.get("cat") == "request"]
    assert request["args"]["traceparent"] == TRACEPARENT


def test_a_summary_adds_up_to_what_the_file_has() -> None:
    lines = list(summary(chrome(recorded([1, 2, 3, 4, "bad"]))))
    assert lines[0] == "5 requests (4 ok, 1 product)"
    table = {line.split()[0]: line.split()[1:] for line in lines[2:] if " wait " not in line}
    assert table["net.preprocess"] == ["5", "100.000", "100.000", "100.000", "0.500"]
    assert table["net.postprocess"][0] == "4"


@pytest.mark.parametrize("trace", [{}, {"traceEvents": 5}, {"traceEvents": []}])
def test_what_is_no_trace_is_refused(trace: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no "):
        list(summary(trace))
