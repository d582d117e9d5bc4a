"""Observing: REST echo and OCR with tracer, metrics, ring buffer and timeline all on, against all off."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from loadtest.child import Child
from loadtest.echo import CONNECTIONS, EchoServer, Load
from loadtest.ocr import PAGES, write_pages
from loadtest.ocr_served import APP, CLIENTS, CONFIG, ServedOcr
from loadtest.pairs import Spread, interleave
from loadtest.report import BenchmarkFailed, Budget, Report, Row

WHAT = f"REST echo observed, {CONNECTIONS} connections, against not observed"
WHAT_CPU = "REST echo observed, CPU per request"
WHAT_OCR = f"OCR observed, {CLIENTS} clients, against not observed"
WHAT_OCR_CPU = "OCR observed, CPU per page"
BUDGET = Budget("≥", 0.98)
STARTS = 8
"""How often both servers of echoes are started: two processes of the same program differ by as much as what is looked
for."""

_Turn = TypeVar("_Turn")


def measure(pairs: int) -> Report:
    """`pairs` pairs of runs of PAGES pages; for each of STARTS, as many pairs of a second of echoes.

    A machine that others use too changes its speed every few seconds, by more than what is looked for.
    """
    echo, ocr = _echo(pairs), _ocr(pairs)
    return Report([*echo, *ocr], [
        f"observe: {STARTS} times {pairs} pairs of 1 s, each time with new servers, and {pairs} of {PAGES} pages; "
        "tracer every second, metrics, timeline of 16 MB; same program else."
    ])  # fmt: skip


def served(observed: str, app: str, *config: str) -> Child:
    """:param observed: `all` or `nothing`."""
    return Child("loadtest.observe_served", observed, app, *config)


def _echo(pairs: int) -> list[Row]:
    if shutil.which("wrk") is None:
        reason = "not measured: apt-get install wrk"
        return [Row(WHAT, budget=BUDGET, not_measured=reason), Row(WHAT_CPU, not_measured=reason)]
    turns: list[tuple[Load, ...]] = []
    for _ in range(STARTS):
        turns += _echo_pairs(pairs)
    return [
        _row(WHAT, "requests/s", turns, lambda load: load.requests_per_s, BUDGET),
        _row(WHAT_CPU, "µs", turns, lambda load: load.cpu_us),
    ]


def _echo_pairs(pairs: int) -> list[tuple[Load, ...]]:
    """With servers of their own: (observed, not observed)."""
    app = "loadtest.echo_graph:graph"
    with served("all", app) as on, served("nothing", app) as off:
        servers = EchoServer(on), EchoServer(off)
        for server in servers:
            if server.echo([1]) != [1]:
                raise BenchmarkFailed(f"{server.url} is no echo")
            server.load(1)
        return interleave(pairs, lambda: servers[0].load(1), lambda: servers[1].load(1))


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
