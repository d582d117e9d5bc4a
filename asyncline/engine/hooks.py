"""The one protocol by which tracer, metrics and logs see an Engine work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from asyncline.errors import RequestError
from asyncline.graph.plan import Node

if TYPE_CHECKING:
    from asyncline.engine.item import Item
    from asyncline.engine.lanes.base import Batch, Job

log = logging.getLogger("asyncline.engine")


class Observer:
    """Override what you want to see; what is not overridden costs nothing. All run on the loop.

    Times are in seconds. An observer that raises is removed and logged.
    """

    def item_done(self, item: Item) -> None:
        """An Item has its outcome; `item.times` says where its time went, in all at `asyncline.engine.item.TOTAL`.

        A call for each request costs ten times what it does alone in a loop, as nothing of it is in the core's caches:
        whoever wants figures only takes `items_done`.
        """

    def items_done(self, times: np.ndarray) -> None:
        """Items have their outcome. Nobody changes `times` any more: float64, a row of each, in no order.

        Called when there are many, or when somebody asks for them by `Engine.hand_over`. An observer that is added
        while requests are in flight may get some from before that, and is not told more of these.
        """

    def item_noted(self, item: Item) -> None:
        """Of an Item of one of the next `items_done` there is more to tell than its times.

        It failed, was answered before all outputs were there, went round, or has a `log_id` or trace context; or the
        graph takes rows or streams. Not the place to ask for `Engine.hand_over`.
        """

    def op_done(self, node: Node, item: Item) -> None:
        """An Op has finished an Item; its numbers in `item.times` are final."""

    def op_failed(self, node: Node, item: Item, error: RequestError) -> None:
        """An Op has failed an Item."""

    def job_done(self, job: Job) -> None:
        """A hook that is not inline has run, or has been given up (then it ended when it started)."""

    def batch_done(self, node: Node, batch: Batch) -> None:
        """A replica has finished a Batch; one whose samples had all died before it began was none."""

    def rejected(self, reason: str) -> None:
        """A request was refused at the door; `reason` is the code of its error."""

    def connection_opened(self, wire: str) -> None:
        """A client has connected; `wire` is `rest`, `grpc` or `tcp`."""

    def connection_closed(self, wire: str, reason: str) -> None:
        """A connection has ended; see `asyncline.transports.guard` for the reasons."""

    def connection_refused(self, wire: str, reason: str) -> None:
        """A client was not let in: too many `connections` in all, or of its `peer` address."""

    def loading(self, node: Node, replica: int) -> None:
        """A replica begins to load its model."""

    def loaded(self, node: Node, replica: int, seconds: float) -> None:
        """A replica has loaded its model."""

    def worker_lost(self, op: str, hook: str, reason: str) -> None:
        """A process of the CPU pool died or was killed; `op` and `hook` were running on it, or are empty."""

    def replica_hung(self, node: Node, replica: int) -> None:
        """A replica is still in `process` long after the deadlines of its batch; it gets no more until it is out."""

    def loop_late(self, op: str, hook: str, share_s: float) -> None:
        """The event loop was looked at, and was kept by a hook. Looks are samples: this one stands for `share_s`."""

    def loop_blocked(self, op: str, hook: str, seconds: float, stack: str) -> None:
        """The event loop did not run for that long; `op` and `hook` kept it, or are empty: it was none of them."""


class Hooks:
    """Observers, kept hook by hook: a hook that nobody overrides is an empty list."""

    item_done: list[Callable[..., None]]
    items_done: list[Callable[..., None]]
    item_noted: list[Callable[..., None]]
    op_done: list[Callable[..., None]]
    op_failed: list[Callable[..., None]]
    job_done: list[Callable[..., None]]
    batch_done: list[Callable[..., None]]
    rejected: list[Callable[..., None]]
    connection_opened: list[Callable[..., None]]
    connection_closed: list[Callable[..., None]]
    connection_refused: list[Callable[..., None]]
    loading: list[Callable[..., None]]
    loaded: list[Callable[..., None]]
    worker_lost: list[Callable[..., None]]
    replica_hung: list[Callable[..., None]]
    loop_late: list[Callable[..., None]]
    loop_blocked: list[Callable[..., None]]

    NAMES = tuple(name for name in vars(Observer) if not name.startswith("_"))

    def __init__(self) -> None:
        for name in self.NAMES:
            setattr(self, name, [])

    def add(self, observer: Observer) -> None:
        for name in self.NAMES:
            if getattr(type(observer), name) is not getattr(Observer, name):
                getattr(self, name).append(getattr(observer, name))

    def remove(self, observer: Observer) -> None:
        for name in self.NAMES:
            # A new list: `emit` may be going through the old one.
            setattr(self, name, [callback for callback in getattr(self, name) if callback.__self__ is not observer])

    def emit(self, callbacks: list[Callable[..., None]], *args: Any) -> None:
        """Call every callback of one hook; call sites test the list first, so that an unused one is free."""
        for callback in callbacks:
            try:
                callback(*args)
            except Exception:
                self.drop(callback)

    def drop(self, callback: Callable[..., None]) -> None:
        """Remove the observer of a callback that raises just now, and log why."""
        observer = callback.__self__  # type: ignore[attr-defined]  # `add` stores bound methods only
        log.exception("observer %r raised and is removed", observer)
        self.remove(observer)
