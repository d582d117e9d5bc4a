"""Item: one request on its way through a graph."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from asyncline.engine.parts import Parts
from asyncline.errors import Cancelled, DeadlineExceeded, RequestError, hook_error
from asyncline.graph.fusion import Hook

if TYPE_CHECKING:
    from asyncline.engine.engine import Engine
    from asyncline.engine.expiry import Expirable
    from asyncline.engine.lanes.steps import StepResult


class Work(Protocol):
    """What is being done for an Item."""

    def cancel(self) -> None:
        """The Item is dead."""


TOTAL, STARTED_AT, DATA_ID = -3, -2, -1
"""The last places of `Item.times`."""

PENDING: Any = type("Pending", (), {"__repr__": lambda self: "PENDING"})()
"""Stands for a value that is still to come."""


class Item:
    """One request: its ids, its deadline, the values so far, and one outcome.

    `resolve`, `reply` and `fail` are the only ways to the outcome; the first call decides, later ones change nothing.
    """

    __slots__ = (
        "ahead",
        "data_id",
        "done",
        "engine",
        "error",
        "expires_at",
        "is_notable",
        "jobs",
        "log_id",
        "missing",
        "on_done",
        "outputs_left",
        "parts",
        "priority",
        "started_at",
        "tick",
        "times",
        "traceparent",
        "value",
        "values",
        "wire",
    )

    def __init__(
        self,
        engine: Engine,
        times: list[Any],
        log_id: str,
        traceparent: str | None,
        started_at: float,
        expires_at: float,
    ) -> None:
        self.engine = engine
        #: Seconds at each Op, at the places of `Plan.time_slots`, and, once done, of it all; then `started_at` and
        #: `data_id`, so that this tells all by itself. It is not to be replaced: see `Times`.
        self.times: list[float] = times
        self.data_id: int = times[DATA_ID]
        self.log_id = log_id
        self.traceparent = traceparent
        #: 1 is the highest.
        self.priority = 1
        #: What it came by: `rest`, `grpc` or `tcp`; empty in process.
        self.wire = ""
        self.started_at = started_at
        self.expires_at = expires_at
        self.done = False
        #: There is more to tell of it than its times: see `Observer.item_noted`.
        self.is_notable = False
        self.value: Any = None
        self.error: RequestError | None = None
        #: Where the answer goes piece by piece; None where it goes in one.
        self.parts: Parts | None = None
        self.on_done: Callable[[Item], None] | None = None
        #: Work for this Item in lanes and replicas, to be cancelled when its outcome comes first.
        self.jobs: list[Work] = []
        #: Its place among the deadlines.
        self.tick: set[Expirable]
        #: Values by slot (see `graph/plan.py`), PENDING where an Op has not delivered yet, None where fusion
        #: left the value behind because nobody needs it.
        self.values: list[Any] = []
        #: For each Op, how many of its inputs are still to come.
        self.missing: list[int] = []
        self.outputs_left = 0
        #: What came of hooks that ran in the task of an earlier one, until the Item gets there; None without fusion.
        self.ahead: dict[Hook, StepResult] | None = None

    def resolve(self, value: Any) -> None:
        """The answer is `value`; where it goes in parts, this is the last of them."""
        if self.parts is not None:
            self.put(value)
            self.end()
        elif not self.done:
            self.value = value
            self._finish()

    def reply(self, value: Any) -> None:
        """The answer is `value`, whatever the Ops that are not done would say."""
        self.is_notable = True
        self.resolve(value)

    def put(self, part: Any) -> None:
        """The next part of the answer is `part`; it goes out at once."""
        if self.done or self.parts is None:
            return
        try:
            self.parts.put(self, part)
        except RequestError as error:
            self.fail(error)
        except Exception as error:
            self.fail(hook_error(error, "response", "encode"))

    def end(self) -> None:
        """All parts of the answer have gone out."""
        if not self.done and self.parts is not None:
            parts = self.parts
            self.value = parts.count if parts.kept is None else parts.kept
            self._finish()

    def hold(self) -> None:
        """Whoever takes the parts has no room: the generator is not resumed before `go_on`.

        The part that is being made may still come, so call it with room for one left. The deadline goes on.
        """
        if self.parts is not None:
            self.parts.hold()

    def go_on(self) -> None:
        """There is room again. Like `hold`, it may be called at any time, any number of times."""
        if self.parts is not None:
            self.parts.go_on()

    def fail(self, error: RequestError) -> None:
        """There is no answer, for this reason."""
        if not self.done:
            self.error = error
            self.is_notable = True
            self._finish()

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        self.fail(Cancelled("the client left"))

    def expire(self) -> None:
        """The deadline has passed."""
        elapsed_ms = (self.expires_at - self.started_at) * 1e3
        self.fail(DeadlineExceeded(f"the deadline of {elapsed_ms:.0f} ms passed{self.engine.whereabouts(self)}"))

    def _finish(self) -> None:
        self.done = True
        if self.jobs:
            for job in tuple(self.jobs):
                job.cancel()
        self.engine.finished(self)
        self.values = []
        self.ahead = None
        if self.on_done is not None:
            self.on_done(self)

    @property
    def outgoing(self) -> str | None:
        """W3C trace context for calls on its behalf: that which it came with, or where there are Spans its own."""
        spans = self.engine.spans
        return self.traceparent if spans is None else spans.of_request(self.data_id, self.traceparent)

    async def wait(self) -> None:
        """Wait for the outcome; a cancelled wait cancels the Item."""
        if self.done:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_done = partial(_wake, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            self.cancel()
            raise

    def result(self) -> Any:
        """The answer.

        :raises RequestError: there is none.
        """
        if self.error is None:
            return self.value
        try:
            raise self.error
        finally:
            # The error knows this frame, and through it would know itself: what it holds would stay in memory.
            self = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        state = "failed" if self.error else "done" if self.done else "in flight"
        return f"<Item {self.data_id} {self.log_id!r} {state}>"


def _wake(waiter: asyncio.Future[None], item: Item) -> None:
    if not waiter.done():
        waiter.set_result(None)
