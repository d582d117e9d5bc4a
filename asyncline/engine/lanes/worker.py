"""What runs inside a process of the CPU pool: one long task that answers Calls until the server lets go."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import pickle
import resource
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from asyncline.engine import memory
from asyncline.engine.context import current, worker_place
from asyncline.engine.lanes.crossing import Packed, Parcel, pack, unpack
from asyncline.engine.lanes.link import FULL_BYTES, MOST_DESCRIPTORS, Link, Message, Sockets, frame
from asyncline.engine.lanes.recipe import Recipe
from asyncline.engine.lanes.segment import Array, Borrowed, Segment, Segments, SegmentsFull
from asyncline.engine.lanes.steps import run_steps
from asyncline.engine.lanes.worker_log import SendRecords
from asyncline.errors import LoadError, OpError, Overloaded, RequestError, hook_error, load_error, public_message
from asyncline.graph.fusion import Step
from asyncline.graph.op import Op, remake
from asyncline.tuning import set_library_threads

ERROR_BYTES = 96_000
MESSAGE_CHARACTERS = 4_000
"""What crosses of an error's text: a message has a limit, and an exception may quote a whole array."""


@dataclass(frozen=True)
class Setup:
    """What a worker is told at its start."""

    number: int
    """Its own, never used again: the owner in the keys of its segments."""
    place: int
    """Which of the pool's workers it is, from 0; one that takes another's place has the same."""
    max_bytes: int
    """Most bytes in its segments."""
    memory_bytes: int
    """Most bytes of its own memory: what asks for more gets a MemoryError."""
    recipes: tuple[Recipe, ...]
    chains: Mapping[tuple[str, str], tuple[Step, ...]]
    """The hooks that run as one task, by Op and hook of the first."""
    log_levels: Mapping[str, int]
    """Which loggers' records the server wants, and from which level on."""


class Call(NamedTuple):
    """To a worker: run a hook. Also what `context()` shows there."""

    kind: str
    op: str
    hook: str
    steps: int
    """How many hooks of the chain that this one begins run now; 0: it alone."""
    args: Packed
    data_id: int
    log_id: str
    outgoing: str | None
    expires_at: float


CALL = "call"
ANSWER = "answer"
"""What came of a Call: a Packed, or None; a pickled RequestError of the last hook, or None; and when each hook
began and ended, in seconds of CLOCK_MONOTONIC, one clock for all processes. Where several hooks ran as one
task there is a tuple of Packed, None for what is not kept."""
HELLO = "hello"
"""A worker's first message: its process id, by which it can be killed from here on. It goes on once it is answered."""
STARTED = "started"
"""Its Ops are made: a pickled LoadError, or None; its own memory in bytes; the Packed fields of its Progress."""
WITHDRAWN = "withdrawn"
"""A Call was not run: its permit had been taken back."""
USED = "used"
"""How many bytes of memory of its own a worker has, now and then."""
HUNGRY = "hungry"
"""From a worker without room for a result: hand back what you can. It waits."""
RETURNS = "returns"
"""To a worker: nothing but the holds that come with every packet, and a wish for those that it could hand back."""
LEVELS = "levels"
"""To a worker: other `log_levels`."""
NO_ROOM = "no room"
"""To a hungry worker: nothing will be handed back."""

USED_EVERY_S = 1.0

_sockets: Sockets
_descriptors: list[int]


def connect(sockets: Sockets) -> None:
    """The executor's initializer: the only way in which sockets get into a new process.

    It ends the process where the server has given it up. Later, when the Ops' modules are imported with the first
    task and whatever they do may hang, the server knows whom to kill.
    """
    global _sockets, _descriptors
    _sockets = sockets
    set_library_threads(1)
    try:
        sockets.packets.sendall(frame([(HELLO, os.getpid())], [], [], []))
        # The server's answer is no message but the eventfd of permits, of which every Call takes one, and where the
        # log goes.
        _, _descriptors, _, _ = socket.recv_fds(sockets.descriptors, 1, 2)
    except OSError:
        os._exit(1)
    if not _descriptors:
        os._exit(1)


def serve(setup: Setup) -> None:
    """Make the Ops, say so, then answer Calls until the server closes the connection."""
    for number in (signal.SIGINT, signal.SIGTERM):  # both may reach the whole group; the server decides
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    with closing(_sockets):  # whatever ends this, the server sees the end of the connection
        permits, records = _descriptors
        Worker(setup, _sockets, permits, SendRecords(records)).run()


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


_Packed = Packed | tuple[Packed | None, ...] | None
_Outcome = tuple[tuple[float, ...], _Packed, tuple[Array | Segment, ...], RequestError | None]
"""The fields of an ANSWER, and the holds that its values lie in."""


class Worker:
    """One process of the pool."""

    def __init__(self, setup: Setup, sockets: Sockets, permits: int, records: SendRecords) -> None:
        self._setup = setup
        self._permits = permits
        self._records = records
        records.attach(setup.log_levels)
        self._ops: dict[str, Op] = {}
        self._segments = Segments(setup.number, setup.max_bytes)
        self._borrowed = Borrowed(self._segments)
        self._link = Link(sockets, self._segments)
        self._segments.on_close = self._link.note_closed
        #: Which step of the running task has begun: the server reads it where this process dies.
        self._progress = self._segments.take(1)
        self._progress[0] = 0
        self._segments.exempt(self._progress)
        self._messages: deque[Message] = deque()
        self._used_at = 0.0
        memory.take = self._take
        worker_place.set(setup.place)

    def run(self) -> None:
        failed = self._make_ops()
        progress, holds, _ = pack(self._progress, self._segments)
        self._link.send((STARTED, failed and pickle.dumps(failed), own_memory(), progress), holds)
        limit_memory(self._setup.memory_bytes)
        try:
            while True:
                while not self._messages:
                    self._messages.extend(self._link.receive())
                message = self._messages.popleft()
                if message[0] == CALL:
                    self._answer(tuple.__new__(Call, message))  # as its own `__new__` would, by a call less
                elif message[0] == RETURNS:
                    self._link.flush()
                elif message[0] == LEVELS:
                    self._records.attach(message[1])
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
        self._records.know(self._ops.values())
        return None

    def _answer(self, call: Call) -> None:
        try:
            os.eventfd_read(self._permits)
        except BlockingIOError:
            self._give_back(call)
            self._link.send((WITHDRAWN,))
            return
        current.set(call)
        times, packed, holds, error = self._run(call)
        self._borrowed.end()
        self._link.put((ANSWER, packed, None if error is None else _dump(error, call), times), holds)
        if times[-1] > self._used_at + USED_EVERY_S:
            self._used_at = times[-1]
            self._link.put((USED, own_memory()))
        self._link.flush()

    def _run(self, call: Call) -> _Outcome:
        started_at = time.monotonic()
        if started_at >= call.expires_at:
            self._give_back(call)
            return (started_at, started_at), None, (), None  # the server sees by the time that it is too late
        try:
            args = unpack(call.args, self._borrowed, self._link)
            if call.steps:
                return self._run_steps(call, list(args))
            value = getattr(self._ops[call.op], call.hook)(*args)
        except BaseException as raised:  # a SystemExit of a hook must not end the worker
            return (started_at, time.monotonic()), None, (), _error(raised, call.op, call.hook)
        parcel, error = self._pack(value, call, call.op, call.hook)
        packed, holds, _ = parcel or (None, (), 0)
        return (started_at, time.monotonic()), packed, holds, error

    def _run_steps(self, call: Call, frame: list[Any]) -> _Outcome:
        steps = self._setup.chains[call.op, call.hook][: call.steps]

        def hook_of(step: Step) -> Any:
            return getattr(self._ops[step.op], step.hook)

        times: list[float] = []
        packed: list[Packed | None] = []
        holds: list[Array | Segment] = []
        error: RequestError | None = None
        nbytes = 0
        results = run_steps(steps, hook_of, frame, time.monotonic, call.expires_at, make_error=_error)
        for number, (step, result) in enumerate(zip(steps, results, strict=False), 1):
            error, parcel = result.error, None
            if error is None and (step.keeps or number == len(steps) or result.is_final(call.expires_at)):
                # Before the next hook, which may change the value.
                parcel, error = self._pack(result.value, call, step.op, step.hook)
                _, lent, adds = parcel or (None, (), 0)
                nbytes += adds
                if len(holds) + len(lent) > MOST_DESCRIPTORS or nbytes > FULL_BYTES:
                    text = "the results of its task are too many to cross together: set dag.fuse to false"
                    parcel, error = None, OpError(f"op {step.op!r} {step.hook}: {text}")
                    self._segments.drop(lent)
                if parcel is not None and lent and type(result.value) is np.ndarray:
                    # As the next hook would get it without fusion; it may lie where the server reads it.
                    result.value = result.value.view()
                    result.value.flags.writeable = False
            if parcel is None:
                packed.append(None)
            else:
                packed.append(parcel[0])
                holds += parcel[1]
            times += (result.started_at, result.ended_at)
            if error is not None:
                break
            self._progress[0] = number
        self._progress[0] = 0
        return tuple(times), tuple(packed), tuple(holds), error

    def _give_back(self, call: Call) -> None:
        """The arguments of a Call that is not run are not read: their holds go back as they came."""
        self._link.returns += call.args[2]

    def _pack(self, value: Any, call: Call, op: str, hook: str) -> tuple[Parcel | None, RequestError | None]:
        """Pack a result; while there is no room, wait for the server to hand back earlier ones."""
        while True:
            try:
                return pack(value, self._segments), None
            except SegmentsFull:
                if not self._wait_for_room(call.expires_at):
                    return None, Overloaded(f"op {op!r} {hook}: the memory for results is full")
            except Exception as raised:
                text = f"{type(raised).__name__}: {public_message(raised)}"
                return None, OpError(f"op {op!r} {hook}: its result cannot leave the CPU pool: {text}")

    def _wait_for_room(self, until: float) -> bool:
        self._link.send((HUNGRY,))
        ready = select.poll()
        ready.register(self._link.sockets.packets, select.POLLIN)
        if not ready.poll(max(0.0, until - time.monotonic()) * 1e3):
            return False
        messages = self._link.receive()
        self._messages.extend([message for message in messages if message[0] != NO_ROOM])
        return all(message[0] != NO_ROOM for message in messages)

    def _take(self, nbytes: int) -> Array | None:
        try:
            return self._segments.take(nbytes)
        except SegmentsFull:
            return None  # `_pack` waits for room


def _error(raised: BaseException, op: str, hook: str) -> RequestError:
    """The error of the request, fit to cross."""
    outcome = hook_error(raised, op, hook)
    # A foreign exception need not survive pickling, and its frames hold the arguments.
    outcome.__cause__ = outcome.__context__ = outcome.__traceback__ = None
    outcome.message = outcome.message[:MESSAGE_CHARACTERS]
    return outcome


def own_memory() -> int:
    """Bytes in memory that this process shares with nobody."""
    with open("/proc/self/statm", "rb") as file:
        resident, shared = file.read().split()[1:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def limit_memory(nbytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (nbytes if hard == resource.RLIM_INFINITY else min(nbytes, hard), hard))
