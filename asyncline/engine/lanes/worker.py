"""What runs inside a process of the CPU pool. Imported there by name; keeps no state but the Ops."""

from __future__ import annotations

import fcntl
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
    _die_with_parent()
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


def _die_with_parent() -> None:
    """Have the kernel kill this process when the server's ends, however it ends, whatever runs here.

    PR_SET_PDEATHSIG would not do: the parent of a worker is the fork server, which outlives the server for
    as long as it has workers. But each worker holds a pipe that closes with the server.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    pipe = parent.sentinel
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if not parent.is_alive():  # it ended before that
        os._exit(1)


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
