"""What runs inside a process of the CPU pool. Imported there by name; keeps no state but the Ops."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
import traceback
from dataclasses import dataclass
from typing import Any

from asyncline.engine.context import current
from asyncline.errors import LoadError, OpError, RequestError, hook_error, load_error
from asyncline.graph.op import Op, remake
from asyncline.settings import OpSettings

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Recipe:
    """How a worker makes an Op: its class, found by import, and its arguments."""

    name: str
    cls: type[Op]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    settings: OpSettings


@dataclass(frozen=True)
class Call:
    """One hook call, as it crosses to a worker. Also what `context()` shows there."""

    op: str
    hook: str
    args: tuple[Any, ...]
    data_id: int
    log_id: str
    traceparent: str | None
    expires_at: float


@dataclass(frozen=True)
class Answer:
    """What came of a Call. Times are seconds of CLOCK_MONOTONIC, one clock for all processes."""

    value: Any
    error: RequestError | None
    started_at: float
    ended_at: float


_ops: dict[str, Op] = {}


def start(recipes: list[Recipe]) -> int | LoadError:
    """Make the Ops and run their `init_op`. Returns this worker's process id, or what failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    # The fork server ends with the server process, and from here on this worker with the fork server ...
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():  # ... unless both ended before that
        os._exit(1)
    for recipe in recipes:
        try:
            op = remake(recipe.cls, recipe.args, recipe.kwargs)
            op.settings = recipe.settings
            init = op.hook("init_op")
            if init is not None:
                init()
        except Exception as error:
            failed = load_error(error, recipe.name, "init_op in the CPU pool")
            failed.__cause__ = None  # a foreign exception need not survive pickling
            return failed
        _ops[recipe.name] = op
    return os.getpid()


def call(call: Call) -> Answer:
    """Run one hook."""
    current.set(call)
    started_at = time.monotonic()
    try:
        value = getattr(_ops[call.op], call.hook)(*call.args)
    except Exception as error:
        outcome = hook_error(error, call.op, call.hook)
        # A foreign exception need not survive pickling; its text does.
        outcome.__cause__ = None
        if isinstance(outcome, OpError):
            outcome.traceback = traceback.format_exc()
        return Answer(None, outcome, started_at, time.monotonic())
    return Answer(value, None, started_at, time.monotonic())
