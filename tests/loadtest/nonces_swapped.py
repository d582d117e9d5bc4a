"""A server that gives two requests of a batch the answers of each other."""

from typing import Any

from asyncline import Graph, Op, Request


class Swapped(Op):
    cpu = "inline"
    batch_size = 16

    def process(self, batch: list[dict[str, Any]]) -> list[Any]:
        return batch[::-1]


graph = Graph("nonces", Swapped(Request()))
