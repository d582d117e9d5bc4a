"""Enqueue: the handler on the loggers. What it does, it does in the thread that logs, the loop's too: little."""

from __future__ import annotations

import copy
import logging
import sys
import time

from asyncline.engine.context import current
from asyncline.engine.frames import HookFrames
from asyncline.observe.logs.limit import Limit
from asyncline.observe.logs.writer import Targets, Writer


class Enqueue(logging.Handler):
    """Gives a record the ids of its Item and the hook that it comes from, unless it is one too many."""

    def __init__(self, writer: Writer, targets: Targets, limit: Limit, frames: HookFrames) -> None:
        super().__init__()
        self._writer = writer
        self._targets = targets
        self._limit = limit
        self._frames = frames

    def handle(self, record: logging.LogRecord) -> bool:  # without the original's lock
        if not self._limit.admits(record, time.monotonic()):
            return False
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        record = copy.copy(record)  # other handlers get it too
        try:
            self._add_ids(record)
            record.msg = record.getMessage()  # now: its arguments may change
            record.args = None
        except Exception:
            record.msg, record.args = f"{record.msg!r} does not fit its arguments", None
        self._writer.put(record, self._targets)

    def _add_ids(self, record: logging.LogRecord) -> None:
        fields = record.__dict__
        item = current.get()
        if item is not None and item.data_id and "data_id" not in fields:
            record.data_id = item.data_id
            record.log_id = item.log_id
        if "op" not in fields and not record.name.startswith("asyncline."):
            record.op, record.hook = self._frames.find(sys._getframe(2))
