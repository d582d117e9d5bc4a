"""Gathering: takes Items that have their outcome one by one, and hands them on many at a time, as numbers."""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asyncline.engine.hooks import Observer
from asyncline.engine.item import PENDING, Item
from asyncline.errors import RequestError, public_message
from asyncline.graph.plan import STAGES, Plan

log = logging.getLogger("asyncline.observe")

MOST_NUMBERS = 2048
"""What is gathered at once; floats that take 48 kB until they are handed on. With more they leave the core's cache."""
MESSAGE_CHARACTERS = 300

TOTAL, STARTED_AT, DATA_ID = -3, -2, -1
"""The last columns of `Block.rows`."""


class Note(NamedTuple):
    """What there is to tell of an Item beside its times; of most there is nothing."""

    place: int
    """Of its row in the Block."""
    at: float
    """Its end, in seconds since the epoch."""
    log_id: str
    traceparent: str | None
    """W3C trace context."""
    code: str
    """`ok`, or that of its error: see `code_label`."""
    message: str
    """Of its error."""
    done: tuple[int, ...] | None
    """Indices of the Ops that were done with it; None: all."""
    size: int
    """Its rows, where the graph takes rows and there is an answer."""
    first_part_s: float | None
    """From admission to the first part of a streamed answer."""


@dataclass(frozen=True, slots=True)
class Block:
    """Items that had their outcome, in the order of their ends. Holds none of their values; any thread may read it."""

    rows: np.ndarray
    """float64, [items, times + 2]: `Item.times`, then `started_at` and `data_id`."""
    notes: list[Note]


class Gathering(Observer):
    """Hands on what it has gathered when it is enough, or when `hand_over` is called.

    One Item at a time would cost each of those who want it a microsecond and some cold memory: more than a tenth of
    what a REST echo takes.
    """

    def __init__(self, plan: Plan) -> None:
        #: Called with each Block. One that raises is removed and logged.
        self.takers: list[Callable[[Block], None]] = []
        self._nodes = plan.nodes
        self._takes_rows = plan.graph.takes_rows
        self._notes_all = plan.streams or self._takes_rows
        self._width = len(STAGES) * len(plan.nodes) + 3
        self._enough = max(1, MOST_NUMBERS // self._width) * self._width
        self._numbers: list[float] = []
        self._notes: list[Note] = []

    def item_done(self, item: Item) -> None:
        numbers = self._numbers
        if item.error is not None or item.outputs_left or item.log_id or item.traceparent or self._notes_all:
            self._notes.append(self._note(item, len(numbers) // self._width))
        numbers += item.times
        numbers += (item.started_at, item.data_id)
        if len(numbers) >= self._enough:
            self.hand_over()

    def _note(self, item: Item, place: int) -> Note:
        error, parts = item.error, item.parts
        is_whole = error is None and not item.outputs_left
        return Note(
            place=place,
            at=time.time(),
            log_id=item.log_id,
            traceparent=item.traceparent,
            code="ok" if error is None else code_label(error),
            message="" if error is None else public_message(error)[:MESSAGE_CHARACTERS],
            done=None if is_whole else self._done(item),
            size=len(item.values[0]) if self._takes_rows and error is None else 0,
            first_part_s=parts.first_s if parts is not None and parts.count else None,
        )

    def _done(self, item: Item) -> tuple[int, ...]:
        return tuple([node.index for node in self._nodes if item.values and item.values[node.slot] is not PENDING])

    def hand_over(self) -> None:
        """Hand on what has been gathered."""
        if not self._numbers:
            return
        block = Block(as_rows(self._numbers, self._width), self._notes)
        self._numbers, self._notes = [], []
        for take in tuple(self.takers):
            try:
                take(block)
            except Exception:
                log.exception("%r raised and is removed", take)
                self.takers.remove(take)


def as_rows(numbers: list[float], width: int) -> np.ndarray:
    """float64, [rows, width], read-only. `np.array` of a list takes three times as long."""
    return np.frombuffer(struct.pack(f"{len(numbers)}d", *numbers)).reshape(-1, width)


def code_label(error: RequestError) -> str:
    """The error's code; `product` for a business's own, of which there may be any number."""
    return error.code if type(error).code == error.code and isinstance(error.code, str) else "product"
