"""Limit: how many log lines of one kind may be written. Policy: no clock of its own."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

INTERVAL_S = 10.0
MOST_KINDS = 1000
"""Kinds that are counted at once; with more, those that nobody was left out of are forgotten."""


@dataclass
class _Kind:
    since: float
    first: logging.LogRecord
    """Holds no arguments and no exception."""
    count: int = 0


@dataclass(frozen=True)
class LeftOut:
    """Lines of one kind that were not written."""

    record: logging.LogRecord
    """One of them, bare."""
    count: int


class Limit:
    """At most `most` lines of one kind in an interval. May be asked by any thread.

    A kind is a logger and a template, as in `log.info("%s is late", name)`; of a text without one, the line of code.

    :param most: 0: all.
    """

    def __init__(self, most: int, interval_s: float = INTERVAL_S) -> None:
        self._most = most
        self._interval_s = interval_s
        self._kinds: dict[tuple[object, ...], _Kind] = {}
        self._lock = threading.Lock()
        #: Lines left out so far.
        self.left_out = 0
        #: When some of those that were left out are to be told of; None: there are none.
        self.due_at: float | None = None

    def admits(self, record: logging.LogRecord, now: float) -> bool:
        """Count a line; whether it is to be written."""
        if not self._most:
            return True
        template = record.msg if record.args else (record.pathname, record.lineno)
        key = (record.name, record.levelno, template if isinstance(template, str | tuple) else id(type(template)))
        with self._lock:
            kind = self._kinds.get(key)
            if kind is None or (now - kind.since >= self._interval_s and kind.count <= self._most):
                if len(self._kinds) >= MOST_KINDS:
                    self._forget(now)
                kind = self._kinds[key] = _Kind(now, _bare(record))
            kind.count += 1
            if kind.count <= self._most:
                return True
            self.left_out += 1
            due_at = kind.since + self._interval_s
            if self.due_at is None or due_at < self.due_at:
                self.due_at = due_at
            return False

    def take(self, now: float, *, all_of_it: bool = False) -> list[LeftOut]:
        """What was left out in intervals that are over; each is told once."""
        found = []
        with self._lock:
            over = [
                (key, kind)
                for key, kind in self._kinds.items()
                if kind.count > self._most and (all_of_it or now - kind.since >= self._interval_s)
            ]
            for key, kind in over:
                del self._kinds[key]
                found.append(LeftOut(kind.first, kind.count - self._most))
            left = [kind.since + self._interval_s for kind in self._kinds.values() if kind.count > self._most]
            self.due_at = min(left, default=None)
        return found

    def _forget(self, now: float) -> None:
        self._kinds = {
            key: kind
            for key, kind in self._kinds.items()
            if kind.count > self._most or now - kind.since < self._interval_s
        }
        if len(self._kinds) >= MOST_KINDS:  # as many kinds in one interval: start counting again
            self._kinds = {key: kind for key, kind in self._kinds.items() if kind.count > self._most}
        if len(self._kinds) >= MOST_KINDS:
            self._kinds.clear()
            self.due_at = None


def _bare(record: logging.LogRecord) -> logging.LogRecord:
    text = str(record.msg)[:200]
    return logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, text, None, None)
