"""Writer: the thread that writes log lines, so that no disk and no terminal holds up the loop."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from queue import Empty, SimpleQueue

from asyncline.observe.logs.limit import INTERVAL_S, Limit

MOST_RECORDS = 10_000
"""Records that may wait to be written; more are dropped, and counted."""
CLOSE_S = 2.0
"""How long an end waits for the last lines to be written."""
COMPLAIN_S = 60.0

Targets = Sequence[logging.Handler]


class Writer:
    """Takes records from any thread without waiting, and hands them to their targets in order."""

    def __init__(self, limit: Limit, targets: Targets) -> None:
        self._limit = limit
        #: Of its own lines: how many of others there are not.
        self._targets = targets
        self._queue: SimpleQueue[tuple[logging.LogRecord, Targets] | threading.Event | None] = SimpleQueue()
        self._lock = threading.Lock()
        #: Records for which there was no room, so far.
        self.dropped = 0
        self._told = 0
        self._thread = threading.Thread(target=self._write, name="asyncline log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, record: logging.LogRecord, targets: Targets) -> None:
        """Have `targets` write a record, whose message is made; where it is to be made yet, by the Writer's thread."""
        if self._queue.qsize() < MOST_RECORDS:
            self._queue.put((record, targets))
        else:
            with self._lock:
                self.dropped += 1

    def _write(self) -> None:
        while True:
            due_at = self._limit.due_at
            try:
                entry = self._queue.get(timeout=None if due_at is None else max(0.0, due_at - time.monotonic()))
            except Empty:
                self._tell_left_out()
                continue
            if entry is None:
                break
            if isinstance(entry, threading.Event):
                entry.set()
                continue
            hand(*entry)
            if self.dropped > self._told and self._queue.qsize() < MOST_RECORDS // 2:
                self._tell_dropped()
            if due_at is not None and time.monotonic() >= due_at:
                self._tell_left_out()
            del entry  # not kept while the thread waits for the next
        self._tell_left_out(all_of_it=True)
        self._tell_dropped()

    def _tell_left_out(self, *, all_of_it: bool = False) -> None:
        for left_out in self._limit.take(time.monotonic(), all_of_it=all_of_it):
            record = left_out.record
            record.msg = f"{left_out.count} more lines like this one were left out in {INTERVAL_S:.0f} s: {record.msg}"
            hand(record, self._targets)

    def _tell_dropped(self) -> None:
        dropped = self.dropped - self._told
        self._told += dropped
        if dropped:
            text = f"{dropped} log lines were dropped: they came faster than they could be written"
            record = logging.LogRecord("asyncline.log", logging.WARNING, __file__, 0, text, None, None)
            hand(record, self._targets)

    def flush(self, seconds: float) -> None:
        """Wait up to `seconds` until what has been put is written."""
        written = threading.Event()
        self._queue.put(written)
        written.wait(seconds)

    def close(self) -> None:
        """Write what is left, within a bound."""
        self._queue.put(None)
        self._thread.join(CLOSE_S)


def hand(record: logging.LogRecord, targets: Targets) -> None:
    for target in targets:
        if record.levelno >= target.level:
            target.handle(record)


class LogFile(RotatingFileHandler):
    """A file that is set aside when it is full. A disk that takes no more is told of on stderr, now and then."""

    def __init__(self, path: Path, formatter: logging.Formatter, nbytes: int, count: int, level: int = 0) -> None:
        super().__init__(path, maxBytes=nbytes, backupCount=count, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(formatter)
        self.setLevel(level)
        self._complain_at = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        # The original makes each line twice, and asks the file system how long the file is.
        try:
            line = self.format(record) + "\n"
            if self.stream is None:
                self.stream = self._open()
            if (at := self.stream.tell()) and at + len(line) > self.maxBytes:
                self.doRollover()
            self.stream.write(line)
            self.stream.flush()
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        stream, self.stream = self.stream, None  # opened again by the next line
        with suppress(Exception):  # what it holds is lost
            if stream is not None:
                stream.close()
        now, failed = time.monotonic(), sys.exc_info()[1]
        if now >= self._complain_at:
            self._complain_at = now + COMPLAIN_S
            print(f"asyncline: cannot write {self.baseFilename}: {failed}", file=sys.stderr)  # noqa: T201  # the log itself is what fails
