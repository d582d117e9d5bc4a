"""Graphs that keep something of every request, and one that does not."""

from __future__ import annotations

from typing import Any

from asyncline import Graph, Op, Request

kept: list[bytes] = []


class Keep(Op):
    cpu = "inline"

    def example(self) -> int:
        return 1000

    def preprocess(self, nbytes: int) -> int:
        kept.append(bytes(nbytes))
        return nbytes


class Pass(Op):
    cpu = "inline"

    def example(self) -> int:
        return 1000

    def preprocess(self, nbytes: int) -> int:
        return len(bytes(nbytes))


class Refuse(Op):
    cpu = "inline"

    def preprocess(self, value: Any) -> Any:
        raise RuntimeError("planted")


graph = Graph("leaky", Keep(Request()))
clean = Graph("clean", Pass(Request()))
refusing = Graph("refusing", Refuse(Request()))
