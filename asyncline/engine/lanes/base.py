"""Contracts of the lanes: where hooks run.

A Lane runs `preprocess` and `postprocess` of single Items, a Replica runs `process` of Batches. Both take
work on the loop by a plain call and hand it back on the loop by a callback, exactly once, whatever
happens: an answer, an error of the hook, a worker's death, a cancel. None of them knows a Channel.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncline.engine.context import Context
from asyncline.engine.lanes.accelerator import DeviceLost, OutOfMemory
from asyncline.engine.lanes.steps import StepResult
from asyncline.errors import RequestError
from asyncline.graph.fusion import Step
from asyncline.graph.plan import Node

if TYPE_CHECKING:
    from asyncline.engine.item import Item
    from asyncline.engine.visit import Sample, Visit


class Job:
    """One hook call for one Item, or several hooks fused. `done(job)` is called on the loop when it is over.

    Then either `error` is set or `value` is what the hook returned. `started_at` and `ended_at` are
    seconds of the engine's clock; they are equal where the hook did not run.
    """

    __slots__ = (
        "args", "done", "ended_at", "error", "expires_at", "extra", "hook", "item", "lane", "node", "ready_at", "rest",
        "started_at", "steps", "value", "visit", "worker",
    )  # fmt: skip

    def __init__(
        self, lane: Lane, node: Node, hook: str, visit: Visit, args: tuple[Any, ...], done: Callable[[Job], None]
    ) -> None:
        self.lane = lane
        self.node = node
        self.hook = hook
        self.visit = visit
        self.item = visit.item
        self.expires_at = visit.expires_at
        self.args = args
        #: Where it is fused: its own hook and those after it, which a lane that `fuses` runs in the same task. They
        #: are the chain of the Node or a part of it: as many as are wanted now.
        self.steps: tuple[Step, ...] = ()
        #: Values for the steps after the first that are not among `args`.
        self.extra: tuple[Any, ...] = ()
        #: What came of the steps after the first, as far as they ran.
        self.rest: tuple[StepResult, ...] = ()
        self.done = done
        self.value: Any = None
        self.error: RequestError | None = None
        #: When it could have begun.
        self.ready_at = 0.0
        self.started_at = 0.0
        self.ended_at = 0.0
        #: Which worker of its lane ran it.
        self.worker = 0

    def cancel(self) -> None:
        """Its Item is dead."""
        self.lane.cancel(self)

    def hand_back(self) -> None:
        """It is over: call `done`, which by a defect of one must not keep those after it."""
        try:
            self.done(self)
        except Exception as error:
            message = f"{self!r} could not be handed back"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})

    @property
    def outgoing(self) -> str | None:
        """W3C trace context for calls of its hook."""
        item = self.item
        spans = item.engine.spans
        return item.traceparent if spans is None else spans.of_op(item.data_id, item.traceparent, self.node.index)

    def context(self) -> Item | Context:
        """What `context()` tells its hook."""
        item = self.item
        return item if item.engine.spans is None else Context(item.data_id, item.log_id, self.outgoing, item.expires_at)

    def set_results(self, own: StepResult, *rest: StepResult) -> None:
        """Take what came of its own hook, and of the steps after it as far as they ran."""
        self.value, self.error = own.value, own.error
        self.started_at, self.ended_at = own.started_at, own.ended_at
        self.rest = rest

    def __repr__(self) -> str:
        return f"<Job {self.node.name}.{self.hook} of {self.item.data_id}>"


class Batch:
    """Samples that a replica runs together. `done(batch)` is called on the loop when it is over.

    Then either `error` is set or `results` has a result for each of `samples`, from which those that had died
    before it began have been left out.
    """

    __slots__ = (
        "abandoned", "done", "ended_at", "error", "fault", "late_at", "replica", "results", "samples", "staged_s",
        "started_at",
    )  # fmt: skip

    def __init__(self, samples: list[Sample], done: Callable[[Batch], None], replica: int = 0) -> None:
        self.samples = samples
        self.done = done
        #: Which one runs it.
        self.replica = replica
        self.results: Sequence[Any] = ()
        self.error: RequestError | None = None
        #: What is wrong with the device, where that is the reason of the error.
        self.fault: OutOfMemory | DeviceLost | None = None
        self.started_at = 0.0
        self.ended_at = 0.0
        #: How long a thread took to lay it together before the device could have it, where that is not its run.
        self.staged_s = 0.0
        #: When it should long be over; 0 until somebody asks.
        self.late_at = 0.0
        #: Nobody waits for it any more: one that has not begun need not be run.
        self.abandoned = False

    @property
    def rows(self) -> int:
        """How large it is."""
        return sum([sample.count for sample in self.samples])

    def __repr__(self) -> str:
        return f"<Batch of {len(self.samples)} on replica {self.replica}>"


@dataclass(frozen=True)
class LaneStatistics:
    width: int
    """Most Jobs that can run at once."""
    alive: int
    """Workers that can take a Job; less than `width` while one is being replaced."""
    running: int
    waiting: int
    """Jobs handed in that no worker has taken yet."""
    replaced: int
    """Workers replaced so far."""
    pids: tuple[int, ...] = ()
    """Of workers that are processes."""
    arguments_nbytes: int = 0
    """In shared memory, of arguments that workers may still read."""
    results_nbytes: int = 0
    """In shared memory, of results that something here still reads."""
    shared_max_nbytes: int = 0
    """Most of each of them."""


class Lane(ABC):
    """Runs hooks of single Items."""

    width: int
    """Most Jobs that can run at once."""
    fuses = False
    """Whether it runs all steps of a Job; other lanes are given Jobs of one hook only."""
    bounds = False
    """Whether it sees to the `concurrency` of an Op without `process` itself; other lanes are given no more Jobs of it
    than may run."""

    @property
    def window(self) -> int:
        """Most Jobs of one Op worth handing in: twice as many as can run, so that no worker waits for the loop."""
        return 2 * self.width

    @abstractmethod
    async def start(self) -> None:
        """Make the lane ready.

        :raises LoadError: a hook of an Op cannot be run here; names the Op and the cure.
        """

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Take a Job; never waits. A Job whose Item is dead when its turn comes is handed back unrun."""

    def cancel(self, job: Job) -> None:  # noqa: B027  # most lanes cannot stop a running hook
        """The Item of a Job handed in is dead; stop working on it where that can be done."""

    def note_log_levels(self) -> None:  # noqa: B027  # most lanes log in this process
        """Levels of loggers have changed."""

    def problem(self) -> str | None:
        """Why the server should not be sent requests; None where all is well."""
        return None if self.statistics().alive else "has no worker alive"

    @abstractmethod
    def close(self) -> None:
        """Take no more; what runs may end."""

    @abstractmethod
    async def wait_closed(self) -> None:
        """Wait, within a bound, until nothing of the lane is left."""

    @abstractmethod
    def statistics(self) -> LaneStatistics: ...


class Replica(ABC):
    """One copy of an Op with its own model. Runs one Batch at a time, and hands them back in order."""

    node: Node
    index: int
    device: str
    depth = 1
    """Most Batches that it may be given: 2 where the next may be staged while one runs."""
    batch_sizes: Sequence[int] = ()
    """Numbers of rows that its model runs best, once it has started; batches in between are padded to the next."""

    @abstractmethod
    async def start(self) -> None:
        """Load the model.

        :raises LoadError: `load_model` raised.
        """

    @abstractmethod
    def submit(self, batch: Batch) -> None:
        """Run a Batch, after those handed in before; no more than `depth` of them."""

    @abstractmethod
    def close(self) -> None:
        """Take no more; the running Batch may end."""

    @abstractmethod
    async def wait_closed(self) -> None:
        """Wait, within a bound, until the replica's thread has ended."""
