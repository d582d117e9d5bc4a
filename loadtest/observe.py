"""Observing: REST echo and OCR with tracer, metrics, ring buffer and timeline all on, against all off."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from loadtest.alternating import TURN_MS, Target, Turn, alternate
from loadtest.child import Child
from loadtest.echo import CONNECTIONS, EchoServer
from loadtest.ocr import PAGES, write_pages
from loadtest.ocr_served import APP, CLIENTS, CONFIG, ServedOcr
from loadtest.pairs import Spread, interleave
from loadtest.report import BenchmarkFailed, Budget, Report, Row

WHAT = f"REST echo observed, {CONNECTIONS} connections, against not observed"
WHAT_CPU = "REST echo observed, CPU per request"
WHAT_OCR = f"OCR observed, {CLIENTS} clients, against not observed"
WHAT_OCR_CPU = "OCR observed, CPU per page"
BUDGET = Budget("≥", 0.98)
PAYLOAD = {"text": "hello pipeline", "count": 3, "scores": [0.25, 0.5]}

_Turn = TypeVar("_Turn")


def measure(pairs: int, seconds: int) -> Report:
    """`pairs` pairs of runs of PAGES pages; and of echoes as many runs of twice `seconds`, each of new servers, as one
    is faster than another for as long as it lives.
    """
    ocr, echo = _ocr(pairs), _echo(pairs, 2 * seconds)
    return Report([*echo, *ocr], [
        f"observe: {pairs} runs of new servers, by wrk in turns of {TURN_MS} ms, and {pairs} pairs of {PAGES} pages; "
        "tracer every second, metrics, timeline of 16 MB; same process else."
    ])  # fmt: skip


def served(observed: str, app: str, *config: str) -> Child:
    """:param observed: `all` or `nothing`."""
    return Child("loadtest.observe_served", observed, app, *config)


def _echo(runs: int, seconds: int) -> list[Row]:
    if shutil.which("wrk") is None:
        reason = "not measured: apt-get install wrk"
        return [Row(WHAT, budget=BUDGET, not_measured=reason), Row(WHAT_CPU, not_measured=reason)]
    app, body = "loadtest.echo_graph:graph", json.dumps(PAYLOAD)
    turns: list[tuple[Turn, Turn]] = []
    cpu_us: list[tuple[float, ...]] = []
    for _ in range(runs):
        with served("all", app) as on, served("nothing", app) as off:
            children = on, off
            servers = [EchoServer(child) for child in children]
            for server in servers:
                if server.echo([1]) != [1]:
                    raise BenchmarkFailed(f"{server.url} is no echo")
            targets = [Target(server.url, body) for server in servers]
            alternate(*targets, 1)
            before = [child.cpu_s() for child in children]
            run = alternate(*targets, seconds)
            took = [child.cpu_s() - then for child, then in zip(children, before, strict=True)]
            turns += run.turns
            cpu_us.append(tuple(1e6 * cpu_s / count for cpu_s, count in zip(took, run.answers, strict=True)))
    return [
        Row.compared(WHAT, "requests/s", "requests_per_s", turns, BUDGET),
        _row(WHAT_CPU, "µs", cpu_us, lambda us: us),
    ]


@dataclass(frozen=True)
class Read:
    """What one run of pages took."""

    pages_per_s: float
    cpu_s: float
    """CPU time of the server for one page."""


def _ocr(pairs: int) -> list[Row]:
    with TemporaryDirectory() as folder:
        files = write_pages(Path(folder), PAGES)
        with (
            ServedOcr(files, served("all", APP, CONFIG)) as on,
            ServedOcr(files, served("nothing", APP, CONFIG)) as off,
        ):
            turns: list[tuple[Read, ...]] = interleave(pairs, lambda: _read(on), lambda: _read(off))
    return [
        _row(WHAT_OCR, "pages/s", turns, lambda read: read.pages_per_s, BUDGET),
        _row(WHAT_OCR_CPU, "s", turns, lambda read: read.cpu_s),
    ]


def _read(server: ServedOcr) -> Read:
    cpu_s, started_at = server.cpu_s(), time.perf_counter()
    server.read(range(PAGES))
    return Read(PAGES / (time.perf_counter() - started_at), (server.cpu_s() - cpu_s) / PAGES)


def _row(
    what: str, unit: str, turns: list[tuple[_Turn, ...]], of: Callable[[_Turn], float], budget: Budget | None = None
) -> Row:
    return Row(
        what,
        unit,
        Spread.of(of(on) for on, _ in turns),
        Spread.of(of(off) for _, off in turns),
        Spread.of(of(on) / of(off) for on, off in turns),
        budget,
    )
