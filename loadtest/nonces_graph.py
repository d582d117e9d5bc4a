"""What the nonces go through: as far as each says, a function on the loop, batches, and a pool of processes."""

from typing import Any

from asyncline import Graph, Op, Reply, Request, op

INLINE, BATCHED, POOLED = range(3)
"""How far a request goes."""


@op(cpu="inline")
def door(asked: dict[str, Any]) -> Any:
    return Reply(asked) if asked["way"] == INLINE else asked


class Batched(Op):
    """Batches of requests of several connections, on a thread."""

    cpu = "inline"
    batch_size = 16

    def process(self, batch: list[dict[str, Any]]) -> list[Any]:
        return [{**asked} for asked in batch]

    def postprocess(self, asked: dict[str, Any], before: dict[str, Any]) -> Any:
        return Reply(asked) if asked["way"] == BATCHED else asked


class Pooled(Op):
    """Another process, which arrays reach by memory that is used again and again."""

    def preprocess(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {name: value if name != "filled" else value.copy() for name, value in asked.items()}


graph = Graph("nonces", Pooled(Batched(door(Request()))))
