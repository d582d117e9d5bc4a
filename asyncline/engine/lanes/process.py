"""Lane of processes: the CPU pool.

Single-worker `ProcessPoolExecutor`s, so that a crash costs one request and names its culprit, and a hung
worker can be killed. Each worker runs one long task that answers Calls over a Link; a stock `submit` for
each Job would cost 120 µs of the server's time and pickle arrays.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import resource
from collections import deque
from typing import Any

from asyncline.deadline import Clock
from asyncline.engine.alarm import Alarm
from asyncline.engine.hooks import Hooks
from asyncline.engine.lanes import worker
from asyncline.engine.lanes.base import Job, Lane, LaneStatistics
from asyncline.engine.lanes.crew import Crew
from asyncline.engine.lanes.crossing import Parcel, pack
from asyncline.engine.lanes.pool_worker import PoolWorker, State
from asyncline.engine.lanes.recipe import Recipe, make_recipe
from asyncline.engine.lanes.segment import Key, Segments, SegmentsFull
from asyncline.engine.lanes.supervision import Breakers
from asyncline.engine.lanes.worker_log import RecordsSocket, levels
from asyncline.errors import Unavailable, WorkerCrashed
from asyncline.graph.plan import Node

log = logging.getLogger("asyncline.engine")

SHORT_S = 400e-6
"""Jobs that are expected to take no more together may lie at one worker."""
MOST_JOBS = 8
"""Most Jobs at one worker."""
OVERHEAD_S = 10e-6
"""What a Job costs a worker beside its hook."""
LATE_S = 2e-3
"""A Job that takes this much longer than was expected has the ones behind it withdrawn, for other workers. One that is
expected to take no more than this may lie behind another while enough wait for all workers: none is idle then until
the loop has seen that it is."""
FULL = 0.75
"""Part of the memory for results that may be in use when Items enter."""
STARVED_S = 0.1
"""How long all workers may wait for memory, while there is work for them, before one is told that there is none."""
FORGET = 0.1
"""How fast the expected time of a hook falls; it rises at once."""


class ProcessLane(Lane):
    """`width` worker processes and one queue of Jobs in front of them, oldest first.

    :param max_bytes: most bytes in shared memory, half of it for arguments, half for results.
    :param memory_bytes: most bytes of memory of its own that a worker may have. Past half of what it has to
        grow, from its start on, it is replaced when it suits.
    """

    fuses = True

    def __init__(
        self,
        width: int,
        nodes: list[Node],
        tasks: asyncio.TaskGroup,
        hooks: Hooks,
        clock: Clock,
        max_bytes: int,
        memory_bytes: int,
    ) -> None:
        self.width = width
        self.loop = asyncio.get_running_loop()
        self.numbers = itertools.count(1)
        self.segments = Segments(0, max_bytes // 2)
        self.segments.on_close = self._note_closed
        self.memory_bytes = memory_bytes
        self.clock = clock
        self._worker_bytes = max_bytes // 2 // width
        self._full_bytes = FULL * self._worker_bytes * width
        self._nodes = nodes
        self._recipes: tuple[Recipe, ...] = ()
        self._hooks = hooks
        self.crew = Crew(width, lambda place: PoolWorker(place, self), self.freed, self._refuse, tasks, clock)
        self._free = self.crew.free
        #: Jobs of Items that have been here, or in a model; and of those that enter the graph.
        self._jobs: deque[Job] = deque()
        self._entering: deque[Job] = deque()
        #: The next Job's arguments, where they lie ready.
        self._ahead: tuple[Job, Parcel] | None = None
        self._ahead_is_due = False
        self._starved_alarm = Alarm(self.loop, self._starve)
        self._held = 0
        self._unsent: set[PoolWorker] = set()
        self._flush_is_due = False
        self._late_timer: asyncio.TimerHandle | None = None
        #: Seconds that a hook is expected to take.
        self._costs: dict[tuple[int, str], float] = {}
        self._breakers = Breakers()

    @property
    def window(self) -> int:
        return (MOST_JOBS + 1) * self.width

    async def start(self) -> None:
        self._recipes = tuple(make_recipe(node) for node in self._nodes)
        #: What workers log.
        self.records = RecordsSocket()
        # Each segment that is in use has a descriptor here.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        await self.crew.start()

    def setup(self, owner: int, place: int) -> worker.Setup:
        """What a new worker is told."""
        chains = {(node.name, hook): chain.steps for node in self._nodes for hook, chain in node.chains.items()}
        return worker.Setup(
            owner, place, self._worker_bytes, self.memory_bytes, self._recipes, chains, self._log_levels()
        )

    def _log_levels(self) -> dict[str, int]:
        return levels(node.op for node in self._nodes)

    def note_log_levels(self) -> None:
        levels = self._log_levels()
        for each in self.crew:
            if each.alive:
                each.set_log_levels(levels)

    # -- Jobs ---------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        if self._breakers and (refusal := self._breakers.refusal(_ops(job), self.clock())) is not None:
            job.error = refusal
            self.loop.call_soon(job.done, job)
            return
        (self._entering if job.node.waits_for == 0 and job.hook == "preprocess" else self._jobs).append(job)
        if not self._held:
            self._dispatch()

    def hold(self) -> None:
        """Jobs that come in from here on wait for `release`."""
        self._held += 1

    def release(self) -> None:
        try:
            if self._held == 1:
                self._dispatch()
                self._flush()
        finally:
            self._held -= 1

    def _dispatch(self) -> None:
        now = self.clock()
        while (jobs := self._next_jobs()) is not None:
            job = jobs[0]
            cost_s = self._costs.get((job.node.index, job.hook), SHORT_S) + OVERHEAD_S
            idle = bool(self._free)
            at = self._free[0] if idle else self._with_room(cost_s, len(jobs))
            if at is None:
                if cost_s > SHORT_S and self._ahead is None and not self._ahead_is_due:
                    self._ahead_is_due = True
                    self.loop.call_soon(self._pack_ahead)
                return
            jobs.popleft()
            parcel = None
            if (ahead := self._ahead) is not None and ahead[0] is job:
                self._ahead, parcel = None, ahead[1]
            if job.item.done:
                self._hand_back(job)
                if parcel is not None:
                    self.segments.drop(parcel[1])
                continue
            try:
                at.put(job, now, cost_s, parcel)
            except SegmentsFull:
                jobs.appendleft(job)
                if self._drop_ahead():  # of a Job whose turn is later
                    continue
                # Wait for arguments of other Jobs to be handed back, as long as this Job lives.
                for each in self.crew:
                    each.hand_back()  # and so ask for theirs
                self._watch_memory()
                return
            except ValueError:  # it has its error
                self._hand_back(job)
                continue
            if idle:
                self._free.popleft()
            if idle and not self._held:
                at.flush()
                continue
            self._unsent.add(at)
            if not self._held and not self._flush_is_due:
                # It has something to do already: what comes within this turn goes in one packet.
                self._flush_is_due = True
                self.loop.call_soon(self._flush)

    def _pack_ahead(self) -> None:
        """Lay the arguments of the next Job in shared memory while all workers are busy: none waits for that then."""
        self._ahead_is_due = False
        jobs = self._next_jobs()
        if jobs is None or jobs[0].item.done or self._free or self._ahead is not None:
            return
        job = jobs[0]
        try:
            self._ahead = job, pack(job.args + job.extra, self.segments)
        except Exception:
            pass  # no room, or they cannot cross: `put` says so when the turn has come

    def _drop_ahead(self) -> bool:
        """Take back the memory of arguments that lie ready; False where there are none."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            self.segments.drop(ahead[1][1])
        return ahead is not None

    def _next_jobs(self) -> deque[Job] | None:
        """The queue whose first Job is next.

        Those of Items that are on their way go first: they let go of memory in the end, while Items that enter
        take some. So where results fill most of it none enters, unless nothing else is going on.
        """
        if self._jobs:
            return self._jobs
        if not self._entering:
            return None
        if self.segments.read_bytes > self._full_bytes and len(self._free) < len(self.crew.alive):
            self._watch_memory()
            return None
        return self._entering

    def _with_room(self, cost_s: float, waiting: int) -> PoolWorker | None:
        """The worker that will be free first, if what lies there and the Job are sure to be short.

        :param cost_s: seconds that the Job is expected to take.
        :param waiting: how many Jobs wait, this one among them.
        """
        if cost_s <= SHORT_S:
            most_s, most_jobs = SHORT_S, MOST_JOBS
        elif cost_s <= LATE_S and waiting > self.width:
            most_s, most_jobs = 2 * LATE_S, 2
        else:
            return None
        best: PoolWorker | None = None
        for each in self.crew.workers:
            if (
                each.load_s + cost_s <= (best.load_s if best is not None else most_s)
                and each.state is State.BUSY
                and len(each.jobs) < most_jobs
                and each.jobs[-1] is not None
            ):
                best = each
        if best is not None and self._late_timer is None:
            self._late_timer = self.loop.call_later(LATE_S, self._withdraw_late)
        return best

    def _hand_back(self, job: Job) -> None:
        """A Job was not run. Later: the one who handed it in may be at work on it."""
        self._breakers.gave_up(_ops(job))
        self.loop.call_soon(job.done, job)

    def _flush(self) -> None:
        self._flush_is_due = False
        while self._unsent:
            self._unsent.pop().flush()

    def _withdraw_late(self) -> None:
        """What lies behind a Job that takes much longer than was expected goes to others."""
        self._late_timer = None
        now = self.clock()
        waiting = False
        for each in self.crew:
            if len(each.jobs) > 1:
                waiting = True
                if each.is_late(now - LATE_S):
                    self._jobs.extendleft(reversed(each.withdraw()))
        if waiting:
            self._late_timer = self.loop.call_later(LATE_S, self._withdraw_late)
            self._dispatch()

    def learn(self, job: Job, seconds: float) -> None:
        """A Job took that long."""
        key = job.node.index, job.hook
        expected = self._costs.get(key)
        if expected is None or seconds > expected:
            self._costs[key] = seconds
        else:
            self._costs[key] = expected + FORGET * (seconds - expected)
        if self._breakers:
            ran: set[str] = set()
            if job.ended_at > job.started_at:  # else it came too late to be run
                ran = {job.node.name, *(step.op for step in job.steps[: 1 + len(job.rest)])}
            self._breakers.succeeded(ran)
            self._breakers.gave_up(op for op in _ops(job) if op not in ran)

    def freed(self, at: PoolWorker) -> None:
        """A worker has nothing to do."""
        self._free.append(at)
        if not self._held:
            self._dispatch()

    # -- memory -------------------------------------------------------------------------------------

    def feed(self) -> None:
        """Give workers that wait for memory the holds that have been let go here, and Jobs that wait a chance."""
        self.segments.on_drop = None
        self.segments.sweep()
        hungry = [each for each in self.crew if not each.hand_back() and each.hungry]
        if hungry:
            self._watch_memory()
            if len(hungry) == len(self.crew.alive) + len(self.crew.leaving):
                self._starved_alarm.set(self.clock() + STARVED_S, self.clock())
        if not self._held:
            self._dispatch()

    def _starve(self) -> None:
        """All workers wait for memory. Where what would let go of some waits for a worker, one of them gives up."""
        workers = [each for each in self.crew if each.alive]
        if workers and all(each.hungry for each in workers):
            if self._jobs:
                workers[0].starve()
            self._starved_alarm.set(self.clock() + STARVED_S, self.clock())

    def _watch_memory(self) -> None:
        """Call `feed` when a hold is let go, in whatever thread that happens."""
        if self.segments.on_drop is None:
            self.segments.on_drop = self._call_feed
            if self.segments.dropped:  # meanwhile, in another thread
                self._call_feed()

    def _call_feed(self) -> None:
        self.segments.on_drop = None
        try:
            self.loop.call_soon_threadsafe(self.feed)
        except RuntimeError:
            pass  # the loop is closed: nobody waits

    def _note_closed(self, key: Key) -> None:
        for each in self.crew:
            if each.link is not None:
                each.link.note_closed(key)

    # -- supervision --------------------------------------------------------------------------------

    def lost(self, at: PoolWorker, reason: str) -> None:
        """A worker is gone: killed for that reason, or by itself."""
        now = self.clock()
        begun, waiting = at.jobs_left()
        for job in reversed(waiting):
            self._jobs.appendleft(job)
        # All but the last have ended, and their answers are lost.
        culprit = begun[-1] if begun else None
        op, hook = at.culprit(culprit) if culprit is not None else ("", "")
        reason = reason or ("died" if begun else "died while idle")
        self._unsent.discard(at)
        self.crew.remove(at)
        for job in begun:
            where = (op, hook) if job is culprit else (job.node.name, job.hook)
            job.error = WorkerCrashed(f"op {where[0]!r} {where[1]}: the worker process {reason}")
            self._breakers.gave_up(name for name in _ops(job) if name != op)
        if culprit is not None:
            self._breakers[op].crashed(now)
        if not self.crew.is_closed:
            log.error(
                "worker %d of the CPU pool %s%s", at.number, reason, f" in op {op!r} {hook}" if op else "",
                extra=_ids(culprit),
            )  # fmt: skip
            if self._hooks.worker_lost:
                self._hooks.emit(self._hooks.worker_lost, op, hook, reason)
            self.crew.replace(at)
        for job in begun:
            job.hand_back()
        if waiting and not self._held:
            self._dispatch()

    def _refuse(self) -> None:
        """No worker is left: fail what waits, rather than let it run into its deadline."""
        self._drop_ahead()
        waiting = [*self._jobs, *self._entering]
        self._jobs.clear()
        self._entering.clear()
        for job in waiting:
            self._breakers.gave_up(_ops(job))
            job.error = Unavailable(f"op {job.node.name!r} {job.hook}: no worker of the CPU pool is alive")
            job.hand_back()

    def problem(self) -> str | None:
        if self._breakers and (op := self._breakers.refused(self.clock())) is not None:
            return f"refuses op {op!r}, which kills its workers again and again"
        return super().problem()

    def close(self) -> None:
        self.crew.is_closed = True
        self._starved_alarm.cancel()
        if self._late_timer is not None:
            self._late_timer.cancel()

    async def wait_closed(self) -> None:
        try:
            await self.crew.wait_closed()
        finally:
            self.segments.close()
        if hasattr(self, "records"):
            self.records.close()

    def statistics(self) -> LaneStatistics:
        crew, alive = self.crew, self.crew.alive
        running = sum(bool(each.jobs) for each in alive) + len(crew.leaving)
        waiting = len(self._jobs) + len(self._entering) + sum(max(0, len(each.jobs) - 1) for each in alive)
        pids = tuple(each.pid for each in alive if each.pid is not None)
        segments = self.segments
        shared = segments.used_bytes, segments.read_bytes, segments.max_bytes
        return LaneStatistics(self.width, len(alive), running, waiting, crew.lost_count, pids, *shared)


def _ops(job: Job) -> tuple[str, ...]:
    """The Ops whose hooks run in its task, in order."""
    return tuple(dict.fromkeys([step.op for step in job.steps])) or (job.node.name,)


def _ids(job: Job | None) -> dict[str, Any]:
    return {} if job is None else {"data_id": job.item.data_id, "log_id": job.item.log_id}
