"""gRPC: our echo against one by grpclib alone."""

import asyncio
from functools import partial

import numpy as np
from grpclib.client import Channel
from grpclib.const import Cardinality

from asyncline.client.http2 import BytesCodec
from asyncline.wire.oip import InferRequest, InferTensor, grpc
from asyncline.wire.oip.schema import method
from loadtest.child import Child
from loadtest.driven import DrivenServer, Turn
from loadtest.grpc_client import Run
from loadtest.pairs import Spread, interleave
from loadtest.report import BenchmarkFailed, Budget, Report, Row

IN_FLIGHT = 64
OF_BARE = Budget("≥", 0.8)
CALLS = {
    f"gRPC ModelInfer of 16 floats, {IN_FLIGHT} in flight on one connection": ("ModelInfer", 16, IN_FLIGHT),
    "gRPC ServerReady, the same": ("ServerReady", 0, IN_FLIGHT),
    "gRPC ModelInfer of 150 kB, 8 in flight": ("ModelInfer", 37_500, 8),
}
"""The method, the floats of its tensor, and how many are in flight."""


class GrpcServer(DrivenServer):
    def __init__(self, child: Child, client: Child) -> None:
        super().__init__(child, client, "grpc")

    def run(self, seconds: float, name: str, floats: int, in_flight: int) -> Turn:
        return self.turn(Run(self.host, self.port, seconds, in_flight, name, floats))


async def check(server: GrpcServer) -> None:
    """:raises BenchmarkFailed: it is no echo."""
    array = np.arange(1000, dtype=np.float32)
    message = grpc.encode_request(InferRequest((InferTensor("x", "FP32", array),), "echo", id="7"))
    async with Channel(server.host, server.port, codec=BytesCodec()) as channel:
        async with channel.request(method("ModelInfer"), Cardinality.UNARY_UNARY, bytes, bytes) as call:
            await call.send_message(message, end=True)
            answer = grpc.decode_response(await call.recv_message() or b"")
    if answer.id != "7" or not np.array_equal(answer.outputs[0].array, array):
        raise BenchmarkFailed(f"{server.host}:{server.port} is no echo")


def measure(pairs: int, seconds: int) -> Report:
    """`pairs` turns of runs of `seconds` each."""
    ports = ("--http-port", "0", "--grpc-port", "0")
    rows, cores = [], []
    with (
        Child("asyncline", "serve", "loadtest.grpc_graph:graph", *ports) as our_child,
        Child("loadtest.grpc_baseline") as their_child,
        Child("loadtest.grpc_client", hears="stdout") as client,
    ):
        servers = GrpcServer(our_child, client), GrpcServer(their_child, client)
        for server in servers:
            asyncio.run(check(server))
        for what, (name, floats, in_flight) in CALLS.items():
            for server in servers:
                server.run(1, name, floats, in_flight)
            turns = interleave(pairs, *(partial(each.run, seconds, name, floats, in_flight) for each in servers))
            rows.append(Row.compared(f"{what}; baseline: grpclib alone", "calls/s", "per_s", turns, OF_BARE))
            rows.append(Row.compared("the same, CPU per call", "µs", "cpu_us", turns))
            cores.append(Spread.of(turn.client_cores for turn, _ in turns).median)
    return Report(
        rows,
        [
            f"gRPC: {pairs} turns of {seconds} s, all by one client process over one connection. It writes calls that "
            f"were made beforehand and took {max(cores):.2f} of a core."
        ],
    )
