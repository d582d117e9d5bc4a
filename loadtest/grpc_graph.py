"""An echo of a tensor, for gRPC."""

from asyncline import Graph, Request, Tensor, op


@op(cpu="inline")
def echo(x: object) -> object:
    return x


request = Request(x=Tensor("FP32", [-1]))
graph = Graph("echo", y=echo(request.x))
