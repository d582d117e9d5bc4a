"""AccessLog: a line for each request, of every wire."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from asyncline.engine.hooks import Observer
from asyncline.engine.item import TOTAL, Item
from asyncline.observe.logs.formats import encode_text
from asyncline.observe.logs.logs import Logs

MOST = 1000
"""Lines that are handed over at once."""


class AccessLog(Observer):
    """Makes the lines on the loop, for under a microsecond each; the log's thread writes many of them at once.

    If that thread made them it would have the interpreter for milliseconds, and the loop would wait for it at its next
    system call. Requests refused at the door have no ids.
    """

    def __init__(self, logs: Logs, graph: str, log_format: str) -> None:
        self._logs = logs
        self._line = self._json if log_format == "json" else self._plain
        self._graph = graph
        self._quoted_graph = encode_text(graph)
        self._lines: list[str] = []
        self._second = 0
        self._date = ""

    def item_done(self, item: Item) -> None:
        code = "ok" if item.error is None else str(item.error.code)
        self._add(self._line(item.wire, code, item.times[TOTAL] * 1e3, item.data_id, item.log_id))

    def rejected(self, reason: str) -> None:
        self._add(self._line("", reason, 0.0, 0, ""))

    def _add(self, line: str) -> None:
        self._lines.append(line)
        if len(self._lines) >= MOST:
            self.hand_over()

    def hand_over(self, lag_s: float = 0.0) -> None:
        """Have written what has gathered; to be called now and then."""
        if self._lines:
            lines, self._lines = self._lines, []
            record = logging.LogRecord("asyncline.access", logging.INFO, "", 0, "\n".join(lines), None, None)
            self._logs.writer.put(record, self._logs.access)

    def _time(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._date = datetime.fromtimestamp(second, UTC).isoformat().partition("+")[0]
        return f"{self._date}.{int((now - second) * 1e3):03d}+00:00"

    def _plain(self, wire: str, code: str, ms: float, data_id: int, log_id: str) -> str:
        ids = ""
        if log_id:  # on one line, whatever a client sends
            ids = f" [data_id={data_id} log_id={log_id if log_id.isprintable() else ascii(log_id)}]"
        elif data_id:
            ids = f" [data_id={data_id}]"
        return f"{self._time()} {wire or '-'} {self._graph} {code} {ms:.3f} ms{ids}"

    def _json(self, wire: str, code: str, ms: float, data_id: int, log_id: str) -> str:
        ids = ""
        if data_id:
            ids = f',"data_id":{data_id},"log_id":{encode_text(log_id) if log_id else _EMPTY}'
        return (
            f'{{"time":"{self._time()}","level":"INFO","logger":"asyncline.access","wire":"{wire}",'
            f'"graph":{self._quoted_graph},"code":{_OK if code == "ok" else encode_text(code)},"ms":{ms:.3f}{ids}}}'
        )


_EMPTY, _OK = '""', '"ok"'
