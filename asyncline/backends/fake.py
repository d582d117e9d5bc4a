"""FakeSession: a model that takes as long, and fails, as it is told. For tests, and for trying out a graph's timing."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from asyncline.backends.base import Array, Session, TensorInfo
from asyncline.engine.lanes.accelerator import DeviceLost, OutOfMemory
from asyncline.errors import LoadError

NUMBER = TensorInfo("x", "FP32", (-1,))
"""One number a sample."""


class FakeSession(Session):
    """A model without weights.

    A run of b rows takes `base_s + row_s * b` seconds, times a factor between 1 - jitter and 1 + jitter.

    :param compute: from the arrays of the inputs to the output, or to a tuple of outputs; by default the
        first input is handed back, copied.
    :param sleep: what a run waits with; a test gives one that moves its clock.
    :param poison: a run raises ValueError when the first number of a row is one of these.
    :param most: a run of more rows raises OutOfMemory. May be changed later.
    :param extra_rows: how many rows too many, or below zero too few, every output has.
    """

    def __init__(
        self,
        compute: Callable[..., Any] | None = None,
        *,
        inputs: tuple[TensorInfo, ...] = (NUMBER,),
        outputs: tuple[TensorInfo, ...] = (TensorInfo("y", "FP32", (-1,)),),
        base_s: float = 0.0,
        row_s: float = 0.0,
        jitter: float = 0.0,
        seed: int = 0,
        sleep: Callable[[float], None] = time.sleep,
        poison: Collection[float] = (),
        most: int | None = None,
        extra_rows: int = 0,
        max_batch_size: int | None = None,
        batch_sizes: tuple[int, ...] = (),
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.metadata = {"backend": "fake"}
        self.max_batch_size = max_batch_size
        self.batch_sizes = batch_sizes
        self.most = most
        #: The rows of every run that was begun, in order.
        self.runs: list[int] = []
        self._compute = compute or _copy_of_first
        self._base_s = base_s
        self._row_s = row_s
        self._jitter = jitter
        self._random = random.Random(seed)
        self._sleep = sleep
        self._poison = frozenset(poison)
        self._extra_rows = extra_rows
        self._may_run = threading.Event()
        self._may_run.set()
        #: Set while a run hangs: a test may wait for it.
        self.hanging = threading.Event()
        self._lost = False
        self._closed = False

    def seconds(self, rows: int) -> float:
        """How long a run takes, without jitter."""
        return self._base_s + self._row_s * rows

    def run_named(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if self._closed:
            raise LoadError("the session is closed")
        first = next(iter(inputs.values()))
        rows = len(first)
        self.runs.append(rows)
        if not self._may_run.is_set():
            self.hanging.set()
            self._may_run.wait()
            self.hanging.clear()
        if self._lost:
            raise DeviceLost("the fake device is lost")
        if self.most is not None and rows > self.most:
            raise OutOfMemory(f"no room for {rows} rows")
        seconds = self.seconds(rows) * (1 + self._jitter * self._random.uniform(-1, 1))
        if seconds:
            self._sleep(seconds)
        if self._poison:
            for value in first.reshape(rows, -1)[:, 0].tolist():
                if value in self._poison:
                    raise ValueError(f"poison: {value:g}")
        found = self._compute(*(inputs[info.name] for info in self.inputs))
        outputs = found if isinstance(found, tuple) else (found,)
        named = {info.name: output for info, output in zip(self.outputs, outputs, strict=True)}
        if self._extra_rows:
            named = {
                name: np.resize(output, (rows + self._extra_rows, *output.shape[1:])) for name, output in named.items()
            }
        return named

    def hang(self) -> None:
        """Every run from now on waits for `release`."""
        self._may_run.clear()

    def release(self) -> None:
        self._may_run.set()

    def lose(self) -> None:
        """Every run from now on raises DeviceLost, as after a sticky error."""
        self._lost = True

    def close(self) -> None:
        self._closed = True
        self.release()

    def __repr__(self) -> str:
        return f"<FakeSession {len(self.runs)} runs>"


def _copy_of_first(first: Array, *_: Array) -> Array:
    return first.copy()
