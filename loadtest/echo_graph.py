"""The echo that is measured: a graph of one inline Op over the whole payload."""

from typing import Any

from asyncline import Graph, Request, op


@op(cpu="inline")
def echo(payload: Any) -> Any:
    return payload


graph = Graph("echo", echo(Request()))
