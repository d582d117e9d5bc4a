"""Small real apps, served as a user serves them."""

from __future__ import annotations

import gc
import os
import signal
import time
from typing import Any

from asyncline import Graph, Json, Op, Request, op


@op(cpu="inline")
def echo(value: Any) -> Any:
    return value


class Work(Op):
    """Sleeps in a worker, a thread or a replica, or ends its worker, as the request says."""

    def preprocess(self, order: dict[str, Any]) -> dict[str, Any]:
        time.sleep(order.get("pre_s", 0))
        if order.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        return order

    def process(self, batch: list[dict[str, Any]]) -> list[Any]:
        time.sleep(max(order.get("mid_s", 0) for order in batch))
        return [order.get("n") for order in batch]


@op(cpu="inline")
def die(code: int) -> None:
    """Ends the server: by that exit code, or by a signal where it is negative."""
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


@op(cpu="inline")
def block(value: float) -> float:
    time.sleep(value)
    return value


@op(cpu="inline")
def collected(value: Any) -> int:
    """How many objects Python's collector goes through."""
    return len(gc.get_objects())


class Lost(Op):
    """A model whose device fails for good, as torch would say it."""

    cpu = "inline"

    def process(self, batch: list[Any]) -> list[Any]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


graph = Graph("echo", echo(Request()))
work = Graph("work", Work(Request(order=Json(dict[str, Any])).order, batch_size=4))
blocking = Graph("blocking", block(Request()))
mortal = Graph("mortal", die(Request()))
collector = Graph("collector", collected(Request()))
lost = Graph("lost", Lost(Request()))
not_a_graph = 5
