"""An app whose model file is not there."""

from typing import Any

from asyncline import Graph, Op, Request
from asyncline.backends import OnnxSession


class Detect(Op):
    cpu = "inline"

    def load_model(self, device: str) -> OnnxSession:
        return OnnxSession("/models/detector.onnx", device)

    def process(self, batch: list[Any]) -> Any:
        return self.model.run(batch)


graph = Graph("detect", Detect(Request()))
