"""`/metrics`: names, and counts that add up."""

from __future__ import annotations

import asyncio
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from asyncline import BadRequest, Engine, Graph, Op, ProductError, Request, RequestError
from asyncline.observe.devices import Devices
from asyncline.observe.live import Live
from asyncline.observe.prometheus import Metrics
from asyncline.observe.statistics import Statistics
from asyncline.observe.windows import Windows
from asyncline.settings import Source, merge
from asyncline.testing import SimulatedLanes, run_virtual, virtual_engine

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


class Net(Op):
    cpu = "thread"
    batch_size = 4

    def preprocess(self, x: Any) -> Any:
        if x == "bad":
            raise ProductError("bad", "no")
        return x

    def process(self, batch: list[Any]) -> list[Any]:
        return [ValueError("poisoned") if x == "poison" else x for x in batch]


SECONDS = {("net", "preprocess"): 0.01, ("net", "process"): 0.1}


def counted(payloads: list[Any], *, cancel: int = 0, traced: bool = False) -> dict[str, Any]:
    """Samples by name and labels, after that many requests, of which the first `cancel` were given up."""
    return {key: value for key, (value, _) in samples(payloads, cancel=cancel, traced=traced).items()}


def samples(payloads: list[Any], *, cancel: int = 0, traced: bool = False) -> dict[str, Any]:
    async def main() -> str:
        graph = Graph("g", Net(Request()))
        settings = merge("g", {op.name: op.code_settings for op in graph.ops}, Source("test", {}))
        lanes = SimulatedLanes(lambda op, hook, size: SECONDS[op, hook])
        async with virtual_engine(graph, lanes, settings) as engine:
            statistics = Statistics(engine)
            engine.hooks.add(statistics)
            trace = f"00-{TRACE_ID}-b7ad6b7169203331-01" if traced else None
            items = [engine.begin(payload, timeout_s=0.6, traceparent=trace) for payload in payloads]
            await asyncio.sleep(0.05)
            for item in items[:cancel]:
                item.cancel()
            await asyncio.gather(*(item.wait() for item in items))
            families = list(Metrics(engine, statistics).collect())
        return families

    return {
        (sample.name, *sample.labels.values()): (sample.value, sample.exemplar)
        for family in run_virtual(main())
        for sample in family.samples
    }


def outcomes(found: dict[Any, float]) -> dict[str, float]:
    return {key[1]: value for key, value in found.items() if key[0] == "asyncline_requests_total"}


def test_requests_are_those_that_went_well_and_each_error() -> None:
    payloads = [*range(8), "poison", "bad", "bad", *range(60)]
    found = counted(payloads, cancel=5)
    by_code = outcomes(found)
    assert by_code["cancelled"] == 5 and by_code["product"] == 2 and by_code["op_error"] == 1
    assert by_code["deadline"] > 0 and by_code["ok"] > 0
    assert sum(by_code.values()) == len(payloads) == found["asyncline_request_seconds_count",]


def test_rows_of_all_batches_are_the_samples_that_were_run() -> None:
    found = counted([*range(10), "bad"])
    assert found["asyncline_batch_size_sum", "net"] == 10
    assert found["asyncline_batch_size_bucket", "net", "+Inf"] == found["asyncline_batch_size_count", "net"] >= 3
    assert found["asyncline_op_seconds_count", "net", "mid"] == 10


def test_a_traced_request_is_an_exemplar_of_its_bucket() -> None:
    found = samples([1], traced=True)
    ((key, exemplar),) = [(key, exemplar) for key, (_, exemplar) in found.items() if exemplar is not None]
    assert key[0] == "asyncline_request_seconds_bucket"
    assert exemplar.labels == {"trace_id": TRACE_ID}
    assert exemplar.value == pytest.approx(0.11) and exemplar.value <= float(key[1])


def test_a_request_without_a_trace_is_none() -> None:
    assert not any(exemplar for _, exemplar in samples([1]).values())


async def rendered(accept: str | None = None) -> tuple[str, str]:
    """A page with everything on it, but GPUs."""
    graph = Graph("g", Net(Request()))
    settings = merge("g", {op.name: op.code_settings for op in graph.ops}, Source("test", {}))
    engine = Engine(graph, settings)
    statistics = Statistics(engine)
    engine.hooks.add(statistics)
    async with engine:
        windows = Windows(engine, statistics)
        windows.start()
        engine.begin(1, traceparent=f"00-{TRACE_ID}-b7ad6b7169203331-01")
        await engine.submit(2)
        with pytest.raises(RequestError):
            await engine.submit("bad")
        engine.note_rejected(BadRequest("no"))
        statistics.note_lag(0.01)
        statistics.connection_opened("rest")
        page, kind = await Metrics(engine, statistics, windows).render(accept)
        windows.close()
    return page.decode(), kind


async def test_the_text_format_is_well_formed() -> None:
    page, kind = await rendered()
    assert kind.startswith("text/plain")
    names = {family.name for family in parse_text(page)}
    assert {"asyncline_requests", "asyncline_loop_lag_seconds", "process_resident_memory_bytes"} <= names
    assert "trace_id" not in page


async def test_open_metrics_is_well_formed_and_has_exemplars() -> None:
    page, kind = await rendered("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text")
    families = list(parse_openmetrics(page))  # strict: units, types, order, the end
    exemplars = [sample.exemplar for family in families for sample in family.samples if sample.exemplar]
    assert [exemplar.labels for exemplar in exemplars] == [{"trace_id": TRACE_ID}]


async def test_a_server_that_is_starting_has_its_page() -> None:
    graph = Graph("g", Net(Request()))
    engine = Engine(graph)
    statistics = Statistics(engine)
    page, _ = await Metrics(engine, statistics, Windows(engine, statistics)).render()
    assert b"asyncline_ready 0.0" in page and b"utilisation" not in page
    # The first failure is an increase for Prometheus only where there was a 0 before.
    assert b'asyncline_requests_total{code="op_error"} 0.0' in page
    assert b'asyncline_rejected_total{reason="overloaded"} 0.0' in page


async def test_every_family_says_what_it_is_and_names_its_unit() -> None:
    page, _ = await rendered()
    for family in parse_text(page):
        assert family.documentation.endswith(".") or family.name.startswith("process_"), family.name
        assert re.fullmatch(r"(asyncline|process)_[a-z_]+", family.name)
        assert not re.search(r"_(ms|us|mb|kb|percent)(_|$)", family.name)


# -- GPUs


class Driver(SimpleNamespace):
    """What is used of pynvml."""

    NVMLError = type("NVMLError", (Exception,), {})

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByIndex(self, number: int) -> str:
        if number > 1:
            raise self.NVMLError("no such GPU")
        return str(number)

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:
        return name

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return SimpleNamespace(used=5, total=10)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        return SimpleNamespace(gpu=40)


def plan_on(device: str) -> Any:
    """A plan as far as it is asked."""
    return SimpleNamespace(nodes=[SimpleNamespace(settings=SimpleNamespace(device=device))])


def gpus(device: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in Devices(plan_on(device)).collect()
        for sample in family.samples
    }


def test_gpus_that_ops_run_on_are_asked_for_their_memory_and_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    assert gpus("cuda:1,7") == {
        ("asyncline_gpu_memory_used_bytes", "1"): 5,
        ("asyncline_gpu_memory_total_bytes", "1"): 10,
        ("asyncline_gpu_utilisation_ratio", "1"): 0.4,
    }


def test_without_a_gpu_or_its_driver_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    assert gpus("cpu") == {}
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpus("cuda") == {}


async def test_the_dashboard_has_the_memory_and_use_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    graph = Graph("g", Net(Request()))
    async with Engine(graph) as engine:
        engine.runners[0].replicas[0].device = "cuda:1"  # there is none here
        live = Live(engine, Statistics(engine), None)  # type: ignore[arg-type]  # not asked
        live._gpus_there = Devices(plan_on("cuda:1"))
        assert live._devices() == {"cuda:1": {"replicas": {"net": 1}}}
        assert live._reading is not None
        await live._reading
        told = {"replicas": {"net": 1}, "nbytes": 5, "total_nbytes": 10, "busy": 0.4}
        assert live._devices() == {"cuda:1": told}
