"""Paddle Serving's REST request against our own, on the same Op: of a native graph, and of a service of Paddle's."""

import json
import shutil
from functools import partial
from pathlib import Path
from urllib.request import Request, urlopen

from loadtest.child import Child
from loadtest.echo import CONNECTIONS, load
from loadtest.paddle_graph import CONCURRENCY
from loadtest.pairs import interleave
from loadtest.report import BenchmarkFailed, Budget, Report, Row

PADDLE, NATIVE = (Path(__file__).with_name(name) for name in ("paddle.lua", "paddle_native.lua"))
INLINE = f"a Paddle REST request, inline Op, {CONNECTIONS} connections; baseline: our own request to it"
INLINE_CPU = "the same, CPU per request"
SERVICE = "the same to a service of Paddle's classes; baseline: our own request to the Op in as many threads"
BUDGET = Budget("≥", 0.8)
TURN_S = 1
RATE = "requests/s"
BODY = {"key": ["text", "scores"], "value": ["hello pipeline", "0.25, 0.5"]}
ANSWER = {"err_no": 0, "err_msg": "", **BODY, "tensors": []}


def measure(pairs: int, seconds: int) -> Report:
    """As many turns of a second as `pairs` runs of `seconds` would take: short, for other work on the machine to meet
    both of a pair alike.
    """
    if shutil.which("wrk") is None:
        return Report([Row(INLINE, budget=BUDGET, not_measured="not measured: apt-get install wrk")])
    ports = ("--http-port", "0", "--grpc-port", "null", "--tcp-port", "null", "--host", "127.0.0.1")
    apps = ("paddle_graph:graph", "paddle_graph:threaded", "paddle_service:service")
    # A Paddle service has a thread for each hook that may run.
    lanes = ("--set", f"dag.cpu_threads={CONCURRENCY}")
    inline, threaded, service = (Child("asyncline", "serve", f"loadtest.{app}", *ports, *lanes) for app in apps)
    with inline, threaded, service:
        addresses = {child: child.address() for child in (inline, threaded, service)}
        runs = []
        for child, path, script in (
            (inline, "/echo/prediction", PADDLE),
            (inline, "/echo", NATIVE),
            (service, "/echo/prediction", PADDLE),
            (threaded, "/echo", NATIVE),
        ):
            url = addresses[child] + path
            if script is PADDLE:
                check(url)
            runs.append(partial(load, child, url, script=script))
        for run in runs:
            run(TURN_S)
        turns = interleave(pairs * seconds, *(partial(run, TURN_S) for run in runs))
    return Report(
        [
            Row.compared(INLINE, RATE, "requests_per_s", [turn[:2] for turn in turns], BUDGET),
            Row.compared(INLINE_CPU, "µs", "cpu_us", [turn[:2] for turn in turns]),
            Row.compared(SERVICE, RATE, "requests_per_s", [turn[2:] for turn in turns], BUDGET),
        ],
        [f"Paddle: {len(turns)} turns of {TURN_S} s, wrk with one thread, {PADDLE.name} and {NATIVE.name}."],
    )


def check(url: str) -> None:
    """:raises BenchmarkFailed: it does not answer as Paddle's gateway would."""
    try:
        with urlopen(Request(url, json.dumps(BODY).encode()), timeout=10) as answer:
            found = json.load(answer)
    except OSError as error:
        raise BenchmarkFailed(f"{url}: {error}") from error
    if found != ANSWER:
        raise BenchmarkFailed(f"{url} answers {found!r}")
