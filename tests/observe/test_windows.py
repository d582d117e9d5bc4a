"""Figures of windows, and the tracer's blocks: everything on a virtual clock, so that every figure is known."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asyncline import Engine, Graph, Op, ProductError, Request, RequestError
from asyncline.observe.figures import Figures
from asyncline.observe.statistics import Statistics
from asyncline.observe.tracer import HEADLINE, Tracer
from asyncline.observe.verdict import verdict
from asyncline.observe.windows import Windows
from asyncline.settings import Source, merge
from asyncline.testing import SimulatedLanes, run_virtual, virtual_engine


class Prepare(Op):
    cpu = "thread"

    def preprocess(self, x: Any) -> Any:
        if x == "bad":
            raise ProductError("not_today", "no")
        return x


class Net(Op):
    batch_size = 2

    def process(self, batch: list[Any]) -> list[Any]:
        return batch

    def postprocess(self, result: Any, x: Any) -> Any:
        return result


SECONDS = {("prepare", "preprocess"): 0.1, ("net", "process"): 0.4, ("net", "postprocess"): 0.05}


@asynccontextmanager
async def watched(**service: Any) -> AsyncIterator[tuple[Engine, Statistics, Windows]]:
    graph = Graph("g", Net(Prepare(Request())))
    code = {op.name: op.code_settings for op in graph.ops}
    settings = merge("g", code, Source("test", {"service": service, "dag": {"fuse": False}}))
    lanes = SimulatedLanes(lambda op, hook, size: SECONDS[op, hook])
    async with virtual_engine(graph, lanes, settings) as engine:
        statistics = Statistics(engine)
        engine.hooks.add(statistics)
        windows = Windows(engine, statistics)
        windows.start()
        try:
            yield engine, statistics, windows
        finally:
            windows.close()


def test_the_figures_of_a_window_are_those_of_its_requests() -> None:
    async def main() -> Figures:
        async with watched() as (engine, _, windows):
            for payload in (1, 2, 3, "bad"):
                try:
                    await engine.submit(payload)
                except ProductError:
                    pass
            await asyncio.sleep(2)
            return windows.figures(10)

    found = run_virtual(main())
    assert (found.count, dict(found.outcomes)) == (4, {"ok": 3, "product": 1})
    assert found.success == 0.75
    assert found.seconds == pytest.approx(3.0)
    assert found.qps == pytest.approx(4 / 3)
    assert found.latency.count == 3
    assert found.latency.mean_ms == pytest.approx(550)
    assert found.latency.percentiles_ms[99] == pytest.approx(550, rel=0.02)
    prepare, net = found.ops
    assert (prepare.count, prepare.prep_ms, dict(prepare.errors)) == (3, pytest.approx(100), {"product": 1})
    assert (net.count, net.midp_ms, net.postp_ms) == (3, pytest.approx(400), pytest.approx(50))
    assert (net.batches, net.batch_size, net.batch_ms, dict(net.batch_sizes)) == (3, 1.0, pytest.approx(400), {"1": 3})
    assert net.cost_ms == pytest.approx(450)
    assert net.idle == pytest.approx(1 - 1.2 / 3)
    busy = {use.kind: use.busy for use in found.uses}
    # Two workers each; the request that failed had its 0.1 s too.
    assert busy["thread"] == pytest.approx(4 * 0.1 / 2 / 3)
    assert busy["process"] == pytest.approx(3 * 0.05 / 2 / 3)
    assert prepare.idle == pytest.approx(1 - 4 * 0.1 / 2 / 3)


def test_a_window_leaves_out_what_was_before_it() -> None:
    async def main() -> tuple[Figures, Figures]:
        async with watched() as (engine, _, windows):
            await engine.submit(1)
            await asyncio.sleep(5)
            await engine.submit(2)
            await asyncio.sleep(1)
            return windows.figures(2), windows.figures(60)

    short, long = run_virtual(main())
    assert (short.count, long.count) == (1, 2)
    assert short.seconds == pytest.approx(2.0)


def test_a_window_before_the_first_second_is_empty() -> None:
    async def main() -> Figures:
        async with watched() as (engine, _, windows):
            await engine.submit(1)
            return windows.figures(10)

    found = run_virtual(main())
    assert (found.count, found.qps, found.success, found.latency.mean_ms) == (0, 0.0, 1.0, 0.0)


def test_the_peak_of_a_channel_and_the_requests_in_flight_are_seen() -> None:
    async def main() -> Figures:
        async with watched() as (engine, _, windows):
            items = [engine.begin(n) for n in range(12)]
            await asyncio.gather(*(item.wait() for item in items))
            await asyncio.sleep(1)
            return windows.figures(10)

    found = run_virtual(main())
    prepare, net = found.ops
    assert prepare.depth == 0 and prepare.depth_max >= 4
    assert net.in_ms > 400
    assert 1 < found.in_flight_mean < 12
    assert found.in_flight == 0


def test_refusals_are_counted_and_judged() -> None:
    async def main() -> tuple[Figures, str]:
        async with watched(max_in_flight=1) as (engine, _, windows):
            for _ in range(3):
                items = [engine.begin(1)]
                for _ in range(5):
                    with pytest.raises(RequestError):
                        engine.begin(2)
                await items[0].wait()
                await asyncio.sleep(2)
            found = windows.figures(10)
            return found, str(verdict(found, engine.plan))

    found, sentence = run_virtual(main())
    assert dict(found.rejected) == {"overloaded": 15}
    assert sentence.startswith("bottleneck: the door is queue-bound: 15 requests were refused at 1 in flight")


def test_the_tracer_writes_a_block_each_interval(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with watched() as (engine, statistics, windows):
            tracer = Tracer(engine, statistics, windows, 5)
            tracer.start()
            for payload in (1, 2, "bad"):
                try:
                    await engine.submit(payload)
                except ProductError:
                    pass
            await asyncio.sleep(10)
            tracer.close()
            await asyncio.sleep(10)

    with caplog.at_level(logging.INFO, "asyncline.tracer"):
        run_virtual(main())
    text = [record.getMessage() for record in caplog.records if record.name == "asyncline.tracer"]
    first, second = [i for i, line in enumerate(text) if line == HEADLINE]
    assert text[first:second] == [
        HEADLINE,
        "Op(prepare):",
        "\tin[0.000 ms]",
        "\tprep[100.000 ms]",
        "\tmidp[0.000 ms]",
        "\tpostp[0.000 ms]",
        "\tout[0.000 ms]",
        "\tidle[0.97]",
        "\tqueue[0 now, 0 at most]",
        "\terrors[1 product]",
        "Op(net):",
        "\tin[0.000 ms]",
        "\tprep[0.000 ms]",
        "\tmidp[400.000 ms]",
        "\tpostp[50.000 ms]",
        "\tout[0.000 ms]",
        "\tidle[0.84]",
        "\tbatch size[1.00]",
        "\tqueue[0 now, 0 at most]",
        "DAGExecutor:",
        "\tQuery count[3]",
        "\tQPS[0.60 q/s]",
        "\tSucc[0.6667]",
        "\tError req[3]",
        "\tLatency:",
        "\t\tave[550.000 ms]",
        *(line for line in text if line.startswith("\t\t.")),
        "Channel (server worker num[1]):",
        "\tchl0(In: ['@DAGExecutor'], Out: ['prepare']) size[0/1024]",
        "\tchl1(In: ['prepare'], Out: ['net']) size[0/1024]",
        "bottleneck: none yet: op 'net' process will be device-bound first, at about 7.5 requests/s: its replica "
        "is 16% busy at 0.6 requests/s; most of the latency, 400 of 550 ms, is net's process; then set "
        "op.net.batch_size=4 for up to 15 requests/s, if they take no longer",
    ]
    assert [line.partition("[")[0] for line in text if line.startswith("\t\t.")] == [
        f"\t\t.{number}" for number in (50, 60, 70, 80, 90, 95, 99)
    ]
    assert text[second:] == [
        HEADLINE,
        "Channel (server worker num[1]):",
        "\tchl0(In: ['@DAGExecutor'], Out: ['prepare']) size[0/1024]",
        "\tchl1(In: ['prepare'], Out: ['net']) size[0/1024]",
        "bottleneck: none: no requests in the last 5 s",
    ]


def test_a_window_reaches_back_over_the_time_in_which_the_loop_stood_still() -> None:
    async def main() -> Figures:
        async with watched() as (engine, _, windows):
            await asyncio.sleep(3)
            await engine.submit(1)
            loop: Any = asyncio.get_running_loop()
            loop._selector_with_clock.now += 8  # as if a hook had kept it
            await asyncio.sleep(1)
            return windows.figures(8)

    found = run_virtual(main())
    assert found.count == 1 and found.seconds == pytest.approx(9, abs=1)


def test_the_last_second_is_not_empty_when_the_loop_stood_still_for_longer() -> None:
    async def main() -> Figures:
        async with watched() as (engine, _, windows):
            await asyncio.sleep(3)
            await engine.submit(1)
            loop: Any = asyncio.get_running_loop()
            loop._selector_with_clock.now += 8
            await asyncio.sleep(0.1)
            return windows.figures(1)

    found = run_virtual(main())
    assert found.count == 1 and found.seconds == pytest.approx(8.5, abs=0.5)


def test_each_request_is_in_one_block_of_the_tracer_though_the_loop_is_late(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> int:
        async with watched() as (engine, statistics, windows):
            tracer = Tracer(engine, statistics, windows, 5)
            tracer.start()
            loop: Any = asyncio.get_running_loop()
            for number in range(120):
                await engine.submit(number)
                if number % 2:
                    loop._selector_with_clock.now += 1.4
            await asyncio.sleep(10)
            return statistics.outcomes["ok"]

    with caplog.at_level(logging.INFO, "asyncline.tracer"):
        assert run_virtual(main()) == 120
    counts = [re.match(r"\tQuery count\[(\d+)]", record.getMessage()) for record in caplog.records]
    found = [int(count[1]) for count in counts if count]
    assert len(found) > 5 and sum(found) == 120
