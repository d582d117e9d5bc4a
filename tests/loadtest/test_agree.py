"""Dashboard, tracer, `asyncline top`, timeline and `/metrics` of one load, told in the same numbers.

A graph of the OCR graph's shape on the virtual clock: decode, detect, lines of each page as samples, and batches.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from asyncline import Each, Graph, Op, ProductError, Request, RequestError
from asyncline.observe.observing import Observing
from asyncline.settings import Source, merge
from asyncline.testing import SimulatedLanes, run_virtual, virtual_engine
from asyncline.tools import top
from loadtest.agree_read import blocks
from loadtest.agree_story import Story


class Decode(Op):
    cpu = "thread"

    def preprocess(self, page: int) -> int:
        if page % 10 == 3:
            raise ProductError("no_page", "nothing is on it")
        return page


class Detect(Op):
    concurrency = 2

    def process(self, batch: list[int]) -> list[int]:
        return batch

    def postprocess(self, found: int, page: int) -> int:
        return found


class Recognise(Op):
    batch_size = 4

    def preprocess(self, page: int) -> Each:
        return Each(range(page % 7))

    def process(self, batch: list[int]) -> list[int]:
        return batch


def seconds(op: str, hook: str, size: int) -> float:
    """No sum of these is the bound of a bucket, on which rounding would put a request to either side."""
    one = {"decode": 0.010013, "detect": 0.110017, "recognise": 0.030007 + 0.010003 * size}[op]
    return one * (1.0 if hook == "process" else 0.2)


def picture(moment: top.Moment) -> str:
    console = Console(file=io.StringIO(), width=2000)
    console.print(top.block(json.loads(json.dumps(moment)), "http://a:1"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    lines = logging.getLogger("asyncline.tracer")
    written: list[str] = []

    class Written(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(record.getMessage())

    async def main() -> Story:
        graph = Graph("pages", Recognise(Detect(Decode(Request()))))
        code = {op.name: op.code_settings for op in graph.ops}
        settings = merge(graph.name, code, Source("test", {"dag": {"tracer": {"interval_s": 10}}}))
        async with virtual_engine(graph, SimulatedLanes(seconds), settings) as engine:
            observing = Observing(engine, settings)
            observing.start()
            moments: list[Any] = []
            unwatch = observing.watch(lambda: moments.append(observing.now()))
            answers = [0, 0]

            async def client(first: int) -> None:
                for page in range(first, 400, 8):
                    try:
                        await engine.submit(page, timeout=20)
                        answers[0] += 1
                    except RequestError:
                        answers[1] += 1

            clients = asyncio.gather(*map(client, range(8)))
            await asyncio.sleep(13.5)
            assert not clients.done()
            shown = picture(moments[-1])
            await clients
            await asyncio.sleep(12)
            make = observing.timeline(600)
            assert make is not None
            timeline = json.loads(make())
            unwatch()
            observing.close()
            metrics, _ = await observing.metrics.render()
            client_told = {"requests": float(sum(answers)), "requests ok": float(answers[0])}
            return Story(client_told, moments, "\n".join(written), shown, timeline, metrics.decode())

    handler = Written()
    lines.addHandler(handler)
    before = lines.level
    lines.setLevel(logging.INFO)
    try:
        yield run_virtual(main())
    finally:
        lines.removeHandler(handler)
        lines.setLevel(before)


def test_all_five_tell_the_same(story: Story) -> None:
    totals = story.totals()
    assert all(told["requests"] == 400 and told["requests ok"] == 360 for told in totals.values())
    assert totals["/metrics"]["recognise rows"] == sum(page % 7 for page in range(400) if page % 10 != 3)
    assert story.differences() == []


@pytest.mark.parametrize(
    ("source", "true", "false"),
    [
        ("tracer", "Query count[", "Query count[1"),
        ("tracer", "\t\t.95[", "\t\t.95[9"),
        ("tracer", "batch size[", "batch size[1"),
        ("tracer", "is device-bound", "is CPU-bound"),
        ("top", "p99 ", "p99 1"),
        ("top", "is device-bound", "is CPU-bound"),
        ("metrics", 'asyncline_batch_size_sum{op="recognise"} ', 'asyncline_batch_size_sum{op="recognise"} 1'),
        ("metrics", 'asyncline_request_seconds_bucket{le="0.25"} ', 'asyncline_request_seconds_bucket{le="0.25"} 1'),
    ],
)
def test_whoever_tells_something_else_is_found(story: Story, source: str, true: str, false: str) -> None:
    said = getattr(story, source)
    assert true in said
    assert dataclasses.replace(story, **{source: said.replace(true, false, 1)}).differences()


def test_the_id_of_a_failed_request_is_no_figure() -> None:
    block = "==== TRACER ====\nDAGExecutor:\n\tQuery count[2]\n\tSucc[0.5]\n\tError req[8]\n"
    assert blocks(block) == [({"requests": 2.0, "success": 0.5}, "")]


def test_a_slice_that_is_missing_from_the_timeline_is_found(story: Story) -> None:
    *events, last = (event for event in story.timeline["traceEvents"] if event["ph"] == "X")
    assert events and last
    assert dataclasses.replace(story, timeline={"traceEvents": events}).differences()
