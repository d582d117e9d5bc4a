"""Whether one wire that is saturated starves another: how long a canary waits on each while one is under load."""

import json
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from loadtest import canary_client, grpc_client, tcp_client
from loadtest.child import START_S, Child
from loadtest.echo import wrk
from loadtest.pairs import Spread, interleave
from loadtest.report import Budget, Report, Row

IN_FLIGHT = 64
PER_S = 20.0
BUDGET = Budget("≤", 3.0)
SCRIPT = Path(__file__).with_name("canary.lua")
AHEAD_S = 0.5
WHAT = f"p99 of a canary of {PER_S:g}/s"
_ADDRESS = re.compile(r"on ((?:http|grpc|tcp)://[\d.]+:\d+)")
NAMES = {"http": "REST", "grpc": "gRPC", "tcp": "TCP"}

Latencies = dict[str, list[float]]
"""Milliseconds, by wire."""


class Canaries:
    """One server under load by one wire at a time, and the canaries of all of them."""

    def __init__(self, server: Child, canaries: Child, grpc: Child, tcp: Child) -> None:
        self.urls: dict[str, str] = {}
        while len(self.urls) < len(NAMES):
            if match := _ADDRESS.search(server.line(START_S)):
                self.urls[match[1].partition(":")[0]] = match[1]
        self._canaries, self._grpc, self._tcp = canaries, grpc, tcp
        self.realtime = False

    def quiet(self, seconds: float) -> Latencies:
        self._canaries.say(json.dumps(asdict(canary_client.Run(self.urls, seconds, PER_S))))
        done = canary_client.Done(**json.loads(self._canaries.line(seconds + START_S)))
        self.realtime = done.realtime
        return done.latencies_ms

    def loaded(self, wire: str, seconds: float) -> Latencies:
        """While `wire` has as many requests in flight as it answers."""
        load = getattr(self, f"_load_{wire}")(seconds + 2 * AHEAD_S)
        latencies = self.quiet(seconds)
        load()
        return latencies

    def _load_http(self, seconds: float) -> Callable[[], object]:
        thread = threading.Thread(target=wrk, args=(f"{self.urls['http']}/echo", round(seconds), SCRIPT))
        thread.start()
        return thread.join

    def _load_grpc(self, seconds: float) -> Callable[[], object]:
        run = grpc_client.Run(*self._place("grpc"), seconds, IN_FLIGHT, "ModelInfer", canary_client.FLOATS)
        self._grpc.say(json.dumps(asdict(run)))
        return partial(self._grpc.line, seconds + START_S)

    def _load_tcp(self, seconds: float) -> Callable[[], object]:
        run = tcp_client.Run(*self._place("tcp"), seconds, IN_FLIGHT, 4 * canary_client.FLOATS)
        self._tcp.say(json.dumps(asdict(run)))
        return partial(self._tcp.line, seconds + START_S)

    def _place(self, wire: str) -> tuple[str, int]:
        _, host, port = self.urls[wire].split(":")
        return host.removeprefix("//"), int(port)


def measure(pairs: int, seconds: int) -> Report:
    """`pairs` turns: quiet, then each wire under load, for `seconds` each."""
    if shutil.which("wrk") is None:
        return Report([Row(WHAT, budget=BUDGET, not_measured="not measured: apt-get install wrk")])
    ports = ("--http-port", "0", "--grpc-port", "0", "--tcp-port", "0")
    with (
        Child("asyncline", "serve", "loadtest.grpc_graph:graph", *ports) as server,
        Child("loadtest.canary_client", hears="stdout") as canary,
        Child("loadtest.grpc_client", hears="stdout") as grpc,
        Child("loadtest.tcp_client", hears="stdout") as tcp,
    ):
        canaries = Canaries(server, canary, grpc, tcp)
        canaries.quiet(1)
        loads = [partial(canaries.loaded, wire) for wire in NAMES]
        turns = interleave(pairs, *(partial(run, seconds) for run in (canaries.quiet, *loads)))
    rows = [
        _row(
            f"{WHAT} over {name}, {NAMES[loaded]} saturated; baseline: quiet", wire, place, turns,
            BUDGET if wire != loaded else None,
        )
        for place, loaded in enumerate(NAMES, 1)
        for wire, name in NAMES.items()
    ]  # fmt: skip
    return Report(
        rows,
        [
            f"Canaries: {pairs} turns of {seconds} s; {IN_FLIGHT} in flight saturate a wire.",
            "Canaries: their process gets a core before all others (`SCHED_FIFO`)."
            if canaries.realtime
            else "Canaries: their process had no right to `SCHED_FIFO`; it waits for a core as others do.",
        ],
    )


def _row(what: str, wire: str, place: int, turns: list[tuple[Latencies, ...]], budget: Budget | None) -> Row:
    loaded, quiet = ([float(np.percentile(turn[which][wire], 99)) for turn in turns] for which in (place, 0))
    ratios = (a / b for a, b in zip(loaded, quiet, strict=True))
    return Row(what, "ms", Spread.of(loaded), Spread.of(quiet), Spread.of(ratios), budget)
