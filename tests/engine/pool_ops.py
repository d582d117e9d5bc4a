"""Ops for the real pool: they do to their worker what production does."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import numpy as np

from asyncline import BadRequest, Each, Op, Reply, context
from asyncline.graph.request import Input


class Busy(Op):
    """Does what its payload says, in a worker."""

    def __init__(self, *inputs: Input, offset: int = 0, **settings: Any) -> None:
        super().__init__(*inputs, **settings)
        self.offset = offset

    def init_op(self) -> None:
        self.made_in = os.getpid()

    def preprocess(self, order: tuple[str, Any]) -> Any:
        what, value = order
        match what:
            case "add":
                return value + self.offset
            case "pid":
                return os.getpid(), self.made_in, os.getppid()
            case "context":
                here = context()
                return here.data_id, here.log_id, here.remaining_s
            case "raise":
                raise ValueError(value)
            case "raise_large":
                raise Large(value)
            case "raise_odd":
                odd = BadRequest("odd")
                odd.quoted = lambda: value  # type: ignore[attr-defined]  # as a user's own class may have
                raise odd
            case "exit":
                os._exit(value)
            case "system_exit":
                raise SystemExit(value)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hang":
                time.sleep(value)
            case "lambda":
                return lambda: value
            case "reply":
                return Reply(value)
            case "array":
                return np.full(value, 7, np.uint8)
            case "size":
                return value.nbytes
            case "leak":
                self.kept = b""  # what it kept so far goes first
                self.kept = b"x" * value
            case "each":
                return Each(range(value))
        return value


class Large(BadRequest):
    """An error that carries more than a message."""

    def __init__(self, nbytes: int) -> None:
        super().__init__("large")
        self.quoted = b"x" * nbytes


class BadInit(Op):
    def init_op(self) -> None:
        raise RuntimeError("no licence")

    def preprocess(self, x: Any) -> Any:
        return x


class HangingInit(Op):
    def init_op(self) -> None:
        time.sleep(600)

    def preprocess(self, x: Any) -> Any:
        return x


class DyingInit(Op):
    def init_op(self) -> None:
        os._exit(3)

    def preprocess(self, x: Any) -> Any:
        return x


class Threaded(Op):
    """Says which thread ran what."""

    cpu = "thread"

    def preprocess(self, x: Any) -> str:
        if x == "exit":
            raise SystemExit(3)
        return threading.current_thread().name

    def process(self, batch: list[str]) -> list[tuple[str, str]]:
        if self.model == "bad":
            raise SystemExit(4)
        return [(name, threading.current_thread().name) for name in batch]

    def postprocess(self, names: tuple[str, str], x: Any) -> tuple[str, ...]:
        return (*names, threading.current_thread().name)


class Meeting(Op):
    """Two requests meet in `preprocess`: possible only if both run at once."""

    cpu = "thread"

    def init_op(self) -> None:
        self.barrier = threading.Barrier(2)

    def preprocess(self, x: int) -> int:
        self.barrier.wait(5)
        return x


class Make(Op):
    def preprocess(self, count: int) -> Any:
        return np.zeros(count)


class Views(Op):
    """What `process` returns are views of its input, which lies in memory shared with a worker."""

    batch_size = 8

    def preprocess(self, value: int) -> Any:
        return np.full((300, 300), value, np.int32)

    def process(self, batch: list[Any]) -> list[Any]:
        return [array[10:20] for array in batch]


class Spoil(Op):
    """Changes its input."""

    def preprocess(self, made: Any) -> Any:
        made += 1
        return made
