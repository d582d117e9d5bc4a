"""Visit: one Item at one Op; Sample: one thing that the Op's `process` batches."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from asyncline.engine.expiry import Expirable
from asyncline.engine.item import Item
from asyncline.errors import DeadlineExceeded


class OpLimit:
    """The deadline that an Op's `timeout_ms` sets an Item. Holds no values, as it may outlive the Item."""

    __slots__ = ("item", "op_name", "tick", "timeout_ms")

    tick: set[Expirable]

    def __init__(self, item: Item, op_name: str, timeout_ms: int) -> None:
        self.item = item
        self.op_name = op_name
        self.timeout_ms = timeout_ms

    def expire(self) -> None:
        self.item.fail(DeadlineExceeded(f"op {self.op_name!r}: took longer than its timeout_ms of {self.timeout_ms}"))


class Visit:
    """One Item at one Op, from its Channel to the Op's result."""

    __slots__ = (
        "args", "expires_at", "is_each", "item", "limit", "ready_at", "results", "rows", "samples_left", "started_at",
    )  # fmt: skip

    def __init__(self, item: Item, args: tuple[Any, ...], expires_at: float, limit: OpLimit | None) -> None:
        self.item = item
        self.limit = limit
        #: The values of the Op's inputs.
        self.args = args
        #: The deadline of the Item, or that of the Op's `timeout_ms` where it is earlier.
        self.expires_at = expires_at
        #: Whether `preprocess` returned Each, so that `postprocess` gets a list.
        self.is_each = False
        #: Where it returned Rows: how many each sample has.
        self.rows: list[int] | None = None
        self.results: list[Any] = []
        self.samples_left = 0
        self.ready_at = 0.0
        #: When the first of its samples began to run; 0 before.
        self.started_at = 0.0

    def expire(self) -> None:
        """Its deadline has passed."""
        if self.limit is not None and self.expires_at < self.item.expires_at:
            self.limit.expire()
        else:
            self.item.expire()

    def __repr__(self) -> str:
        return f"<Visit of {self.item.data_id}, {self.samples_left} samples left>"


class Sample:
    """What `process` batches: one for each Item, or several where `preprocess` returned Each or Rows."""

    __slots__ = ("bucket", "cost", "index", "ready_at", "rows", "value", "visit")

    def __init__(
        self, visit: Visit, index: int, value: Any, bucket: Hashable, ready_at: float, rows: int | None = None
    ) -> None:
        self.visit = visit
        self.index = index
        self.value = value
        self.bucket = bucket
        self.ready_at = ready_at
        #: Of a piece of Rows; None where it is a lone sample.
        self.rows = rows
        #: What the Op says that it costs.
        self.cost = 0.0

    @property
    def count(self) -> int:
        """Rows that it takes up in a batch."""
        return 1 if self.rows is None else self.rows

    @property
    def dead(self) -> bool:
        return self.visit.item.done

    def __repr__(self) -> str:
        return f"<Sample {self.index} of {self.visit.item.data_id}, bucket {self.bucket!r}>"
