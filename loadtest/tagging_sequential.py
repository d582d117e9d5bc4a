"""The tagging case without a graph: the functions of `ops/tagging.py`, one after the other in a single Op."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from asyncline import Graph, Image, Op, Request
from asyncline.backends import OnnxSession
from asyncline.images import decode, resize
from ops.tagging import LEAST, MODEL, SIDE, Labels, Pixels, classify
from ops.tagging_colours import Colour, dominant_colours

THREADS = 1
"""Of a session, as in config/tagging.yml."""


class OneOp(Op):
    """As one would write it at first: an image is decoded by `preprocess`, `process` does the rest in order."""

    cpu = "thread"
    threads = THREADS

    def load_model(self, device: str) -> OnnxSession:
        return OnnxSession(MODEL, device, threads=self.settings.session_threads)

    def preprocess(self, data: bytes) -> Pixels:
        return decode(data, at_least=LEAST)

    def process(self, batch: list[Pixels]) -> list[tuple[list[Colour], Labels]]:
        colours = [dominant_colours(image) for image in batch]
        labels = classify(self.model, [resize(image, SIDE, SIDE) for image in batch])
        return list(zip(colours, labels, strict=True))

    def postprocess(self, found: tuple[list[Colour], Labels], data: bytes) -> dict[str, Any]:
        colours, labels = found
        return {**labels, "colours": [asdict(colour) for colour in colours]}


class OneThread(Op):
    """All of it on the thread of a replica."""

    threads = THREADS

    def load_model(self, device: str) -> OnnxSession:
        return OnnxSession(MODEL, device, threads=self.settings.session_threads)

    def process(self, batch: list[bytes]) -> list[dict[str, Any]]:
        return [tag(data, self.model) for data in batch]


class OneProcess(Op):
    """All of it in a process of the CPU pool, which has a model of its own: as many as the pool has processes."""

    def init_op(self) -> None:
        self.session = OnnxSession(MODEL, threads=THREADS)

    def preprocess(self, data: bytes) -> dict[str, Any]:
        return tag(data, self.session)


def tag(data: bytes, session: OnnxSession) -> dict[str, Any]:
    """The whole case in order."""
    image = decode(data, at_least=LEAST)
    colours = dominant_colours(image)
    (labels,) = classify(session, [resize(image, SIDE, SIDE)])
    return {**labels, "colours": [asdict(colour) for colour in colours]}


def sequential(kind: Callable[..., Op], **settings: Any) -> Graph:
    """A graph of that Op alone."""
    request = Request(image=Image())
    return Graph("tagging", kind(request.image, **settings))
