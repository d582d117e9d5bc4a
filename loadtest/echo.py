"""REST echo: requests/s and CPU time of a one-Op inline graph, as `asyncline serve` runs it, and of bare aiohttp."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from loadtest.child import Child
from loadtest.pairs import interleave
from loadtest.report import BenchmarkFailed, Budget, Report, Row

CONNECTIONS = 64
SCRIPT = Path(__file__).with_name("echo.lua")
WHAT = f"REST echo, {CONNECTIONS} connections"
WHAT_CPU = "REST echo, CPU per request"
BUDGET = Budget("≥", 1.0)


@dataclass(frozen=True)
class Load:
    """What one run of wrk did to a server."""

    requests_per_s: float
    cpu_us: float
    """CPU time of the server for one request."""


class EchoServer:
    """A server of `POST /echo` under load."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self.url = f"{child.address()}/echo"

    def echo(self, payload: object) -> object:
        headers = {"Content-Type": "application/json"}
        try:
            with urlopen(Request(self.url, json.dumps(payload).encode(), headers), timeout=10) as answer:
                return json.load(answer)
        except OSError as error:
            raise BenchmarkFailed(f"{self.url}: {error}") from error

    def load(self, seconds: int) -> Load:
        return load(self._child, self.url, seconds)


def load(child: Child, url: str, seconds: int, script: Path = SCRIPT, **options: Any) -> Load:
    """Run wrk against what `child` serves."""
    before = child.cpu_s()
    count, requests_per_s = wrk(url, seconds, script, **options)
    return Load(requests_per_s, (child.cpu_s() - before) / count * 1e6)


def wrk(
    url: str, seconds: int, script: Path = SCRIPT, connections: int = CONNECTIONS, arguments: Sequence[str] = ()
) -> tuple[int, float]:
    """Load `url` from one thread; how many requests were answered, and how many a second.

    :param arguments: of the script.
    :raises BenchmarkFailed: not all of them with 200.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"-s{script}", url, "--", *arguments]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=True).stdout
    except subprocess.SubprocessError as error:
        raise BenchmarkFailed(f"wrk of {url}: {error}") from error
    count, rate = re.search(r"(\d+) requests in", said), re.search(r"Requests/sec:\s+([\d.]+)", said)
    if count is None or rate is None or int(count[1]) == 0 or "Non-2xx" in said or "Socket errors" in said:
        raise BenchmarkFailed(f"wrk of {url} said:\n{said}")
    return int(count[1]), float(rate[1])


def measure(pairs: int, seconds: int) -> Report:
    """`pairs` pairs of runs of `seconds` each."""
    if shutil.which("wrk") is None:
        reason = "not measured: apt-get install wrk"
        return Report([Row(WHAT, budget=BUDGET, not_measured=reason), Row(WHAT_CPU, not_measured=reason)])
    with (
        Child("asyncline", "serve", "loadtest.echo_graph:graph", "--http-port", "0") as our_child,
        Child("loadtest.echo_baseline") as their_child,
    ):
        servers = EchoServer(our_child), EchoServer(their_child)
        for server in servers:
            payload = {"text": "é", "values": [1, 0.5, None]}
            if (answer := server.echo(payload)) != payload:
                raise BenchmarkFailed(f"{server.url} is no echo: it answers {answer!r}")
            server.load(1)
        ours, theirs = (server.load for server in servers)
        turns = interleave(pairs, lambda: ours(seconds), lambda: theirs(seconds))
    return Report(
        [
            Row.compared(WHAT, "requests/s", "requests_per_s", turns, BUDGET),
            Row.compared(WHAT_CPU, "µs", "cpu_us", turns),
        ],
        [
            f"REST echo: {pairs} pairs of {seconds} s, wrk with one thread and {SCRIPT.name}; "
            "baseline: `aiohttp.web.Application` on uvloop."
        ],
    )
