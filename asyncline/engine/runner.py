"""Runner: one Op at work.

    Channel → preprocess → Batcher → process → postprocess → the consumers' Channels
              CPU lane               replica   CPU lane

The three hooks are pipelined: while a batch runs, the next Items are preprocessed, up to what the
replicas can take soon. Everything here runs on the loop, by calls and callbacks; nothing awaits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asyncline.engine.channel import Channel
from asyncline.engine.context import current
from asyncline.engine.item import Item
from asyncline.engine.lanes.base import Job, Lane, Replica
from asyncline.engine.lanes.loop import InlineLane
from asyncline.engine.processing import Processing
from asyncline.engine.visit import OpLimit, Visit
from asyncline.errors import RequestError, hook_error
from asyncline.graph.fusion import Chain
from asyncline.graph.op import HOOKS
from asyncline.graph.outcomes import OUTCOMES, Reply, Skip, settled
from asyncline.graph.plan import Node

if TYPE_CHECKING:
    from asyncline.engine.engine import Engine

ABSENT = sys.maxsize
"""In place of the slot of a stage that the Op has not: no list has it."""
BATCHES_AHEAD = 4
"""How many batches for each replica may lie preprocessed: enough to fill one bucket among several."""
JOBS_AHEAD = 8
"""How many Jobs beyond those that may run a lane is given that sees to that: a short one ends before the loop turns."""


class Runner:
    """One Op at work: takes Items from its Channel, hands results to the Engine."""

    def __init__(
        self, engine: Engine, node: Node, pre_lane: Lane | None, post_lane: Lane | None, replicas: list[Replica]
    ) -> None:
        self.engine = engine
        self.node = node
        self.channel = Channel(node.channel_size)
        self.replicas = replicas
        #: None where the Op has no `process`.
        self.processing = (
            Processing(engine, node, replicas, self._after_process, self._process_failed) if replicas else None
        )
        #: Whether the Engine is about to call `pump`.
        self.awake = False
        self._clock = engine.clock
        slots = engine.plan.stage_slots[node.index]
        self._wait_slot = slots["wait"]
        self._pre_slot = slots.get("pre", ABSENT)
        self._mid_slot = slots.get("mid", ABSENT)
        self._post_slot = slots.get("post", ABSENT)
        self._out_slot = slots.get("out", ABSENT)
        self._hooks = {hook: (node.index, hook) for hook in HOOKS}
        self._lanes = {"preprocess": pre_lane, "postprocess": post_lane}
        op = node.op
        self._pre: Callable[..., Any] | None = op.hook("preprocess")
        self._post: Callable[..., Any] | None = op.hook("postprocess")
        self._has_process = self.processing is not None
        #: Whether an Item counts as being prepared until `postprocess` is over: there is no replica to bound it.
        #: A stream takes as long as its reader; unless the Op says how many, only the door bounds them.
        self._counts_post = (
            not self._has_process
            and self._post is not None
            and (node.stream_hook is None or node.settings.concurrency is not None)
        )
        #: The whole Op is calls on the loop: no Visit and no Job is needed.
        self._is_inline = (
            not self._has_process
            and node.settings.timeout_ms is None
            and all(lane is None or isinstance(lane, InlineLane) for lane in self._lanes.values())
        )
        self._preparing = 0
        #: Items whose `preprocess` runs in the task of another Op's hook.
        self._coming = 0
        self._preparing_most = self._width(pre_lane, post_lane)
        self._ahead_most = BATCHES_AHEAD * node.settings.batch_size * len(replicas) if replicas else sys.maxsize

    def _width(self, pre_lane: Lane | None, post_lane: Lane | None) -> int:
        lane = pre_lane or post_lane
        settings = self.node.settings
        if not self._has_process and settings.concurrency is not None:
            # Its `timeout_ms` begins here, and must not pass while it waits in the lane.
            is_one_job = lane is not None and lane.bounds and post_lane in (None, lane)
            return settings.concurrency + (JOBS_AHEAD if is_one_job and settings.timeout_ms is None else 0)
        if self.node.stream_hook == "preprocess":
            return sys.maxsize
        return 1 if pre_lane is None else pre_lane.window

    def put(self, item: Item, now: float) -> None:
        """All inputs of `item` are there."""
        # Below zero while it waits: the time of arrival, to which that of leaving is added.
        item.times[self._wait_slot] = -now
        self.channel.put(item)
        self.engine.wake(self)

    def pump(self) -> None:
        """Start what can be started."""
        self._take()
        self.awake = False  # from here on: what `_take` has prepared by itself is seen right below
        # Batches that left, and dead samples that were dropped, make room for Items of the Channel.
        while self.processing is not None and self.processing.feed() and self.channel:
            self._take()

    def _take(self) -> None:
        """Begin with Items of the Channel, as far as there is room."""
        while self.channel and self._has_room():
            item = self.channel.popleft()
            if item.done:
                continue
            now = self._clock()
            if now >= item.expires_at:
                item.expire()
                continue
            if self._is_inline:
                item.times[self._wait_slot] += now
                self._run_inline(item, now)
            else:
                self._begin(item, now)

    def _has_room(self) -> bool:
        prepared = 0 if self.processing is None else self.processing.batcher.count
        return self._preparing < self._preparing_most and self._preparing + prepared < self._ahead_most

    def _has_room_for_coming(self) -> bool:
        """Whether the replicas can take soon what another task would prepare now."""
        prepared = 0 if self.processing is None else self.processing.batcher.count
        return self._coming + len(self.channel) + self._preparing + prepared < self._ahead_most

    def _run_inline(self, item: Item, now: float) -> None:
        values = item.values
        args = [values[slot] for slot in self.node.input_slots]
        current.set(item)
        hook = "preprocess"
        try:
            if self._pre is not None:
                value = self._pre(*args)
                if type(value) in OUTCOMES:
                    if type(value) is Reply:
                        item.reply(value.value)
                        return
                    value = settled(value)
                ended = self._clock()
                item.times[self._pre_slot] = ended - now
            else:
                value, ended = args[0] if len(args) == 1 else tuple(args), now
            if self._post is not None:
                hook, now = "postprocess", ended
                value = self._post(value, *args)
                ended = self._clock()
                item.times[self._post_slot] = ended - now
                if type(value) is Reply:
                    item.reply(value.value)
                    return
        except BaseException as error:  # a SystemExit of a hook must not end the server
            self._fail(item, hook_error(error, self.node.name, hook))
            return
        self._deliver(item, value, ended)

    def _begin(self, item: Item, now: float) -> None:
        ran = item.ahead and item.ahead.get(self._hooks["preprocess"])
        # Where `preprocess` ran in another's task, the wait ended when it began.
        begins_at = ran.started_at if ran else now
        item.times[self._wait_slot] += begins_at
        expires_at, limit = item.expires_at, None
        if self.node.settings.timeout_ms is not None:
            expires_at = min(expires_at, now + self.node.settings.timeout_ms / 1e3)
            limit = OpLimit(item, self.node.name, self.node.settings.timeout_ms)
            limit.tick = self.engine.expiry.add(expires_at, limit)
        values = item.values
        visit = Visit(item, tuple([values[slot] for slot in self.node.input_slots]), expires_at, limit)
        if self._pre is None:
            self._preparing += self._counts_post
            args = visit.args
            self._prepared(visit, args[0] if len(args) == 1 else args, now)
            return
        self._preparing += 1
        self._call("preprocess", visit, visit.args, begins_at, self._after_preprocess)

    def _call(
        self, hook: str, visit: Visit, args: tuple[Any, ...], ready_at: float, done: Callable[[Job], None]
    ) -> None:
        """Run a hook in its lane; `done` is called in any case, perhaps at once."""
        lane = self._lanes[hook]
        assert lane is not None
        item = visit.item
        job = Job(lane, self.node, hook, visit, args, done)
        job.ready_at = ready_at
        item.jobs.append(job)
        if item.ahead and (result := item.ahead.pop(self._hooks[hook], None)) is not None:
            job.set_results(result)
            done(job)
            return
        if lane.fuses and (chain := self.node.chains.get(hook)) is not None:
            self._fuse(job, chain)
        lane.submit(job)

    def _fuse(self, job: Job, chain: Chain) -> None:
        """Let the task of `job` run the hooks that follow it, but prepare no more samples than replicas can take."""
        steps = chain.steps
        if chain.feeds is not None:
            fed = self.engine.runners[chain.feeds]
            if not fed._has_room_for_coming():
                steps = steps[:-1]
            else:
                fed._coming += 1
        if len(steps) > 1:
            job.steps = steps
            if chain.extra_slots:
                values = job.item.values
                job.extra = tuple([values[slot] for slot in chain.extra_slots])

    def _unfuse(self, job: Job) -> None:
        """The task of a fused Job is over: put aside what came of the hooks that followed it."""
        chain, item = self.node.chains[job.hook], job.item
        if chain.feeds is not None and len(job.steps) == len(chain.steps):
            self.engine.runners[chain.feeds]._coming -= 1
        if job.rest and not item.done:
            ahead = dict(zip(chain.later, job.rest, strict=False))
            item.ahead = {**item.ahead, **ahead} if item.ahead else ahead

    def _over(self, job: Job, slot: int) -> bool:
        """Note a Job's time; True if its Item goes on."""
        item = job.item
        item.jobs.remove(job)
        if job.steps:
            self._unfuse(job)
        hooks = self.engine.hooks
        if hooks.job_done:
            hooks.emit(hooks.job_done, job)
        if item.done:
            return False
        if job.ended_at:  # else it never got into its lane
            item.times[self._wait_slot] += job.started_at - job.ready_at
            item.times[slot] += job.ended_at - job.started_at
        if job.error is not None:
            self._fail(item, job.error)
        elif type(job.value) is Reply:
            item.reply(job.value.value)
        elif job.ended_at >= job.expires_at:
            job.visit.expire()
        else:
            return True
        return False

    def _after_preprocess(self, job: Job) -> None:
        goes_on = self._over(job, self._pre_slot)
        if not (goes_on and self._counts_post):
            self._preparing -= 1
        if goes_on:
            self._prepared(job.visit, job.value, job.ended_at)
        self.engine.wake(self)
        self.engine.turn()

    def _prepared(self, visit: Visit, value: Any, now: float) -> None:
        if self.processing is not None and type(value) is not Skip:
            self.processing.put(visit, value, now)
            if not self.awake:
                self.engine.wake(self)
            return
        self._processed(visit, settled(value), now)

    def _after_process(self, visit: Visit, result: Any, now: float) -> None:
        item = visit.item
        if visit.started_at:
            item.times[self._wait_slot] += visit.started_at - visit.ready_at
            item.times[self._mid_slot] = now - visit.started_at
        self._processed(visit, result, now)

    def _process_failed(self, visit: Visit, error: RequestError, now: float) -> None:
        if visit.started_at:
            visit.item.times[self._wait_slot] += visit.started_at - visit.ready_at
            visit.item.times[self._mid_slot] = now - visit.started_at
        self._fail(visit.item, error)

    def _processed(self, visit: Visit, result: Any, now: float) -> None:
        if self._post is None:
            self._leave(visit, result, now)
        else:
            self._call("postprocess", visit, (result, *visit.args), now, self._after_postprocess)

    def _after_postprocess(self, job: Job) -> None:
        if self._counts_post:
            self._preparing -= 1
            self.engine.wake(self)
        if self._over(job, self._post_slot):
            self._leave(job.visit, job.value, job.ended_at)
        self.engine.turn()

    def _leave(self, visit: Visit, value: Any, now: float) -> None:
        if visit.limit is not None:
            visit.limit.tick.discard(visit.limit)
        item = visit.item
        # Where there is something ahead it has run already, right behind this.
        if not item.ahead and self._out_slot is not ABSENT:
            handed_on_at = self._clock()
            item.times[self._out_slot] = handed_on_at - now
            now = handed_on_at
        self._deliver(item, value, now)

    def _deliver(self, item: Item, value: Any, now: float) -> None:
        if now >= item.expires_at:
            item.expire()
            return
        if self.engine.hooks.op_done:
            self.engine.hooks.emit(self.engine.hooks.op_done, self.node, item)
        self.engine.deliver(item, self.node, value, now)

    def _fail(self, item: Item, error: RequestError) -> None:
        if self.engine.hooks.op_failed:
            self.engine.hooks.emit(self.engine.hooks.op_failed, self.node, item, error)
        item.fail(error)

    def close(self) -> None:
        if self.processing is not None:
            self.processing.close()

    def __repr__(self) -> str:
        return f"<Runner {self.node.name!r} {self.channel!r} {self.processing!r}>"
