"""Paddle Serving's REST request against our own, on the same Op: of a native graph, and of a service of Paddle's."""

import json
import shutil
from urllib.request import Request, urlopen

from loadtest.alternating import TURN_MS, Target, Turn, alternate
from loadtest.child import Child
from loadtest.echo import CONNECTIONS
from loadtest.paddle_graph import CONCURRENCY
from loadtest.report import BenchmarkFailed, Budget, Report, Row

INLINE = f"a Paddle REST request, inline Op, {CONNECTIONS} connections; baseline: our own request to it"
SERVICE = "the same to a service of Paddle's classes; baseline: our own request to the Op in as many threads"
BUDGET = Budget("≥", 0.8)
RATE = "requests/s"
VALUES = {"text": "hello pipeline", "scores": "0.25, 0.5"}
BODY = {"key": [*VALUES], "value": [*VALUES.values()]}
ANSWER = {"err_no": 0, "err_msg": "", **BODY, "tensors": []}
APPS = ("paddle_graph:graph", "paddle_graph:threaded", "paddle_service:service")


def measure(pairs: int, seconds: int) -> Report:
    """`pairs` runs of new servers, as one is faster than another for as long as it lives; each is under load for twice
    `seconds`.
    """
    if shutil.which("wrk") is None:
        return Report([Row(INLINE, budget=BUDGET, not_measured="not measured: apt-get install wrk")])
    inlines: list[tuple[Turn, Turn]] = []
    services: list[tuple[Turn, Turn]] = []
    for _ in range(pairs):
        of_inline, of_service = _measure(2 * seconds)
        inlines += of_inline
        services += of_service
    return Report(
        [
            Row.compared(INLINE, RATE, "requests_per_s", inlines, BUDGET),
            Row.compared(SERVICE, RATE, "requests_per_s", services, BUDGET),
        ],
        [f"Paddle: {pairs} runs of new servers, by wrk; {len(inlines)} and {len(services)} turns of {TURN_MS} ms."],
    )


def _measure(seconds: int) -> tuple[list[tuple[Turn, Turn]], list[tuple[Turn, Turn]]]:
    """Turns of the inline Op, and of the service."""
    ports = ("--http-port", "0", "--grpc-port", "null", "--tcp-port", "null", "--host", "127.0.0.1")
    # A Paddle service has a thread for each hook that may run.
    lanes = ("--set", f"dag.cpu_threads={CONCURRENCY}")
    inline, threaded, service = (Child("asyncline", "serve", f"loadtest.{app}", *ports, *lanes) for app in APPS)
    with inline, threaded, service:
        at = {child: child.address() for child in (inline, threaded, service)}
        found = []
        for ours, theirs in ((inline, inline), (service, threaded)):
            paddle = Target(f"{at[ours]}/echo/prediction", json.dumps(BODY))
            native = Target(f"{at[theirs]}/echo", json.dumps(VALUES))
            check(paddle.url)
            alternate(paddle, native, 1)
            found.append(alternate(paddle, native, seconds))
    return found[0], found[1]


def check(url: str) -> None:
    """:raises BenchmarkFailed: it does not answer as Paddle's gateway would."""
    try:
        with urlopen(Request(url, json.dumps(BODY).encode()), timeout=10) as answer:
            found = json.load(answer)
    except OSError as error:
        raise BenchmarkFailed(f"{url}: {error}") from error
    if found != ANSWER:
        raise BenchmarkFailed(f"{url} answers {found!r}")
