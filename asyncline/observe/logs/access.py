"""AccessLog: a line for each request, of every wire."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import NamedTuple

from asyncline.engine.hooks import Observer
from asyncline.engine.item import Item
from asyncline.observe.logs.formats import encode
from asyncline.observe.logs.logs import Logs

MOST = 1000
"""Lines that are handed over at once."""


class Line(NamedTuple):
    at: float
    """Seconds since 1970."""
    wire: str
    code: str
    ms: float
    data_id: int
    log_id: str


class AccessLog(Observer):
    """Notes requests on the loop; the log's thread makes lines of them. Those refused at the door have no ids."""

    def __init__(self, logs: Logs, graph: str, log_format: str) -> None:
        self._logs = logs
        self._graph = graph
        self._as_json = log_format == "json"
        self._lines: list[Line] = []

    def item_done(self, item: Item) -> None:
        code = "ok" if item.error is None else str(item.error.code)
        self._add(Line(time.time(), item.wire, code, item.times[-1] * 1e3, item.data_id, item.log_id))

    def rejected(self, reason: str) -> None:
        self._add(Line(time.time(), "", reason, 0.0, 0, ""))

    def _add(self, line: Line) -> None:
        self._lines.append(line)
        if len(self._lines) >= MOST:
            self.hand_over()

    def hand_over(self, lag_s: float = 0.0) -> None:
        """Have written what has gathered; to be called now and then."""
        if self._lines:
            lines, self._lines = self._lines, []
            text = _Text(lines, self._graph, self._as_json)
            record = logging.LogRecord("asyncline.access", logging.INFO, "", 0, text, None, None)
            self._logs.writer.put(record, self._logs.access)


class _Text:
    """Made when it is written."""

    def __init__(self, lines: list[Line], graph: str, as_json: bool) -> None:
        self._lines = lines
        self._graph = graph
        self._as_json = as_json

    def __str__(self) -> str:
        return "\n".join(map(self._json if self._as_json else self._plain, self._lines))

    def _plain(self, line: Line) -> str:
        log_id = f" log_id={line.log_id}" if line.log_id else ""
        ids = f" [data_id={line.data_id}{log_id}]" if line.data_id else ""
        return f"{_time(line)} {line.wire or '-'} {self._graph} {line.code} {line.ms:.3f} ms{ids}"

    def _json(self, line: Line) -> str:
        about = {"time": _time(line), "level": "INFO", "logger": "asyncline.access", "wire": line.wire,
                 "graph": self._graph, "code": line.code, "ms": round(line.ms, 3)}  # fmt: skip
        if line.data_id:
            about |= {"data_id": line.data_id, "log_id": line.log_id}
        return encode(about)


def _time(line: Line) -> str:
    return datetime.fromtimestamp(line.at, UTC).isoformat(timespec="milliseconds")
