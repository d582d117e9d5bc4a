"""Lane of processes: the CPU pool.

Single-worker `ProcessPoolExecutor`s, one Job in flight per worker, so that a crash costs one request and
names its culprit, and a hung worker can be killed. Each worker runs one long task that answers Calls over a
Link; a stock `submit` for each Job would cost 120 µs of the server's time and pickle arrays.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import socket
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from functools import reduce
from typing import Any

from asyncline.deadline import Clock
from asyncline.engine.hooks import Hooks
from asyncline.engine.lanes import worker
from asyncline.engine.lanes.base import Job, Lane, LaneStatistics
from asyncline.engine.lanes.crossing import Packed, pack, unpack
from asyncline.engine.lanes.link import Link
from asyncline.engine.lanes.segment import Key, Segments, SegmentsFull
from asyncline.errors import LoadError, OpError, Unavailable, WorkerCrashed, public_message
from asyncline.graph.op import recipe
from asyncline.graph.plan import Node

log = logging.getLogger("asyncline.engine")

GRACE_S = 1.0
"""How long past the deadline of its Item a hook may run before its worker is killed."""
START_S = 60.0
"""How long a worker may take to import the Ops' modules and run `init_op`."""
CLOSE_S = 2.0
"""How long a stop waits for the executors of killed workers."""
BACKOFF_S = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0)
"""Waits before a worker is started again, by how many starts in a row have failed."""


class Slot:
    """One worker process, replaced when it dies: STARTING -> READY <-> BUSY -> DEAD -> STARTING."""

    def __init__(self, number: int, lane: ProcessLane) -> None:
        self.number = number
        self.job: Job | None = None
        self.ready = False
        self.link: Link | None = None
        self.retired: asyncio.Future[None] | None = None
        #: Waits for memory of ours to be handed back.
        self.hungry = False
        self._lane = lane
        self._owner = 0
        self._executor: ProcessPoolExecutor | None = None
        self._starting: asyncio.Future[tuple[bytes | None]] | None = None
        self._pidfd: int | None = None
        # One timer, left as it is when a Job ends: setting one for each costs as much as sending the Job.
        self._kill_timer: asyncio.TimerHandle | None = None
        self._kill_at = 0.0
        self._killed_because = ""

    async def start(self) -> None:
        """Start a worker.

        :raises LoadError: it died, took too long, or an Op could not be made in it.
        """
        lane = self._lane
        self._owner = next(lane.numbers)
        self._starting = lane.loop.create_future()
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.setblocking(False)
            self.link = Link(ours, lane.segments)
            lane.loop.add_reader(ours, self._readable)
            async with asyncio.timeout(START_S):
                # In a thread: starting a process talks to the fork server and waits for it.
                await asyncio.to_thread(self._spawn, theirs)
                (failed,) = await self._starting
                if failed is not None:
                    raise pickle.loads(failed)
        except LoadError:
            raise
        except TimeoutError:
            raise LoadError(f"a worker of the CPU pool did not start within {START_S:.0f} s") from None
        except EOFError:
            raise LoadError("a worker of the CPU pool died while it started") from None
        except Exception as error:
            raise LoadError(f"a worker of the CPU pool did not start: {public_message(error)}") from error
        finally:
            self._starting = None
        self.ready = True

    def _spawn(self, theirs: socket.socket) -> None:
        with theirs:
            self._executor = ProcessPoolExecutor(
                1, multiprocessing.get_context("forkserver"), initializer=worker.connect, initargs=(theirs,)
            )
            setup = worker.Setup(self._owner, self._lane.worker_bytes, self._lane.recipes)
            # Its end shows at the Link; the executor's own word for it is not needed.
            self._executor.submit(worker.serve, setup).add_done_callback(_ignore)

    def run(self, job: Job) -> None:
        """Hand a Job to the worker.

        :raises SegmentsFull: there is no room for its arguments now; the Job has to wait.
        :raises OSError: the worker is dead, so the Job has not begun.
        """
        assert self.link is not None
        item = job.item
        try:
            parcel = pack(job.args, self._lane.segments)
        except SegmentsFull:
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {public_message(error)}"
            job.error = OpError(f"op {job.node.name!r} {job.hook}: its arguments cannot enter the CPU pool: {text}")
            self._lane.not_run(self, job)
            return
        call = worker.Call(
            job.node.name, job.hook, tuple(parcel.packed), item.data_id, item.log_id, item.traceparent, job.expires_at
        )
        self.link.send(worker.CALL, call, parcel)
        self.job = job
        self._watch(job.expires_at + GRACE_S)

    def kill(self, reason: str) -> None:
        if self._pidfd is not None:
            self._killed_because = reason
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended by itself

    def _watch(self, late_at: float) -> None:
        """See at `late_at` whether the worker hangs; a timer that is set for earlier will do."""
        if self._kill_timer is not None:
            if self._kill_at <= late_at:
                return
            self._kill_timer.cancel()
        self._kill_at = late_at
        self._kill_timer = self._lane.loop.call_at(late_at, self._kill_if_hung)

    def _kill_if_hung(self) -> None:
        self._kill_timer = None
        if self.job is None:
            return
        late_at = self.job.expires_at + GRACE_S
        if self._lane.clock() >= late_at:
            self.kill("hung past the deadline")
        else:
            self._watch(late_at)

    def _readable(self) -> None:
        assert self.link is not None
        try:
            kind, fields = self.link.receive()
        except BlockingIOError:
            return
        except EOFError:
            self._ended()
            return
        if kind == worker.ANSWER:
            self._answered(worker.Answer(*fields))
        elif kind == worker.HUNGRY:
            self.hungry = True
            self._lane.feed()
        elif kind == worker.HELLO:
            # By descriptor, so that a signal can never reach another process with a reused id.
            self._pidfd = os.pidfd_open(fields[0])
        elif kind == worker.STARTED and self._starting is not None and not self._starting.done():
            self._starting.set_result(fields)

    def _answered(self, answer: worker.Answer) -> None:
        job, self.job = self.job, None
        assert job is not None and self.link is not None
        self.hungry = False
        job.args = ()
        job.started_at, job.ended_at = answer.started_at, answer.ended_at
        try:
            if answer.error is not None:
                job.error = pickle.loads(answer.error)
            elif answer.value is not None:
                job.value = unpack(Packed(*answer.value), self._lane.segments, self.link)
        except Exception as error:  # an object that pickles but does not unpickle
            text = f"{type(error).__name__}: {public_message(error)}"
            job.error = OpError(f"op {job.node.name!r} {job.hook}: its result cannot leave the CPU pool: {text}")
        self._lane.finished(self, job)

    def _ended(self) -> None:
        """The worker has closed its end: it is dead."""
        if self._starting is not None:
            if not self._starting.done():
                self._starting.set_exception(EOFError())
            self._lane.loop.remove_reader(self.link.connection)  # type: ignore[union-attr]  # it has one
            return
        job, self.job = self.job, None
        self._lane.lost(self, job, self._killed_because or ("died" if job is not None else "died while idle"))

    def discard(self) -> None:
        """Let go of a worker, dead or alive, and of what it reads and wrote."""
        self.ready = self.hungry = False
        self.kill("discarded")  # it may hang, in `init_op` too
        self._killed_because = ""
        if self._starting is not None:
            self._starting.cancel()
        if self._kill_timer is not None:
            self._kill_timer.cancel()
            self._kill_timer = None
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self.link is not None:
            self._lane.loop.remove_reader(self.link.connection)
            self.link.close()
            self.link = None
            self._lane.segments.forget_owner(self._owner)
        executor, self._executor = self._executor, None
        if executor is not None:
            # In a thread: it joins the executor's own, which ends with its worker.
            self.retired = self._lane.loop.run_in_executor(None, executor.shutdown)


class ProcessLane(Lane):
    """`width` worker processes and one queue of Jobs in front of them, oldest first.

    :param max_bytes: most bytes in shared memory, half of it for arguments, half for results.
    """

    def __init__(
        self, width: int, nodes: list[Node], tasks: asyncio.TaskGroup, hooks: Hooks, clock: Clock, max_bytes: int
    ) -> None:
        self.width = width
        self.loop = asyncio.get_running_loop()
        self.numbers = itertools.count(1)
        self.recipes: tuple[worker.Recipe, ...] = ()
        self.segments = Segments(0, max_bytes // 2)
        self.segments.on_close = self._note_closed
        self.worker_bytes = max_bytes // 2 // width
        self._nodes = nodes
        self._tasks = tasks
        self._hooks = hooks
        self.clock = clock
        self._slots = [Slot(number, self) for number in range(width)]
        self._free: deque[Slot] = deque()
        self._jobs: deque[Job] = deque()
        self._replaced = 0
        self._replacing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> None:
        self.recipes = tuple(make_recipe(node) for node in self._nodes)
        await asyncio.gather(*(slot.start() for slot in self._slots))
        self._free.extend(self._slots)

    def submit(self, job: Job) -> None:
        self._jobs.append(job)
        self._dispatch()

    def _dispatch(self) -> None:
        while self._jobs and self._free:
            job = self._jobs.popleft()
            if job.item.done:
                self.loop.call_soon(job.done, job)
                continue
            slot = self._free.popleft()
            try:
                slot.run(job)
            except SegmentsFull:
                # Wait for arguments of other Jobs to be handed back, as long as this Job lives.
                self._free.appendleft(slot)
                self._jobs.appendleft(job)
                self._watch_memory()
                return
            except OSError:
                self._jobs.appendleft(job)
                self.lost(slot, None, "died while idle")

    def finished(self, slot: Slot, job: Job) -> None:
        self._free.append(slot)
        self._dispatch()
        job.done(job)

    def not_run(self, slot: Slot, job: Job) -> None:
        """A Job could not be handed to `slot`, which is free again. Not from here: `_dispatch` is at work."""
        self._free.append(slot)
        self.loop.call_soon(job.done, job)

    def feed(self) -> None:
        """Give workers that wait for memory the holds that have been let go here, and Jobs that wait a chance."""
        self.segments.on_drop = None
        self.segments.sweep()
        for slot in self._slots:
            if slot.hungry and slot.link is not None:
                if slot.link.returns:
                    slot.hungry = False
                    try:
                        slot.link.send(worker.RETURNS)
                    except OSError:
                        pass  # it is dead: the reader finds the end of the Link
                else:
                    self._watch_memory()
        self._dispatch()

    def _watch_memory(self) -> None:
        """Call `feed` when a hold is let go, in whatever thread that happens."""
        if self.segments.on_drop is None:
            self.segments.on_drop = self._call_feed

    def _call_feed(self) -> None:
        self.segments.on_drop = None
        try:
            self.loop.call_soon_threadsafe(self.feed)
        except RuntimeError:
            pass  # the loop is closed: nobody waits

    def _note_closed(self, key: Key) -> None:
        for slot in self._slots:
            if slot.link is not None:
                slot.link.note_closed(key)

    def lost(self, slot: Slot, job: Job | None, reason: str) -> None:
        """A worker is gone, with the Job it ran."""
        slot.discard()
        if slot in self._free:
            self._free.remove(slot)
        op, hook = (job.node.name, job.hook) if job is not None else ("", "")
        if job is not None:
            job.error = WorkerCrashed(f"op {op!r} {hook}: the worker process {reason}")
        if not self._closed:
            self._replaced += 1
            log.error(
                "worker %d of the CPU pool %s%s", slot.number, reason, f" in op {op!r} {hook}" if op else "",
                extra=_ids(job),
            )  # fmt: skip
            if self._hooks.worker_lost:
                self._hooks.emit(self._hooks.worker_lost, op, hook, reason)
            replacing = self._tasks.create_task(self._replace(slot), name=f"asyncline worker {slot.number} restart")
            self._replacing.add(replacing)
            replacing.add_done_callback(self._replacing.discard)
        if job is not None:
            job.done(job)

    async def _replace(self, slot: Slot) -> None:
        for attempt in itertools.count():
            await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
            try:
                await slot.start()
            except LoadError as error:
                slot.discard()
                if self._closed:
                    return
                log.error("worker %d of the CPU pool: %s", slot.number, error)
                if not any(other.ready for other in self._slots):
                    self._refuse()
                continue
            if self._closed:
                slot.kill("closed")
                slot.discard()
            else:
                self._free.append(slot)
                self._dispatch()
            return

    def _refuse(self) -> None:
        """No worker is left: fail what waits, rather than let it run into its deadline."""
        waiting, self._jobs = self._jobs, deque()
        for job in waiting:
            job.error = Unavailable(f"op {job.node.name!r} {job.hook}: no worker of the CPU pool is alive")
            job.done(job)

    def close(self) -> None:
        self._closed = True

    async def wait_closed(self) -> None:
        for task in tuple(self._replacing):
            task.cancel()
        for slot in self._slots:
            slot.kill("closed")
            slot.discard()
        self.segments.close()
        retired = [slot.retired for slot in self._slots if slot.retired is not None]
        if retired:
            await asyncio.wait(retired, timeout=CLOSE_S)

    def statistics(self) -> LaneStatistics:
        alive = [slot for slot in self._slots if slot.ready]
        running = sum(slot.job is not None for slot in alive)
        return LaneStatistics(self.width, len(alive), running, len(self._jobs), self._replaced)


def make_recipe(node: Node) -> worker.Recipe:
    """How workers make this Op.

    :raises LoadError: its class cannot be imported there, or its arguments cannot be pickled.
    """
    cls = type(node.op)
    cure = "define it at the top level of a module, or set cpu = 'thread'"
    where = f"op {node.name!r}: its hooks run in the CPU pool, which cannot import {cls.__qualname__!r}"
    main = importlib.import_module(cls.__module__)
    if cls.__module__ == "__main__" and getattr(main, "__file__", None) is None:
        raise LoadError(f"{where} from an interactive session: {cure}")
    try:
        found: Any = reduce(getattr, cls.__qualname__.split("."), main)
    except AttributeError:
        raise LoadError(f"{where} from {cls.__module__!r}: {cure}") from None
    if found is not cls:
        raise LoadError(f"{where} from {cls.__module__!r}, where that name is something else: {cure}")
    args, kwargs = recipe(node.op)
    made = worker.Recipe(node.name, cls, args, kwargs, node.settings)
    try:
        pickle.dumps(made)
    except Exception as error:
        raise LoadError(
            f"op {node.name!r}: its arguments have to reach the CPU pool, but {public_message(error)}: "
            "pass plain values and build the rest in init_op, or set cpu = 'thread'"
        ) from error
    return made


def _ignore(future: Future[None]) -> None:
    if not future.cancelled():
        future.exception()


def _ids(job: Job | None) -> dict[str, Any]:
    return {} if job is None else {"data_id": job.item.data_id, "log_id": job.item.log_id}
