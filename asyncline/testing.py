"""Time that jumps and lanes that only pretend: test a graph's timing, order and faults in milliseconds.

    async def main() -> None:
        lanes = SimulatedLanes(lambda op, hook, size: 0.010 + 0.001 * size)
        async with virtual_engine(graph, lanes) as engine:
            await asyncio.gather(*(engine.submit(n) for n in range(32)))
            assert lanes.batches["detect"] == [8, 8, 8, 8]

    run_virtual(main())

Hooks really run; only how long they take is made up, and no real time passes.
An Op that streams is read by `[part async for part in engine.stream(payload)]`; how long it takes is what it awaits.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from asyncline.deadline import Clock
from asyncline.engine.context import current
from asyncline.engine.engine import Engine
from asyncline.engine.hooks import Hooks, Observer
from asyncline.engine.lanes.base import Batch, Job, Lane, LaneStatistics, Replica
from asyncline.engine.lanes.call import arguments, fail, take_results
from asyncline.engine.lanes.lanes import Lanes
from asyncline.engine.lanes.loop import InlineLane, LoopLane, LoopReplica
from asyncline.engine.lanes.steps import StepResult, run_here
from asyncline.errors import WorkerCrashed, hook_error, load_error
from asyncline.graph.graph import Graph
from asyncline.graph.op import is_async
from asyncline.graph.plan import Node, Plan
from asyncline.settings import Settings

T = TypeVar("T")

Seconds = Callable[[str, str, int], float]
"""How long a hook takes: from the Op's name, the hook's and the number of samples to virtual seconds."""


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of sleeping until the next timer, moves the clock there."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        # With no timer there is nowhere to jump: somebody else, a thread or a peer, has to wake the loop.
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers are due at once, in order: its clock jumps to the next one when all is idle."""

    def __init__(self) -> None:
        self._selector_with_clock = _JumpingSelector()
        super().__init__(self._selector_with_clock)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._selector_with_clock.now


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on a `VirtualClockLoop`; an hour of timers takes no time.

    An exception that nobody caught, in a callback or a forgotten task, is raised at the end.
    """
    lost: list[BaseException] = []
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: lost.append(_exception(context)))
        result = runner.run(main)
    if lost:
        raise lost[0]
    return result


def _exception(context: dict[str, Any]) -> BaseException:
    found: BaseException = context.get("exception") or RuntimeError(context["message"])
    return found


def virtual_engine(
    graph: Graph, lanes: Lanes | None = None, settings: Settings | None = None, observers: Iterable[Observer] = ()
) -> Engine:
    """An Engine on the virtual clock of the running loop, with simulated lanes."""
    return Engine(
        graph,
        settings,
        observers=observers,
        lanes=lanes or SimulatedLanes(),
        clock=asyncio.get_running_loop().time,
        blocked_s=None,
    )


class SimulatedLanes(Lanes):
    """Lanes whose workers and devices take as long as `seconds` says, by the loop's clock.

    :param width: workers of the process lane and of the thread lane.
    """

    def __init__(self, seconds: Seconds = lambda op, hook, size: 0.0, width: int = 2) -> None:
        self._seconds = seconds
        self._width = width
        #: Every hook that ran, in order of its end: (op, hook, data_id).
        self.ran: list[tuple[str, str, int]] = []
        #: The sizes of the batches that each Op ran, in order of their start.
        self.batches: dict[str, list[int]] = defaultdict(list)

    def make(self, plan: Plan, tasks: asyncio.TaskGroup, hooks: Hooks, clock: Clock) -> dict[str, Lane]:
        return {
            "process": SimulatedLane(self, self._width, clock),
            "thread": SimulatedLane(self, self._width, clock),
            "loop": LoopLane(tasks, clock),
            "inline": InlineLane(clock),
        }

    def replicas(self, node: Node, tasks: asyncio.TaskGroup, clock: Clock) -> Sequence[Replica]:
        process = node.op.hook("process")
        if process is None:
            return []
        count = range(node.settings.replicas)
        if is_async(process):
            return [LoopReplica(node, index, "simulated", tasks, clock) for index in count]
        return [SimulatedReplica(self, node, index, clock) for index in count]

    def seconds(self, op: str, hook: str, size: int) -> float:
        return self._seconds(op, hook, size)


class SimulatedLane(Lane):
    """`width` workers that run one Job at a time; the hook itself runs at the end of its time."""

    fuses = True

    def __init__(self, lanes: SimulatedLanes, width: int, clock: Clock) -> None:
        self.width = width
        self._lanes = lanes
        self._clock = clock
        self._waiting: deque[Job] = deque()
        self._running: dict[Job, asyncio.TimerHandle] = {}
        self._idle = list(range(width))

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()

    def submit(self, job: Job) -> None:
        self._waiting.append(job)
        self._dispatch()

    def crash(self) -> None:
        """Kill every running worker: its Job fails, and a new worker takes the next."""
        for job, timer in tuple(self._running.items()):
            timer.cancel()
            job.error = WorkerCrashed(f"op {job.node.name!r} {job.hook}: the worker process died")
            job.ended_at = self._clock()
            self._hand_back(job)

    def _dispatch(self) -> None:
        while self._waiting and len(self._running) < self.width:
            job = self._waiting.popleft()
            job.started_at = job.ended_at = self._clock()
            if job.item.done:
                self._loop.call_soon(job.done, job)
                continue
            job.worker = self._idle.pop()
            if job.steps:
                self._begin_step(job, run_here(job, self._clock), [])
                continue
            seconds = self._lanes.seconds(job.node.name, job.hook, 1)
            self._running[job] = self._loop.call_later(seconds, self._run, job)

    def _begin_step(self, job: Job, steps: Iterator[StepResult], results: list[StepResult]) -> None:
        step = job.steps[len(results)]
        seconds = self._lanes.seconds(step.op, step.hook, 1)
        self._running[job] = self._loop.call_later(seconds, self._end_step, job, steps, results, self._clock())

    def _end_step(self, job: Job, steps: Iterator[StepResult], results: list[StepResult], started_at: float) -> None:
        current.set(job.item)
        step = job.steps[len(results)]
        result = next(steps)
        result.started_at = started_at
        results.append(result)
        self._lanes.ran.append((step.op, step.hook, job.item.data_id))
        if len(results) < len(job.steps) and not result.is_final(job.expires_at) and not job.item.done:
            self._begin_step(job, steps, results)
            return
        job.set_results(*results)
        self._hand_back(job)

    def _run(self, job: Job) -> None:
        current.set(job.item)
        try:
            job.value = getattr(job.node.op, job.hook)(*job.args)
        except Exception as error:
            job.error = hook_error(error, job.node.name, job.hook)
        job.ended_at = self._clock()
        self._lanes.ran.append((job.node.name, job.hook, job.item.data_id))
        self._hand_back(job)

    def _hand_back(self, job: Job) -> None:
        del self._running[job]
        self._idle.append(job.worker)
        self._dispatch()
        job.done(job)

    def close(self) -> None:
        for timer in self._running.values():
            timer.cancel()

    async def wait_closed(self) -> None:
        pass

    def statistics(self) -> LaneStatistics:
        return LaneStatistics(self.width, self.width, len(self._running), len(self._waiting), 0)


class SimulatedReplica(Replica):
    """A replica on a device that takes as long as it is told."""

    def __init__(self, lanes: SimulatedLanes, node: Node, index: int, clock: Clock) -> None:
        self.node = node
        self.index = index
        self.device = "simulated"
        self._lanes = lanes
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        load = self.node.op.hook("load_model")
        if load is not None:
            try:
                self.node.op.model = load(self.device)
            except Exception as error:
                raise load_error(error, self.node.name, "load_model") from error

    def submit(self, batch: Batch) -> None:
        batch.started_at = self._clock()
        self._lanes.batches[self.node.name].append(len(batch.samples))
        seconds = self._lanes.seconds(self.node.name, "process", len(batch.samples))
        self._timer = self._loop.call_later(seconds, self._run, batch)

    def _run(self, batch: Batch) -> None:
        current.set(None)
        try:
            given = arguments(self.node.op, batch)
            if batch.samples:
                take_results(self.node.op, batch, self.node.op.hook("process")(*given))  # type: ignore[misc]  # it has it
        except Exception as error:
            fail(self.node.op, batch, error)
        self._lanes.ran += [(self.node.name, "process", sample.visit.item.data_id) for sample in batch.samples]
        batch.ended_at = self._clock()
        batch.done(batch)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def wait_closed(self) -> None:
        pass
