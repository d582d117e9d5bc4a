"""Ids: which trace a request is of, and the ids of its spans, from its number alone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

import numpy as np

from asyncline.engine.spans import Spans

_GOLDEN, _ALL = 0x9E3779B97F4A7C15, 2**64
"""Multiples of 2⁶⁴ divided by the golden ratio are spread evenly over 2⁶⁴, however many there are."""
_REQUEST = -1
"""In the place of an Op's index: the span of the request itself."""
_TRACE, _SPAN, _BATCH = Struct("<q"), Struct("<16sqi"), Struct("<iid")


class Span(NamedTuple):
    """A span's place in its trace."""

    trace_id: int
    span_id: int
    parent_id: int | None
    """None: it is the root."""
    is_remote: bool
    """Whether the parent is a span of another process."""
    is_sampled: bool

    @property
    def traceparent(self) -> str:
        """The W3C trace context of what is called in this span."""
        return _written(self.trace_id, self.span_id, is_sampled=self.is_sampled)


class Ids(Spans):
    """Makes ids by a keyed hash; with another key, as every server has its own, they are other ones.

    A request that came with a trace context is sampled where that says so, and others by `sample_ratio`.

    :param sample_ratio: from 0 to 1.
    :param key: of 1 to 64 bytes.
    """

    def __init__(self, sample_ratio: float, key: bytes | None = None) -> None:
        key = key or os.urandom(16)
        self._key = key
        self._first = int.from_bytes(blake2b(key).digest()[:8])
        self._sampled_below = round(sample_ratio * _ALL)

    def is_sampled(self, data_id: int, traceparent: str | None) -> bool:
        if traceparent is not None:
            return bool(int(traceparent[53:55], 16) & 1)
        return (self._first + data_id * _GOLDEN) % _ALL < self._sampled_below

    def are_sampled(self, data_ids: np.ndarray) -> np.ndarray:
        """The same of many requests that came without a trace context.

        :param data_ids: int64, [n].
        :returns: bool, [n].
        """
        if not self._sampled_below:
            return np.zeros(len(data_ids), np.bool_)
        spread = np.uint64(self._first) + data_ids.astype(np.uint64) * np.uint64(_GOLDEN)
        return spread <= np.uint64(self._sampled_below - 1)

    def request(self, data_id: int, traceparent: str | None) -> Span:
        trace_id = self._trace_id(data_id, traceparent)
        parent_id = None if traceparent is None else int(traceparent[36:52], 16)
        span_id = self._span_id(trace_id, data_id, _REQUEST)
        return Span(trace_id, span_id, parent_id, parent_id is not None, self.is_sampled(data_id, traceparent))

    def op(self, data_id: int, request: Span, op: int) -> Span:
        """:param request: the span of that request."""
        span_id = self._span_id(request.trace_id, data_id, op)
        return Span(request.trace_id, span_id, request.span_id, False, request.is_sampled)

    def batch(self, op: int, replica: int, started_at: float, lone: Span | None, *, is_sampled: bool) -> Span:
        """:param lone: where it is of one request, the span of that at the Op.
        :param is_sampled: whether any of its requests is.
        """
        batch = _BATCH.pack(op, replica, started_at)
        span_id = self._number(batch, 8)
        if lone is not None:
            return Span(lone.trace_id, span_id, lone.span_id, False, is_sampled)
        return Span(self._number(batch, 16), span_id, None, False, is_sampled)

    def _trace_id(self, data_id: int, traceparent: str | None) -> int:
        return self._number(_TRACE.pack(data_id), 16) if traceparent is None else int(traceparent[3:35], 16)

    def _span_id(self, trace_id: int, data_id: int, place: int) -> int:
        return self._number(_SPAN.pack(trace_id.to_bytes(16), data_id, place), 8)

    def _number(self, data: bytes, nbytes: int) -> int:
        return int.from_bytes(blake2b(data, digest_size=nbytes, key=self._key).digest()) or 1  # 0 is no id

    # -- for the Engine -----------------------------------------------------------------------------

    def of_request(self, data_id: int, traceparent: str | None) -> str:
        return self._handed_on(data_id, traceparent, _REQUEST)

    def of_op(self, data_id: int, traceparent: str | None, op: int) -> str:
        return self._handed_on(data_id, traceparent, op)

    def of_batch(self, op: int, replica: int, started_at: float, requests: Iterable[tuple[int, str | None]]) -> str:
        found = [(data_id, self.request(data_id, traceparent)) for data_id, traceparent in requests]
        lone = self.op(*found[0], op) if len(found) == 1 else None
        is_sampled = any(request.is_sampled for _, request in found)
        return self.batch(op, replica, started_at, lone, is_sampled=is_sampled).traceparent

    def _handed_on(self, data_id: int, traceparent: str | None, place: int) -> str:
        is_sampled = self.is_sampled(data_id, traceparent)
        if traceparent is not None and not is_sampled:
            return traceparent  # there will be no span of ours: the caller's is the parent of what is called
        trace_id = self._trace_id(data_id, traceparent)
        return _written(trace_id, self._span_id(trace_id, data_id, place), is_sampled=is_sampled)


def _written(trace_id: int, span_id: int, *, is_sampled: bool) -> str:
    return f"00-{trace_id:032x}-{span_id:016x}-{'01' if is_sampled else '00'}"
