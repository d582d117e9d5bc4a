"""Gathering: Items that have their outcome, many at a time, as numbers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asyncline.engine.engine import Engine
from asyncline.engine.hooks import Observer
from asyncline.engine.item import DATA_ID, PENDING, Item
from asyncline.errors import RequestError, public_message

log = logging.getLogger("asyncline.observe")

MESSAGE_CHARACTERS = 300


class Note(NamedTuple):
    """What there is to tell of an Item beside its times; of most there is nothing."""

    data_id: int
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
    """Items that had their outcome, in no order. Holds none of their values; any thread may read it."""

    rows: np.ndarray
    """float64, [items, times]: `Item.times`."""
    notes: list[Note]
    """In the order of their ends."""
    places: list[int]
    """Of each Note, its Item's row."""


class Gathering(Observer):
    """Makes Blocks, and hands them on to all who want Items."""

    def __init__(self, engine: Engine) -> None:
        #: Called with each Block. One that raises is removed and logged.
        self.takers: list[Callable[[Block], None]] = []
        #: Have whatever has its outcome handed on.
        self.hand_over = engine.hand_over
        self._nodes = engine.plan.nodes
        self._takes_rows = engine.graph.takes_rows
        self._notes: list[Note] = []

    def item_noted(self, item: Item) -> None:
        self._notes.append(self._note(item))

    def items_done(self, times: np.ndarray) -> None:
        block = self._block(times)
        for take in tuple(self.takers):
            try:
                take(block)
            except Exception:
                log.exception("%r raised and is removed", take)
                self.takers.remove(take)

    def _block(self, rows: np.ndarray) -> Block:
        """With those Notes that are of these Items; others are still to come."""
        if not self._notes:
            return Block(rows, [], [])
        places = {data_id: place for place, data_id in enumerate(rows[:, DATA_ID].tolist())}
        notes, self._notes = self._notes, []
        block = Block(rows, [], [])
        for note in notes:
            place = places.get(note.data_id)
            if place is None:
                self._notes.append(note)
            else:
                block.notes.append(note)
                block.places.append(place)
        return block

    def _note(self, item: Item) -> Note:
        error, parts = item.error, item.parts
        is_whole = error is None and not item.outputs_left
        return Note(
            data_id=item.data_id,
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


def code_label(error: RequestError) -> str:
    """The error's code; `product` for a business's own, of which there may be any number."""
    return error.code if type(error).code == error.code and isinstance(error.code, str) else "product"
