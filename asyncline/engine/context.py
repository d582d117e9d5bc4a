"""What a hook may know about the request it works for."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol


class _Current(Protocol):
    @property
    def data_id(self) -> int: ...
    @property
    def log_id(self) -> str: ...
    @property
    def outgoing(self) -> str | None: ...
    @property
    def expires_at(self) -> float: ...


@dataclass(frozen=True)
class Context:
    """The request that the running hook works for, or the batch of several requests: then it has only a deadline."""

    data_id: int
    """The engine's own increasing id; 0 of several requests."""
    log_id: str
    """The caller's id, empty where it gave none, and of several requests."""
    traceparent: str | None
    """W3C trace context, to be passed on in calls to other services: that which the request came with, or where the
    server exports spans (`service.otel_endpoint`) that of its own span."""
    expires_at: float
    """Deadline in seconds of CLOCK_MONOTONIC; of several requests the latest."""

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline, not below 0."""
        return max(0.0, self.expires_at - time.monotonic())


#: Set by a lane right before it calls a hook: to the Item; for a batch to a Context, or in a thread to None.
current: ContextVar[_Current | Context | None] = ContextVar("asyncline_current", default=None)


#: Which worker process of the CPU pool this is, from 0; None elsewhere.
worker_place: ContextVar[int | None] = ContextVar("asyncline_worker_place", default=None)


def context() -> Context:
    """The request that the running hook works for: `data_id`, `log_id` and remaining time.

    In an `async def process`, which is cancelled when nobody waits for any of its results, it is that of the batch.

    :raises LookupError: called outside of a hook, or in a `process` that is not async.
    """
    item = current.get()
    if item is None:
        raise LookupError("no request here: context() works in async hooks, preprocess and postprocess")
    return item if isinstance(item, Context) else Context(item.data_id, item.log_id, item.outgoing, item.expires_at)
