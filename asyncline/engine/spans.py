"""Spans: names for what the Engine does in a distributed trace, where something exports it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Spans(Protocol):
    """Makes W3C trace contexts for what is called on behalf of requests. Any thread may ask, and there is nothing to
    keep: who exports the spans later makes the same ids from the same numbers.

    A request is its `data_id` and the trace context that it came with, None without.
    """

    def of_request(self, data_id: int, traceparent: str | None) -> str:
        """That of the request's span."""

    def of_op(self, data_id: int, traceparent: str | None, op: int) -> str:
        """That of the span of a request at the Op of this index."""

    def of_batch(self, op: int, replica: int, started_at: float, requests: Iterable[tuple[int, str | None]]) -> str:
        """That of the span of a batch of these requests."""
