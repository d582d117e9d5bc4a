"""Attributes of a product from its picture: fetch → decode → (colours ∥ classify) → one answer.

Colours are found in the CPU pool while the classifier runs on its device. Its model is small, and has only ever
seen drawings (`tagging_pictures.py`): of 4,000 others it names the category of 98.2 % rightly and the pattern of
98.2 %. It shows how such a service is built; for photographs, train it on yours.

    pip install 'asyncline[onnx]'
    asyncline serve ops.tagging:graph --config config/tagging.yml
    curl -H 'Content-Type: image/jpeg' --data-binary @loadtest/tagging.jpg http://127.0.0.1:8000/tagging
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from asyncline import Graph, Image, Op, Request, op
from asyncline.backends import OnnxSession
from asyncline.images import Decode, Fetch, UrlPolicy, resize
from ops.tagging_colours import Colour, dominant_colours

MODEL = Path(__file__).with_suffix(".onnx")
SIDE = 96
"""Pixels of a side of what the model sees."""
LEAST = (2 * SIDE, 2 * SIDE)
"""Width and height from which on a smaller copy of a photo will do, for its colours too."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""RGB, `[height, width, 3]`."""
Labels = dict[str, dict[str, Any]]
"""`{"category": {"label": "shirt", "score": 0.98}, "pattern": ...}`"""


class Classify(Op):
    """What the product is, and which pattern it has."""

    cpu = "thread"

    def load_model(self, device: str) -> OnnxSession:
        return OnnxSession(MODEL, device, threads=self.settings.session_threads)

    def preprocess(self, image: Pixels) -> Pixels:
        return resize(image, SIDE, SIDE)

    def process(self, batch: list[Pixels]) -> list[Labels]:
        return classify(self.model, batch)


@op(cpu="process")
def colours(image: Pixels) -> list[Colour]:
    return dominant_colours(image)


@op(cpu="inline")
def answer(labels: Labels, colours: list[Colour]) -> dict[str, Any]:
    """What a client gets."""
    return {**labels, "colours": [asdict(colour) for colour in colours]}


def classify(session: OnnxSession, images: list[Pixels]) -> list[Labels]:
    """The best label of each output of the model, for each image.

    :param session: from uint8 `[n, SIDE, SIDE, 3]` to one float32 `[n, labels]` for each question; the labels
        are in its metadata.
    :param images: `[SIDE, SIDE, 3]`.
    """
    questions = [(output.name, session.metadata[output.name].split()) for output in session.outputs]
    return [
        {
            name: {"label": labels[scores.argmax()], "score": round(float(scores.max()), 3)}
            for (name, labels), scores in zip(questions, row, strict=True)
        }
        for row in session.run(images)
    ]


def tagging(policy: UrlPolicy | None = None) -> Graph:
    """The pipeline.

    :param policy: which URLs may be downloaded; only public ones without it.
    """
    request = Request(image=Image(url=True, description="one product", example="loadtest/tagging.jpg"))
    image = Decode(Fetch(request.image, policy=policy or UrlPolicy()), at_least=LEAST)
    return Graph("tagging", answer(Classify(image), colours(image)))


graph = tagging()
