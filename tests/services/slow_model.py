"""An app whose model takes its time to load."""

import sys
import time
from typing import Any

from asyncline import Graph, Op, Request


class Slow(Op):
    cpu = "inline"

    def load_model(self, device: str) -> None:
        sys.stderr.write("the model is loading\n")
        sys.stderr.flush()
        time.sleep(600)

    def process(self, batch: list[Any]) -> list[Any]:
        return batch


graph = Graph("slow", Slow(Request()))
