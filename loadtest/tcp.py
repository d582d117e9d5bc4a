"""Msgpack over TCP: our echo against our REST, against a bare protocol, and tensors against a bare copy."""

import asyncio
import shutil
from functools import partial

import numpy as np

from asyncline.client.tcp import TcpConnection
from loadtest.child import Child
from loadtest.driven import DrivenServer, Turn
from loadtest.echo import CONNECTIONS, EchoServer
from loadtest.pairs import Spread, interleave
from loadtest.report import BenchmarkFailed, Budget, Report, Row
from loadtest.tcp_client import MESSAGE, Run

IN_FLIGHT = 64
TENSORS = {150_000: 16, 1_000_000: 8}
"""Their bytes, and how many are in flight."""
OF_REST, OF_BARE, OF_COPY = Budget("≥", 3.0), Budget("≥", 0.4), Budget("≥", 0.7)
ECHO = f"msgpack TCP echo, {IN_FLIGHT} in flight on one connection"
RATE = "requests/s"


class TcpServer(DrivenServer):
    def __init__(self, child: Child, client: Child) -> None:
        super().__init__(child, client, "tcp")

    def run(self, seconds: float, in_flight: int = IN_FLIGHT, nbytes: int = 0, *, lean: bool = True) -> Turn:
        return self.turn(Run(self.host, self.port, seconds, in_flight, nbytes, lean))


async def check(server: TcpServer) -> None:
    """:raises BenchmarkFailed: it is no echo."""
    array = np.arange(250_000, dtype=np.float32)
    async with await TcpConnection.open(server.host, server.port) as connection:
        message, found = await connection.call("echo", MESSAGE), await connection.call("echo", {"x": array})
    if message != MESSAGE or found["x"].dtype != array.dtype or not np.array_equal(found["x"], array):
        raise BenchmarkFailed(f"{server.host}:{server.port} is no echo")


def measure(pairs: int, seconds: int) -> Report:
    """`pairs` turns of runs of `seconds` each."""
    if shutil.which("wrk") is None:
        return Report([Row(ECHO, budget=OF_REST, not_measured="not measured: apt-get install wrk")])
    with (
        Child("asyncline", "serve", "loadtest.echo_graph:graph", "--http-port", "0", "--tcp-port", "0") as our_child,
        Child("loadtest.tcp_baseline") as their_child,
        Child("loadtest.tcp_client", hears="stdout") as client,
    ):
        http = EchoServer(our_child)
        ours, bare, copy = TcpServer(our_child, client), TcpServer(their_child, client), TcpServer(their_child, client)
        asyncio.run(check(ours))

        def rest(seconds: float) -> Turn:
            load = http.load(int(seconds))
            return Turn(load.requests_per_s, load.cpu_us)

        runs = ours.run, rest, bare.run, partial(ours.run, lean=False)
        for run in runs:
            run(1)
        echoes = interleave(pairs, *(partial(run, seconds) for run in runs))
        tensors = {
            nbytes: interleave(pairs, *(partial(server.run, 1, in_flight, nbytes) for server in (ours, copy)))
            for nbytes, in_flight in TENSORS.items()
        }
    against_rest = [(ours, rest) for ours, rest, _, _ in echoes]
    against_bare = [(ours, bare) for ours, _, bare, _ in echoes]
    by_connection = [turn for *_, turn in echoes]
    what = f"{ECHO}; baseline: our REST echo, {CONNECTIONS} connections"
    rows = [
        Row.compared(what, RATE, "per_s", against_rest, OF_REST),
        Row.compared("the same, CPU per request", "µs", "cpu_us", against_rest),
        Row.compared(
            "msgpack TCP echo; baseline: a bare protocol that unpacks and packs", RATE, "per_s", against_bare, OF_BARE
        ),
    ]
    for nbytes, turns in tensors.items():
        what = f"a tensor of {nbytes / 1e3:,.0f} kB each way by TCP, {TENSORS[nbytes]} in flight; baseline: a bare copy"
        rows.append(Row.compared(what, RATE, "per_s", turns, OF_COPY if nbytes >= 10**6 else None))
    cores = Spread.of(ours.client_cores for ours, *_ in echoes).median
    of_call = Spread.of(turn.client_cores / turn.per_s * 1e6 for turn in by_connection)
    rows.append(Row("`TcpConnection.call`, the echo as above", "µs CPU", of_call))
    return Report(
        rows,
        [
            f"TCP: {pairs} turns of {seconds} s, of 1 s for tensors, all by one client process over one connection. It "
            f"writes calls that were made beforehand and took {cores:.2f} of a core in the echo; REST by wrk as above."
        ],
    )
