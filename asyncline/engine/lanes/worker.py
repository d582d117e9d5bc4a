"""What runs inside a process of the CPU pool: one long task that answers Calls until the server lets go."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import pickle
import select
import signal
import socket
import time
import traceback
from dataclasses import dataclass
from typing import Any, NamedTuple

from asyncline.engine.context import current
from asyncline.engine.lanes.crossing import Packed, Parcel, pack, unpack
from asyncline.engine.lanes.link import Link
from asyncline.engine.lanes.segment import Segments, SegmentsFull
from asyncline.errors import LoadError, OpError, Overloaded, RequestError, hook_error, load_error, public_message
from asyncline.graph.op import Op, remake
from asyncline.settings import OpSettings

ERROR_BYTES = 96_000
MESSAGE_CHARACTERS = 4_000
TRACEBACK_CHARACTERS = 16_000
"""What crosses of an error's text: a message has a limit, and an exception may quote a whole array."""


@dataclass(frozen=True)
class Recipe:
    """How a worker makes an Op: its class, found by import, and its arguments."""

    name: str
    cls: type[Op]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    settings: OpSettings


@dataclass(frozen=True)
class Setup:
    """What a worker is told at its start."""

    number: int
    """Its own, never used again: the owner in the keys of its segments."""
    max_bytes: int
    """Most bytes in its segments."""
    recipes: tuple[Recipe, ...]


class Call(NamedTuple):
    """To a worker: run a hook. Also what `context()` shows there."""

    op: str
    hook: str
    args: tuple[Any, ...]
    """The fields of a Packed."""
    data_id: int
    log_id: str
    traceparent: str | None
    expires_at: float


class Answer(NamedTuple):
    """From a worker: what came of a Call. Times are seconds of CLOCK_MONOTONIC, one clock for all processes."""

    value: tuple[Any, ...] | None
    """The fields of a Packed; None where there is an error."""
    error: bytes | None
    """A pickled RequestError."""
    started_at: float
    ended_at: float


CALL, ANSWER = "call", "answer"
HELLO = "hello"
"""A worker's first message: its process id, by which it can be killed from here on."""
STARTED = "started"
"""Its Ops are made: a pickled LoadError, or None."""
HUNGRY = "hungry"
"""From a worker without room for a result: hand back what you can. It waits."""
RETURNS = "returns"
"""To a hungry worker: nothing but the holds that come with every message."""


_connection: socket.socket


def connect(connection: socket.socket) -> None:
    """The executor's initializer: the only way in which a socket gets into a new process."""
    global _connection
    _connection = connection


def serve(setup: Setup) -> None:
    """Make the Ops, say so, then answer Calls until the server closes the connection."""
    for number in (signal.SIGINT, signal.SIGTERM):  # both may reach the whole group; the server decides
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    with _connection:  # whatever ends this, the server sees the end of the connection
        Worker(setup, _connection).run()


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


def _dump(error: RequestError, call: Call) -> bytes:
    """Pickle an error; one of the user's own class may hold what cannot cross, or too much of it."""
    try:
        dumped = pickle.dumps(error)
        if len(dumped) <= ERROR_BYTES:
            return dumped
        reason = "is too large"
    except Exception as failed:
        reason = f"cannot be pickled ({public_message(failed)})"
    text = f"op {call.op!r} {call.hook}: raised {type(error).__name__}, which {reason} to cross: {error.message}"
    return pickle.dumps(OpError(text[:MESSAGE_CHARACTERS]))


class Worker:
    """One process of the pool."""

    def __init__(self, setup: Setup, connection: socket.socket) -> None:
        self._setup = setup
        self._ops: dict[str, Op] = {}
        self._segments = Segments(setup.number, setup.max_bytes)
        self._link = Link(connection, self._segments)
        self._segments.on_close = self._link.note_closed

    def run(self) -> None:
        self._link.send(HELLO, (os.getpid(),))
        failed = self._make_ops()
        self._link.send(STARTED, (failed and pickle.dumps(failed),))
        try:
            while True:
                kind, fields = self._link.receive()
                if kind == CALL:
                    self._answer(Call(*fields))
        except EOFError:
            pass

    def _make_ops(self) -> LoadError | None:
        for recipe in self._setup.recipes:
            try:
                op = remake(recipe.cls, recipe.args, recipe.kwargs)
                op.settings = recipe.settings
                init = op.hook("init_op")
                if init is not None:
                    init()
            except Exception as error:
                failed = load_error(error, recipe.name, "init_op in the CPU pool")
                failed.__cause__ = None  # a foreign exception need not survive pickling
                return LoadError(str(failed)[:MESSAGE_CHARACTERS])
            self._ops[recipe.name] = op
        return None

    def _answer(self, call: Call) -> None:
        started_at = time.monotonic()
        parcel, error = self._run(call)
        packed = None if parcel is None else tuple(parcel.packed)
        dumped = None if error is None else _dump(error, call)
        self._link.send(ANSWER, (packed, dumped, started_at, time.monotonic()), parcel)

    def _run(self, call: Call) -> tuple[Parcel | None, RequestError | None]:
        current.set(call)
        try:
            value = getattr(self._ops[call.op], call.hook)(*unpack(Packed(*call.args), self._segments, self._link))
        except BaseException as error:  # a SystemExit of a hook must not end the worker
            outcome = hook_error(error, call.op, call.hook)
            if isinstance(outcome, OpError):
                outcome.traceback = traceback.format_exc()[-TRACEBACK_CHARACTERS:]
            # A foreign exception need not survive pickling, and its frames hold the arguments.
            outcome.__cause__ = outcome.__context__ = outcome.__traceback__ = None
            outcome.message = outcome.message[:MESSAGE_CHARACTERS]
            return None, outcome
        try:
            return self._pack(value, call.expires_at), None
        except SegmentsFull:
            return None, Overloaded(f"op {call.op!r} {call.hook}: the memory for results is full")
        except Exception as error:
            text = f"{type(error).__name__}: {public_message(error)}"
            return None, OpError(f"op {call.op!r} {call.hook}: its result cannot leave the CPU pool: {text}")

    def _pack(self, value: Any, expires_at: float) -> Parcel:
        """Pack a result; while there is no room, wait for the server to hand back earlier ones."""
        while True:
            try:
                return pack(value, self._segments)
            except SegmentsFull:
                self._link.send(HUNGRY)
                ready = select.poll()
                ready.register(self._link.connection, select.POLLIN)
                if not ready.poll(max(0.0, expires_at - time.monotonic()) * 1e3):
                    raise
                self._link.receive()
