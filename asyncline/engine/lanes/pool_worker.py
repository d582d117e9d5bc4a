"""The server's side of one worker process: its start, the Jobs it has, its end."""

from __future__ import annotations

import asyncio
import enum
import multiprocessing
import os
import pickle
import signal
import socket
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

from asyncline.engine.alarm import Alarm
from asyncline.engine.lanes import worker
from asyncline.engine.lanes.base import Job
from asyncline.engine.lanes.crossing import Parcel, pack, unpack
from asyncline.engine.lanes.link import Link, Sockets
from asyncline.engine.lanes.segment import SegmentsFull
from asyncline.engine.lanes.steps import StepResult
from asyncline.errors import LoadError, OpError, public_message

if TYPE_CHECKING:
    from asyncline.engine.lanes.process import ProcessLane

GRACE_S = 1.0
"""How long past the deadline of its Item a hook may run before its worker is killed."""
START_S = 60.0
"""How long a worker may take to import the Ops' modules and run `init_op`."""


class State(enum.Enum):
    """BACKOFF → STARTING → READY ⇄ BUSY → RETIRING or KILLING → DEAD; any may become DEAD by itself."""

    BACKOFF = "backoff"
    """Waits for its turn to start."""
    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    RETIRING = "retiring"
    """Has a successor: ends what it has, and takes no more."""
    KILLING = "killing"
    DEAD = "dead"


class PoolWorker:
    """One worker process, from its start to its end; another takes its place.

    It has one Job at a time, or a few that are known to be short: while one runs the next is on its way, and
    neither side waits to be woken. The worker takes a permit for each as it begins, from an eventfd that both
    have; what has not begun can so be withdrawn, and given to another, at any time.
    """

    def __init__(self, number: int, lane: ProcessLane) -> None:
        self.number = number
        self.state = State.BACKOFF
        #: Jobs handed over, oldest first. None is one withdrawn, whose end the worker has not seen yet.
        self.jobs: deque[Job | None] = deque()
        #: Since when the oldest can run.
        self.since = 0.0
        #: Seconds that they are expected to take, each and together.
        self._costs: deque[float] = deque()
        self.load_s = 0.0
        #: Waits for memory of ours to be handed back.
        self.hungry = False
        #: Own memory past which it is replaced; set by the lane when it has started.
        self.retire_bytes = 0
        self.successor: PoolWorker | None = None
        self.ended: asyncio.Future[None] | None = None
        self.link: Link | None = None
        self._lane = lane
        self._owner = next(lane.numbers)
        self._permits = -1
        #: Jobs whose messages and permits wait for `flush`.
        self._unsent = 0
        self._spawning: asyncio.Future[ProcessPoolExecutor] | None = None
        self._starting: asyncio.Future[tuple[Any, ...]] | None = None
        self._progress: Any = None
        self.pid: int | None = None
        self._pidfd: int | None = None
        self._kill_alarm = Alarm(lane.loop, self._kill_if_hung)
        self._killed_because = ""

    @property
    def alive(self) -> bool:
        return self.state in (State.READY, State.BUSY, State.RETIRING)

    async def start(self) -> None:
        """Start the process.

        :raises LoadError: it died, took too long, or an Op could not be made in it.
        """
        lane = self._lane
        self.state = State.STARTING
        self._starting = lane.loop.create_future()
        try:
            self._permits = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            ours, theirs = Sockets.pair()
            for each in ours:
                each.setblocking(False)
            self.link = Link(ours, lane.segments)
            # In a thread: starting a process talks to the fork server and waits for it.
            self._spawning = lane.loop.run_in_executor(None, self._spawn, theirs)
            lane.loop.add_reader(ours.packets, self._readable)
            async with asyncio.timeout(START_S):
                # Never cancelled: `theirs` is its own, and what it has started `discard` ends.
                await asyncio.shield(self._spawning)
                failed, own_memory, progress = await self._starting
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
            if self._starting.done() and not self._starting.cancelled():
                self._starting.exception()  # asyncio would log one that nobody has asked for
            self._starting = None
        self._progress = unpack(progress, lane.segments, self.link)
        self.retire_bytes = own_memory + max(0, lane.memory_bytes - own_memory) // 2
        self.state = State.READY

    def _spawn(self, theirs: Sockets) -> ProcessPoolExecutor:
        with closing(theirs):
            executor = ProcessPoolExecutor(
                1, multiprocessing.get_context("forkserver"), initializer=worker.connect, initargs=(theirs,)
            )
            # Its end shows at the Link; the executor's own word for it is not needed.
            executor.submit(worker.serve, self._lane.setup(self._owner, self.number)).add_done_callback(_ignore)
            return executor

    # -- Jobs ---------------------------------------------------------------------------------------

    def put(self, job: Job, now: float, cost_s: float, parcel: Parcel | None) -> None:
        """Hand a Job over, with the next `flush`.

        :param parcel: its arguments, where they are packed.
        :raises SegmentsFull: there is no room for its arguments now; the Job has to wait.
        :raises ValueError: its arguments cannot cross; the Job has its error.
        """
        assert self.link is not None
        item = job.item
        try:
            packed, holds, nbytes = parcel or pack(job.args + job.extra, self._lane.segments)
        except SegmentsFull:
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {public_message(error)}"
            job.error = OpError(f"op {job.node.name!r} {job.hook}: its arguments cannot enter the CPU pool: {text}")
            raise ValueError(text) from None
        self.jobs.append(job)
        self._costs.append(cost_s)
        self.load_s += cost_s
        self._unsent += 1
        is_full = self.link.put(
            (
                worker.CALL, job.node.op.name, job.hook, len(job.steps), packed, item.data_id, item.log_id,
                None if item.engine.spans is None else job.outgoing, job.expires_at,
            ),
            holds,
            nbytes,
        )  # fmt: skip
        if is_full:
            self.flush()
        if self.state is State.READY:
            self.state = State.BUSY
            self.since = now
            self._kill_alarm.set(job.expires_at + GRACE_S, now)

    def flush(self) -> None:
        """Send what has been put. Where the worker is dead the reader finds that out, after its last answers."""
        if self.link is None:
            return
        if self._unsent:
            # First, so that the worker never finds a Call without its permit.
            os.eventfd_write(self._permits, self._unsent)
            self._unsent = 0
        try:
            self.link.flush()
        except (BrokenPipeError, ConnectionResetError):
            pass
        except OSError as error:
            self.kill(f"takes no messages ({os.strerror(error.errno or 0)})")

    def hand_back(self) -> bool:
        """Give the worker the holds that have been let go here, and have it do the same; False where there are none."""
        if self.link is None or not self.link.returns:
            return False
        self.hungry = False
        self.link.put((worker.RETURNS,))
        self.flush()
        return True

    def set_log_levels(self, levels: dict[str, int]) -> None:
        if self.link is not None:
            self.link.put((worker.LEVELS, levels))
            self.flush()

    def starve(self) -> None:
        """Tell a worker that waits for memory that there will be none."""
        if self.link is not None:
            self.hungry = False
            self.link.put((worker.NO_ROOM,))
            self.flush()

    def is_late(self, at: float) -> bool:
        """Whether the oldest Job should have ended by then."""
        return self.since + self._costs[0] < at

    def _kill_if_hung(self) -> None:
        job = self.jobs[0] if self.jobs else None
        if job is None:
            return
        now = self._lane.clock()
        if now >= job.expires_at + GRACE_S:
            self.kill("hung past the deadline")
        else:
            self._kill_alarm.set(job.expires_at + GRACE_S, now)

    def withdraw(self) -> list[Job]:
        """Take back the Jobs that have not begun, oldest first. The worker takes no more until it has seen that."""
        if self._permits < 0:
            return []
        if self._unsent:
            os.eventfd_write(self._permits, self._unsent)
            self._unsent = 0
        taken: list[Job] = []
        for place in range(len(self.jobs) - 1, -1, -1):
            job = self.jobs[place]
            if job is None:
                continue
            if not self._take_permit():
                break
            taken.append(job)
            self.jobs[place] = None
        taken.reverse()
        return taken

    def _take_permit(self) -> bool:
        try:
            os.eventfd_read(self._permits)
        except BlockingIOError:
            return False
        return True

    # -- messages -----------------------------------------------------------------------------------

    def _readable(self) -> None:
        """Read what is there; the lane hands out new Jobs afterwards, in one packet for all."""
        lane, link = self._lane, self.link
        assert link is not None
        lane.hold()
        try:
            while True:
                for message in link.receive():
                    if message[0] == worker.ANSWER:
                        self._answered(*message)
                    else:
                        self._received(message)
                if link.is_drained or self.link is None:
                    break
        except BlockingIOError:
            pass
        except EOFError:
            self._ended()
        finally:
            lane.release()

    def _received(self, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if kind == worker.WITHDRAWN:
            if not self.jobs or self.jobs[0] is not None:
                self.kill("lost count of its tasks")
                return
            self.jobs.popleft()
            self._next(self._lane.clock())
        elif kind == worker.USED:
            if message[1] > self.retire_bytes and self.state is not State.RETIRING:
                self._lane.crew.retire(self, message[1])
        elif kind == worker.HUNGRY:
            self.hungry = True
            self._lane.feed()
        elif kind == worker.HELLO:
            assert self.link is not None
            # By descriptor, so that a signal can never reach another process with a reused id.
            self.pid = message[1]
            self._pidfd = os.pidfd_open(message[1])
            try:
                socket.send_fds(self.link.sockets.descriptors, [b"f"], [self._permits, self._lane.records.descriptor])
            except OSError:
                pass  # it has died since: that comes next
        elif kind == worker.STARTED and self._starting is not None and not self._starting.done():
            self._starting.set_result(message[1:])

    def _answered(self, _: str, packed: Any, dumped: bytes | None, times: tuple[float, ...]) -> None:
        job = self.jobs[0]
        assert job is not None and self.link is not None
        self.hungry = False
        job.args = job.extra = ()
        segments, link = self._lane.segments, self.link
        job.started_at, job.ended_at, job.worker = times[0], times[1], self.number
        try:
            error = None if dumped is None else pickle.loads(dumped)
            if job.steps and packed is not None:
                values = [None if one is None else unpack(one, segments, link) for one in packed]
                results = [StepResult(one, None, *times[2 * n : 2 * n + 2]) for n, one in enumerate(values)]
                results[-1].error = error
                job.set_results(*results)
            else:
                job.error = error
                if packed is not None:
                    job.value = unpack(packed, segments, link)
        except Exception as failed:  # an object that pickles but does not unpickle
            text = f"{type(failed).__name__}: {public_message(failed)}"
            job.error = OpError(f"op {job.node.name!r} {job.hook}: its result cannot leave the CPU pool: {text}")
        self._lane.learn(job, times[-1] - times[0])
        self.jobs.popleft()
        self._next(times[-1])
        job.hand_back()

    def _next(self, now: float) -> None:
        """One Job fewer."""
        self.load_s -= self._costs.popleft()
        if self.jobs:
            job = self.jobs[0]
            if job is not None:  # it begins
                self.since = now
                self._kill_alarm.set(job.expires_at + GRACE_S, now)
            return
        self.load_s = 0.0  # what rounding has left
        if self.state is State.BUSY:
            self.state = State.READY
            self._lane.freed(self)
        elif self.state is State.RETIRING:
            self._lane.crew.retired(self)

    # -- end ----------------------------------------------------------------------------------------

    def kill(self, reason: str) -> None:
        if self._pidfd is not None:
            self._killed_because = reason
            if self.alive:
                self.state = State.KILLING
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended by itself

    def _ended(self) -> None:
        """The worker has closed its end: it is dead."""
        assert self.link is not None
        self._lane.loop.remove_reader(self.link.sockets.packets)
        if self._starting is not None:
            if not self._starting.done():
                self._starting.set_exception(EOFError())
            return
        self._lane.lost(self, self._killed_because)

    def jobs_left(self) -> tuple[list[Job], list[Job]]:
        """Of a dead worker: the Jobs that it had begun, the last one it died in, and those it had not."""
        waiting = self.withdraw()
        begun = [job for job in self.jobs if job is not None]
        self.jobs.clear()
        self._costs.clear()
        self.load_s = 0.0
        return begun, waiting

    def culprit(self, job: Job) -> tuple[str, str]:
        """The Op and the hook that a dead worker was running."""
        if not job.steps:
            return job.node.name, job.hook
        step = job.steps[min(int(self._progress[0]), len(job.steps) - 1)]
        return step.op, step.hook

    def discard(self) -> None:
        """Let go of the process, dead or alive, and of what it reads and wrote."""
        self.kill("discarded")  # it may hang, in `init_op` too
        self.state = State.DEAD
        self.hungry = False
        self._progress = None
        if self._starting is not None:
            self._starting.cancel()
        self._kill_alarm.cancel()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self.link is not None:
            self._lane.loop.remove_reader(self.link.sockets.packets)
            self.link.close()
            self.link = None
            self._lane.segments.forget_owner(self._owner)
        if self._permits >= 0:
            os.close(self._permits)
            self._permits = -1
        spawning, self._spawning = self._spawning, None
        if spawning is not None:
            self.ended = self._lane.loop.create_task(_end(spawning), name=f"asyncline worker {self.number} end")

    def __repr__(self) -> str:
        return f"<PoolWorker {self.number} {self.state.value}, {len(self.jobs)} jobs>"


async def _end(spawning: asyncio.Future[ProcessPoolExecutor]) -> None:
    """Let the executor go, once there is one; its worker ends when it finds the connection closed."""
    try:
        executor = await spawning
    except Exception:
        return  # there is none: `start` has said so
    # In a thread: it joins the executor's own, which ends with its worker.
    await asyncio.to_thread(executor.shutdown)


def _ignore(future: Future[None]) -> None:
    if not future.cancelled():
        future.exception()
