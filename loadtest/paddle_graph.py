"""One Op over two texts, in the loop; and in the thread lane, where those of a Paddle service run."""

from asyncline import Graph, Request, Text, op

CONCURRENCY = 8
"""Of hooks in the thread lane; the service's Op has the same."""


def said(text: str, scores: str) -> dict[str, str]:
    return {"text": text, "scores": scores}


def made(name: str, kind: type) -> Graph:
    request = Request(text=Text(), scores=Text())
    return Graph(name, kind(request.text, request.scores))


graph = made("echo", op(cpu="inline")(said))
threaded = made("echo", op(cpu="thread", concurrency=CONCURRENCY)(said))
