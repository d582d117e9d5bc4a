"""An app whose graph is wrong."""

from asyncline import Graph, Op, Request


class Join(Op):
    def preprocess(self, only_one: int) -> int:
        return only_one


request = Request()
graph = Graph("bad", Join(request, request))
