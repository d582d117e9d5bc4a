"""Ops whose CPU hooks neighbour each other."""

from __future__ import annotations

from typing import Any

from asyncline import Graph, Op, Request


class Around(Op):
    cpu = "thread"

    def preprocess(self, value: Any) -> Any:
        return value

    def postprocess(self, result: Any, value: Any) -> Any:
        return result


graph = Graph("fused", Around(Around(Request(), name="first"), name="second"))
