"""Engine: a Graph that is running."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from asyncline.deadline import Clock, expires_at
from asyncline.engine.admission import MEMORY_BYTES, Admission
from asyncline.engine.channel import ChannelStatistics
from asyncline.engine.context import current
from asyncline.engine.expiry import Expiry
from asyncline.engine.guard import BLOCKED_S, LoopGuard
from asyncline.engine.hooks import Hooks, Observer
from asyncline.engine.item import PENDING, STARTED_AT, TOTAL, Item
from asyncline.engine.jumping import add_earlier_times
from asyncline.engine.lanes.accelerator import DeviceLost
from asyncline.engine.lanes.base import LaneStatistics
from asyncline.engine.lanes.lanes import Lanes
from asyncline.engine.parts import OnPart, Parts
from asyncline.engine.runner import Runner
from asyncline.engine.spans import Spans
from asyncline.engine.stream import stream
from asyncline.engine.times import Times
from asyncline.engine.works import Works
from asyncline.errors import OpError, RequestError, Unavailable, hook_error
from asyncline.graph.graph import Graph
from asyncline.graph.plan import Node, Plan, Target, plan
from asyncline.settings import Settings, merge

log = logging.getLogger("asyncline.engine")

MOST_CHARACTERS = 1024
"""Longest log_id: it goes along wherever the request goes."""


@dataclass(frozen=True)
class EngineStatistics:
    state: str
    in_flight: int
    max_in_flight: int
    nbytes: int
    """Request bytes that transports have reserved."""
    channels: dict[str, ChannelStatistics]
    """By the name of the Op."""
    lanes: dict[str, LaneStatistics]


class Engine:
    """A running Graph: `async with Engine(graph) as engine: await engine.submit({...}, timeout=2)`.

    :param settings: what `asyncline.settings.merge` made of all sources; the code's alone by default.
    :param observers: see the Engine work; see `Observer`.
    :param lanes: makes the lanes; tests pass simulated ones.
    :param clock: seconds, monotonic, of the same epoch as the loop's `call_at`.
    :param blocked_s: after how many seconds a blocked loop is reported; None: never.
    """

    # Every request reads most of these: so they lie together, on few lines of the core's caches.
    __slots__ = (
        "_awake",
        "_blocked_s",
        "_empty",
        "_fields",
        "_guard",
        "_items",
        "_lists",
        "_live_task",
        "_missing",
        "_no_values",
        "_notes_all",
        "_output_count",
        "_pack",
        "_stop",
        "_streams",
        "_tasks",
        "_timeout_s",
        "_times",
        "_turning",
        "_unpack",
        "admission",
        "clock",
        "expiry",
        "graph",
        "hand_over",
        "has_priorities",
        "hooks",
        "ids",
        "jumped",
        "loop",
        "plan",
        "runners",
        "spans",
        "state",
        "works",
    )

    def __init__(
        self,
        graph: Graph,
        settings: Settings | None = None,
        *,
        observers: Iterable[Observer] = (),
        lanes: Lanes | None = None,
        clock: Clock = time.monotonic,
        blocked_s: float | None = BLOCKED_S,
    ) -> None:
        if settings is None:
            settings = merge(graph.name, {op.name: op.code_settings for op in graph.ops})
        self.plan: Plan = plan(graph, settings)
        self.graph = graph
        self.clock = clock
        self.hooks = Hooks()
        #: Where there are some, calls on behalf of requests carry their trace contexts.
        self.spans: Spans | None = None
        for observer in observers:
            self.hooks.add(observer)
        #: new, starting, ready, draining, closed.
        self.state = "new"
        max_bytes = settings.service.max_in_flight_mb * 10**6 or MEMORY_BYTES // 4
        self.admission = Admission(self.plan.max_in_flight, max_bytes, clock)
        self.works = Works(self, lanes or Lanes())
        self.runners = self.works.runners
        self._awake: deque[Runner] = deque()
        self._turning = False
        self._items: dict[int, Item] = {}
        #: By data_id of Items that have jumped: the times of Ops that run again.
        self.jumped: dict[int, list[float]] = {}
        self.has_priorities = settings.service.priorities > 1
        self._timeout_s = settings.service.timeout_ms / 1e3
        self._unpack = graph.request.unpack
        self._pack = graph.response.pack
        self._fields = tuple(graph.request.fields)
        nodes = self.plan.nodes
        self._no_values: list[Any] = [PENDING] * (nodes[-1].slot + 1)
        self._times = Times(self, len(self.plan.time_slots) + 3)
        #: Makes data_ids for answers to what becomes no Item.
        self.ids = self._times.ids
        #: Let observers have the times of all Items that have ended.
        self.hand_over = self._times.hand_over
        self._lists = self._times.lists
        self._notes_all = self.plan.streams or graph.takes_rows
        self._missing = [node.waits_for for node in nodes]
        self._streams = self.plan.streams
        self._output_count = sum(node.output for node in nodes)
        self._stop = asyncio.Event()
        self._empty: asyncio.Future[None] | None = None
        self._live_task: asyncio.Task[None] | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._blocked_s = blocked_s
        self._guard: LoopGuard | None = None

    # -- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start lanes and load models.

        :raises LoadError: an Op cannot be made ready; nothing is left running.
        """
        self.loop = asyncio.get_running_loop()
        self.expiry = Expiry(self.loop)
        self.state = "starting"
        started: asyncio.Future[None] = self.loop.create_future()
        self._live_task = self.loop.create_task(self._live(started), name=f"asyncline engine {self.graph.name}")
        try:
            await started
        except BaseException:
            if started.cancelled():  # the caller gave up; where loading failed, it is cleaning up by itself
                self._live_task.cancel()
            await asyncio.wait([self._live_task])
            raise

    async def _live(self, started: asyncio.Future[None]) -> None:
        """The root of everything that runs for this Engine, from start to close."""
        try:
            async with asyncio.TaskGroup() as tasks:
                try:
                    self._tasks = tasks
                    await self.works.load(tasks)
                    if self._blocked_s is not None:
                        self._guard = LoopGuard(self.plan, self.hooks, blocked_s=self._blocked_s)
                        self._guard.start()
                    self.state = "ready"
                    started.set_result(None)
                    await self._stop.wait()
                except Exception as error:
                    if started.done():
                        raise
                    started.set_exception(error)
                finally:
                    await self._close_all()
        finally:
            self.state = "closed"

    async def wait_closed(self) -> None:
        """Wait until the Engine has ended.

        :raises ExceptionGroup: it ended by a defect of its own.
        """
        if self._live_task is not None:
            await asyncio.shield(self._live_task)

    async def close(self, drain_s: float = 0.0) -> bool:
        """Refuse new requests, let those in flight finish for up to `drain_s` seconds, end everything.

        Returns whether all that was in flight has finished.
        """
        if self._live_task is None:
            return True
        drained = await self.drain(drain_s)
        self._stop.set()
        await asyncio.wait([self._live_task])
        return drained

    async def drain(self, drain_s: float) -> bool:
        """Refuse new requests and wait up to `drain_s` seconds for those in flight; fail the rest."""
        if self.state == "ready":
            self.state = "draining"
        if self._items:
            self._empty = self.loop.create_future()
            await asyncio.wait([self._empty], timeout=drain_s)
        drained = not self._items
        for item in tuple(self._items.values()):
            item.fail(Unavailable("the server is stopping"))
        return drained

    async def _close_all(self) -> None:
        for item in tuple(self._items.values()):
            item.fail(Unavailable("the server is stopping"))
        if self._guard is not None:
            self._guard.close()
        await self.works.close()
        self.expiry.close()

    async def __aenter__(self) -> Engine:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close(drain_s=0.0 if error else self.plan.settings.service.drain_s)

    def problem(self) -> str | None:
        """Why this Engine is not ready to serve; None when it is."""
        if self.state != "ready":
            return self.state
        return self.works.problem()

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            state=self.state,
            in_flight=self.admission.in_flight,
            max_in_flight=self.admission.max_in_flight,
            nbytes=self.admission.nbytes,
            channels={runner.node.name: runner.channel.statistics() for runner in self.runners},
            lanes={name: lane.statistics() for name, lane in self.works.lanes.items()},
        )

    # -- requests -----------------------------------------------------------------------------------

    async def submit(self, payload: Any, *, timeout: float | None = None, log_id: str = "") -> Any:  # noqa: ASYNC109  # a deadline of the Item, not of this coroutine
        """Run one request through the graph and return its answer.

        :param payload: the fields by name, or the whole payload of a bare Request.
        :param timeout: seconds; the server's `timeout_ms` holds where it is shorter.
        :raises RequestError: what became of it instead.
        """
        item = self.begin(payload, timeout_s=timeout, log_id=log_id)
        await item.wait()
        try:
            return item.result()
        finally:
            del item, payload  # an error knows this frame: see `Item.result`

    def stream(self, payload: Any, *, timeout: float | None = None, log_id: str = "") -> AsyncGenerator[Any, None]:
        """Run one request, and iterate over the parts of its answer as they come; one part where it does not stream.

        `async for token in engine.stream({...}): ...`. At most 8 parts are made ahead of the reader. Leaving the loop
        cancels the request and closes the Op's generator; to be sure when, use `contextlib.aclosing`.

        :param timeout: seconds for all of it; see `submit`.
        :raises RequestError: what became of it instead, perhaps after some parts.
        """
        return stream(self, payload, timeout, log_id)

    def begin(
        self,
        payload: Any,
        *,
        timeout_s: float | None = None,
        log_id: str = "",
        traceparent: str | None = None,
        priority: int = 1,
        wire: str = "",
        on_done: Callable[[Item], None] | None = None,
        on_part: OnPart | None = None,
    ) -> Item:
        """Start one request; `on_done(item)` is called with its outcome, perhaps before this returns.

        With `on_part` the answer goes in parts: `on_part(item, part)` is called with each, packed by the Response, on
        the loop and in order, then `on_done` when all are out or the request has failed; `item.value` is their number.
        The answer of a graph that does not stream, and that of a Reply, is one part. An `on_part` that has no room left
        calls `item.hold()`, and later `item.go_on()`; what it raises fails the request. Without `on_part`, the answer
        of a graph that streams is the list of its parts, up to `MOST_PARTS`.

        :param priority: 1 is the highest; `service.priorities` the lowest.
        :param wire: what it came by, for the log.
        :raises RequestError: it was refused at the door, so there is no Item: Overloaded or Unavailable.
        """
        now = self.clock()
        if timeout_s is not None and not timeout_s > 0:
            raise ValueError(f"a timeout of {timeout_s} s: expected more than 0")
        is_notable = self._notes_all
        if log_id or traceparent:
            if len(log_id) > MOST_CHARACTERS or len(traceparent or "") > MOST_CHARACTERS:
                raise ValueError(f"a log_id or traceparent of more than {MOST_CHARACTERS} characters")
            is_notable = True
        deadline = expires_at(now, self._timeout_s, timeout_s)
        try:
            if self.state != "ready":
                raise Unavailable(f"the server is {self.state}")
            self.admission.enter()
        except RequestError as error:
            self.note_rejected(error)
            raise
        times = next(self._lists)
        times[STARTED_AT] = now
        item = Item(self, times, log_id, traceparent, now, deadline)
        item.on_done = on_done
        if on_part is not None or self._streams:
            item.parts = Parts(on_part)
        item.priority = priority
        item.wire = wire
        item.is_notable = is_notable
        self._items[item.data_id] = item
        item.tick = self.expiry.add(item.expires_at, item)
        item.missing = self._missing.copy()
        item.outputs_left = self._output_count
        item.values = self._no_values.copy()
        try:
            values = self._unpack(payload)
            if self._fields:
                for slot, name in enumerate(self._fields):
                    item.values[slot] = values[name]
            else:
                item.values[0] = values
        except Exception as error:
            # A subclass's `unpack` is user code like any hook; the field's own errors name the field.
            item.fail(error if isinstance(error, RequestError) else hook_error(error, "request", "unpack"))
            return item
        for index in self.plan.entry:
            self.runners[index].put(item, now)
        self.turn()
        return item

    def fault(self, reason: str) -> None:
        """A device has failed for good: fail what is in flight, and end with an error."""
        if self.state not in ("closed", "failed"):
            log.critical("the device has failed: %s", reason)
            self.state = "failed"
            for item in tuple(self._items.values()):
                item.fail(OpError(reason))
            if self._tasks is not None:
                self._tasks.create_task(_end(reason), name="asyncline end")

    def contexts(self) -> dict[int, str | None]:
        """The trace contexts that requests in flight came with, by data_id."""
        return {data_id: item.traceparent for data_id, item in self._items.items()}

    def note_log_levels(self) -> None:
        """Levels of loggers have changed: let the processes of the CPU pool know."""
        for lane in self.works.lanes.values():
            lane.note_log_levels()

    def reserve(self, nbytes: int, held: int = 0) -> None:
        """Take bytes of a request from the budget, as `Admission.reserve`.

        :raises Overloaded: too little is left; observers know.
        """
        try:
            self.admission.reserve(nbytes, held)
        except RequestError as error:
            self.note_rejected(error)
            raise

    def note_rejected(self, error: RequestError) -> None:
        """Let observers know of a request that was refused before there was an Item; once, whoever says so."""
        if self.hooks.rejected and not error.was_noted:
            error.was_noted = True
            self.hooks.emit(self.hooks.rejected, str(error.code))

    # -- for Runners and Items ------------------------------------------------------------------------

    def wake(self, runner: Runner) -> None:
        """Let `runner` pump in this turn, or the next."""
        if not runner.awake:
            runner.awake = True
            self._awake.append(runner)

    def turn(self) -> None:
        """Pump every Runner that has something to do, in order, without recursion."""
        if self._turning:
            return
        self._turning = True
        try:
            while self._awake:
                self._awake.popleft().pump()
        finally:
            self._turning = False
            current.set(None)  # the caller's context is its own again

    def deliver(self, item: Item, node: Node | Target, value: Any, now: float) -> None:
        """`node` has its result for `item`: hand it to the Ops that take it, and out."""
        item.values[node.slot] = value
        if node.output:
            item.outputs_left -= 1
            if not item.outputs_left:
                if self._streams:
                    item.end()
                    return
                values = item.values
                try:
                    answer = self._pack({name: values[slot] for name, slot in self.plan.outputs})
                except Exception as error:
                    item.fail(hook_error(error, "response", "pack"))
                    return
                item.resolve(answer)
                return
        for index in node.consumers:
            item.missing[index] -= 1
            if not item.missing[index]:
                self.runners[index].put(item, now)

    def deliver_part(self, item: Item, node: Node, part: Any) -> None:
        """`node`, which is the one output, has a part of the answer."""
        try:
            packed = self._pack({name: part for name, _ in self.plan.outputs})
        except Exception as error:
            item.fail(hook_error(error, "response", "pack"))
            return
        item.put(packed)

    def finished(self, item: Item) -> None:
        """An Item has its outcome: the only place that gives its token back."""
        now = self.clock()
        item.times[TOTAL] = now - item.started_at
        if item.is_notable:
            self._note(item, now)
        del self._items[item.data_id]
        item.tick.discard(item)
        self.admission.leave()
        if self.hooks.item_done:
            self.hooks.emit(self.hooks.item_done, item)
        if self._empty is not None and not self._items and not self._empty.done():
            self._empty.set_result(None)

    def _note(self, item: Item, now: float) -> None:
        """See to what most Items have not: their times are not what they seem, or there is more to tell."""
        times = item.times
        if item.outputs_left:
            # It failed or was answered early, perhaps while it waited in a Channel.
            times[:] = [seconds if seconds >= 0 else now + seconds for seconds in times]
        if self.jumped:
            add_earlier_times(times, self.jumped.pop(item.data_id, None))
        self._times.note(item)

    def whereabouts(self, item: Item) -> str:
        """Where an Item is, for the message of its deadline: ` in op 'a', 'b'`."""
        at = [
            runner.node.name
            for runner in self.runners
            if item.values and not item.missing[runner.node.index] and item.values[runner.node.slot] is PENDING
        ]
        return f" in op {', '.join(map(repr, at))}" if at else ""

    def __repr__(self) -> str:
        return f"<Engine {self.graph.name!r} {self.state}, {self.admission.in_flight} in flight>"


async def _end(reason: str) -> None:
    """Ends the TaskGroup that it runs in, and so the Engine."""
    raise DeviceLost(reason)
