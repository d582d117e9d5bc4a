"""The leak watch: its judgement on made-up series, its bundle, and real runs of `asyncline leak check`."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from asyncline import Graph, Op, Request
from asyncline.observe.leaks.bundle import MOST_BUNDLES, Busy, _tracing, traced, write
from asyncline.observe.leaks.judge import Finding, judge
from asyncline.observe.leaks.sample import Sample, Samples, take
from asyncline.observe.leaks.trend import Trend, trend
from asyncline.observe.leaks.watch import KEPT, MINUTES, REQUESTS, LeakWatch
from asyncline.observe.statistics import Statistics
from asyncline.testing import run_virtual, virtual_engine
from asyncline.tools.leak import Verdict, report
from tests.serving import ROOT, run, serving

MB = 1_000_000


def flat(minute: float) -> float:
    return 0.0


def judged(
    rss: Callable[[float], float] = flat,
    blocks: Callable[[float], float] = flat,
    descriptors: Callable[[float], float] = flat,
    tasks: Callable[[float], float] = flat,
    workers: Callable[[float], float] = flat,
    own: Callable[[float], float] = flat,
    arena: Callable[[float], float] = flat,
    malloc: Callable[[float], float] = flat,
    noise: float = 0.3 * MB,
    seed: int = 1,
    count: int = 60,
) -> Finding:
    """Of a sample every 10 s, with noise and now and then a spike."""
    random = Random(seed)
    samples = [
        Sample(
            at=60 * x,
            requests=int(1000 * x),
            rss=int(300 * MB + rss(x) + random.gauss(0, noise) + (20 * MB if n % 17 == 5 else 0)),
            pss=0,
            workers_rss=int(100 * MB + workers(x) + random.gauss(0, noise)),
            descriptors=int(40 + descriptors(x) + random.randrange(3)),
            tasks=int(10 + tasks(x) + random.randrange(3)),
            threads=8,
            own=int(own(x)),
            arena=int(arena(x)),
            malloc_used=int(100 * MB + malloc(x)),
            blocks=int(10**6 + blocks(x) + random.gauss(0, 1000)),
        )
        for n, x in enumerate(n / 6 for n in range(count))
    ]
    return judge(samples, MINUTES, REQUESTS)


def test_a_slope_does_not_mind_outliers() -> None:
    ys = [3.0 * x for x in range(30)]
    ys[4], ys[20] = 1e6, -1e6
    found = trend(range(30), ys)
    assert found.slope == pytest.approx(3.0) and found.low == pytest.approx(3.0) and found.high == pytest.approx(3.0)


def test_the_interval_holds_the_slope_of_a_noisy_line() -> None:
    random = Random(3)
    inside = 0
    for _ in range(200):
        found = trend(range(40), [2.0 * x + random.gauss(0, 10) for x in range(40)])
        inside += found.low <= 2.0 <= found.high
    assert inside >= 194


def test_of_few_points_nothing_is_known() -> None:
    assert trend([1, 2], [1, 2]) == Trend(0.0, float("-inf"), float("inf"))
    assert trend([1, 1, 1], [1, 2, 3]) == Trend(0.0, float("-inf"), float("inf"))


@pytest.mark.parametrize("seed", range(20))
def test_a_process_that_keeps_nothing_has_no_leak(seed: int) -> None:
    assert judged(seed=seed).kind == "none"


def test_kinds_of_leaks_are_told_apart() -> None:
    def grows(minute: float) -> float:
        return 5 * MB * minute

    assert judged(rss=grows, blocks=lambda minute: 5000 * minute).kind == "python objects"
    assert judged(rss=grows).kind == "native memory"
    assert judged(rss=grows, malloc=grows).text.startswith("native memory: it grows by 5,")
    assert judged(rss=grows).text.startswith("memory that is not malloc's, or its fragments: it grows by ")
    assert judged(workers=grows).kind == "worker processes"
    assert judged(arena=grows).kind == "arena slots"
    assert judged(descriptors=lambda minute: 4 * minute).kind == "descriptors"
    assert judged(tasks=lambda minute: 4 * minute).kind == "tasks"
    assert all(judged(rss=grows, seed=seed).is_leak for seed in range(20))


def test_a_leak_says_how_fast_it_is() -> None:
    found = judged(rss=lambda minute: 5 * MB * minute, noise=0)
    assert "it grows by 5,000,000 B a minute (5,000,000 to 5,000,000)" in found.text


def test_a_cache_that_fills_is_no_leak() -> None:
    found = judged(rss=lambda minute: 100 * MB * (1 - 0.7**minute))
    assert found.kind == "cache warm-up" and not found.is_leak


def test_growth_below_the_limit_is_no_leak() -> None:
    assert judged(rss=lambda minute: 0.05 * MB * minute).kind == "none"


def test_a_leak_of_1_kb_a_request_is_found_where_there_are_few_requests() -> None:
    found = judged(rss=lambda minute: 1 * MB * minute)  # of 1000 requests
    assert found.is_leak and "B a request (" in found.text and "B a minute" in found.text


def test_what_the_server_fills_on_purpose_is_no_leak() -> None:
    assert not judged(rss=lambda minute: 1.5 * MB * minute, own=lambda minute: 1.5 * MB * minute).is_leak


def test_a_few_samples_are_too_early() -> None:
    assert judged(rss=lambda minute: 5 * MB * minute, count=15).kind == "too early"


def test_a_sample_knows_this_process() -> None:
    found = take(1.0, 2, 3, [])
    assert found.rss > 10 * MB and found.descriptors > 2 and found.threads >= 1 and found.blocks > 10_000
    assert found.workers_rss == 0
    assert take(1.0, 2, 3, [2**22 + 1]).workers_rss == 0  # it has ended


def test_the_newest_samples_are_kept_in_order() -> None:
    samples = Samples(3)
    for n in range(5):
        samples.append(take(n + 0.5, n, 0, []))
    assert len(samples) == 3 and [(found.at, found.requests) for found in samples.list()] == [
        (2.5, 2), (3.5, 3), (4.5, 4),
    ]  # fmt: skip


# -- bundles


def test_a_bundle_says_where_what_stays_was_allocated() -> None:
    kept: list[bytearray] = []
    closed = threading.Event()

    class Filling(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            kept.extend(bytearray(10_000) for _ in range(200))
            return True

    text = traced(1.0, Filling())
    assert text.splitlines()[0] == "# allocated within 1 s and alive"
    assert "test_leaks.py" in text.splitlines()[1]
    assert not closed.is_set() and len(kept) == 200


def test_tracing_ends_when_there_is_too_much_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncline.observe.leaks.bundle.MOST_TRACED_NBYTES", 100_000)
    kept: list[bytearray] = []
    looks = 0

    class Filling(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal looks
            looks += 1
            kept.extend(bytearray(10) for _ in range(1000))
            return looks > 100

    traced(3600.0, Filling())
    assert 1 <= looks < 20


def test_one_at_a_time_traces() -> None:
    with _tracing, pytest.raises(Busy):
        traced(1.0, threading.Event())


def test_bundles_are_bounded(tmp_path: Path) -> None:
    for n in range(MOST_BUNDLES + 2):
        (tmp_path / f"leak-2026010{n}-000000").mkdir()
    finding = Finding("tasks", Trend(0, 0, 0), "tasks grow")
    made = write(tmp_path, finding, [take(1.0, 2, 3, [])], "tasks", "allocated")
    assert len(list(tmp_path.iterdir())) == MOST_BUNDLES
    assert (made / "report.txt").read_text().startswith("tasks grow\n")
    assert json.loads((made / "samples.json").read_bytes())[0]["requests"] == 2
    assert sorted(path.name for path in made.iterdir()) == ["allocated.txt", "report.txt", "samples.json", "tasks.txt"]


# -- leak check


def found(kind: str, low: float, slope: float, high: float) -> Finding:
    return Finding(kind, Trend(slope, low, high), "text")  # type: ignore[arg-type]  # a Kind


def test_the_exit_code_says_what_was_found() -> None:
    assert report(found("python objects", 900, 1000, 1100), 64).verdict is Verdict.LEAK
    assert report(found("none", 0, 1, 2), 64).verdict is Verdict.CLEAN
    assert report(found("cache warm-up", 90, 100, 120), 64).verdict is Verdict.CLEAN
    assert report(found("none", 10, 90, 200), 64).verdict is Verdict.INCONCLUSIVE


def test_a_leak_of_1_kb_a_request_is_found_within_a_few_thousand() -> None:
    code, out, err = run("leak", "check", "leaky:graph", "--requests", "5000")
    assert (code, out.partition(":")[0]) == (1, "leak"), err
    assert "Python objects: memory grows by 1,0" in out


def test_a_clean_graph_has_none() -> None:
    code, out, err = run("leak", "check", "leaky:clean", "--requests", "5000", "--input", "1000")
    assert (code, out[:7]) == (0, "no leak"), err


def test_requests_that_fail_are_no_proof() -> None:
    code, out, _ = run("leak", "check", "leaky:refusing", "--requests", "1000", "--input", "1")
    assert code == 3 and "requests failed, the last: op 'refuse' preprocess" in out


def test_without_a_request_it_says_what_is_missing() -> None:
    code, _, err = run("leak", "check", "leaky:refusing")
    assert code == 78 and "no request to send: write Op.example or pass --input" in err


@pytest.mark.parametrize(
    ("graph", "kind"),
    [("keeps_native", "native memory"), ("keeps_descriptors", "descriptors"), ("keeps_tasks", "tasks")],
)
def test_a_planted_leak_is_told_by_its_kind(graph: str, kind: str) -> None:
    code, out, err = run("leak", "check", f"loadtest.leak_graph:{graph}", "--requests", "5000", cwd=ROOT)
    assert code == 1 and out.startswith(f"leak: {kind}"), out + err


def test_a_cache_that_fills_while_it_is_checked_is_no_leak() -> None:
    code, out, err = run("leak", "check", "loadtest.leak_graph:fills_cache", "--requests", "5000", cwd=ROOT)
    assert code == 0 and out.startswith("no leak: "), out + err


# -- the watch of a server, on a virtual clock


def watched(grows: float, caplog: pytest.LogCaptureFixture, hours: float = 0.5) -> LeakWatch:
    """Of an engine whose memory grows by `grows` bytes a minute, after `hours`."""

    async def main() -> LeakWatch:
        async with virtual_engine(Graph("g", Pass(Request()))) as engine:
            watch = LeakWatch(engine, Statistics(engine), None, sample=sample)
            for _ in range(int(3600 * hours)):
                watch.tick()
                if watch._reading is not None:
                    await watch._reading
                await asyncio.sleep(1)
            watch.close()
            return watch

    def sample(at: float, requests: int, tasks: int, pids: Sequence[int], arena: int, own: int) -> Sample:
        rss = int(300 * MB + grows * at / 60)
        return Sample(at, requests, rss, rss, 0, 40, 10, 8, 10**6)

    with caplog.at_level("WARNING", "asyncline.leaks"):
        return run_virtual(main())


class Pass(Op):
    cpu = "inline"

    def preprocess(self, value: int) -> int:
        return value


def test_a_server_that_leaks_says_so_once_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    watch = watched(5 * MB, caplog, hours=1.5)
    assert watch.finding is not None and watch.finding.kind == "native memory"
    assert [record.message[:6] for record in caplog.records] == ["leak: ", "leak: "]


def test_a_server_that_does_not_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    watch = watched(0.0, caplog)
    assert watch.figures()["kind"] == "none" and watch.figures()["samples"] == KEPT
    assert caplog.records == []


def test_the_watch_s_figures_are_metrics() -> None:
    with serving("good:graph", "--memwatch") as server:
        assert server.get("/readyz")[0] == 200
        assert "asyncline_leak" not in server.get("/metrics")[1]  # nothing is known before it is warm
