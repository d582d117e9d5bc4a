"""Observing: REST echo with tracer, metrics, ring buffer and timeline all on, against all off."""

import shutil

from loadtest.child import Child
from loadtest.echo import CONNECTIONS, EchoServer, Load
from loadtest.pairs import Spread, interleave
from loadtest.report import BenchmarkFailed, Budget, Report, Row

WHAT = f"REST echo observed, {CONNECTIONS} connections, against not observed"
WHAT_CPU = "REST echo observed, CPU per request"
BUDGET = Budget("≥", 0.98)


def measure(pairs: int, seconds: int) -> Report:
    """`pairs` pairs of runs of `seconds` each."""
    if shutil.which("wrk") is None:
        reason = "not measured: apt-get install wrk"
        return Report([Row(WHAT, budget=BUDGET, not_measured=reason), Row(WHAT_CPU, not_measured=reason)])
    with Child("loadtest.observe_served", "all") as on, Child("loadtest.observe_served", "nothing") as off:
        servers = EchoServer(on), EchoServer(off)
        for server in servers:
            if server.echo([1]) != [1]:
                raise BenchmarkFailed(f"{server.url} is no echo")
            server.load(1)
        turns: list[tuple[Load, ...]] = interleave(
            pairs, lambda: servers[0].load(seconds), lambda: servers[1].load(seconds)
        )
    return Report(
        [
            Row(
                WHAT,
                "requests/s",
                Spread.of(a.requests_per_s for a, _ in turns),
                Spread.of(b.requests_per_s for _, b in turns),
                Spread.of(a.requests_per_s / b.requests_per_s for a, b in turns),
                BUDGET,
            ),
            Row(
                WHAT_CPU,
                "µs",
                Spread.of(a.cpu_us for a, _ in turns),
                Spread.of(b.cpu_us for _, b in turns),
                Spread.of(a.cpu_us / b.cpu_us for a, b in turns),
            ),
        ],
        [f"observe: {pairs} pairs of {seconds} s; tracer every second, metrics, timeline of 16 MB; same process else."],
    )
