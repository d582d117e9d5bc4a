"""Log lines: every one of an Item carries its data_id and log_id."""

from __future__ import annotations

import logging
import sys

from asyncline.engine.hooks import Observer
from asyncline.engine.item import Item
from asyncline.errors import OpError, RequestError
from asyncline.graph.plan import Node

log = logging.getLogger("asyncline.request")


class Log(Observer):
    """Writes what goes wrong in the Ops: the message a client gets, and the traceback that it does not."""

    def op_failed(self, node: Node, item: Item, error: RequestError) -> None:
        ids = {"data_id": item.data_id, "log_id": item.log_id}
        if not isinstance(error, OpError):
            log.debug("%s", error, extra=ids)
        elif error.traceback:
            log.error("%s\n%s", error, error.traceback.rstrip(), extra=ids)
        else:
            log.error("%s", error, exc_info=error.__cause__, extra=ids)

    def replica_hung(self, node: Node, replica: int) -> None:
        log.error("op %r: replica %d hangs in process and gets no more batches until it is out", node.name, replica)


class ConsoleFormatter(logging.Formatter):
    """`12:30:01 WARNING message [data_id=7 log_id=abc]`, and the traceback below."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        data_id = getattr(record, "data_id", None)
        if data_id is None:
            return line
        first, newline, rest = line.partition("\n")
        log_id = getattr(record, "log_id", "")
        return f"{first} [data_id={data_id}{f' log_id={log_id}' if log_id else ''}]{newline}{rest}"


def to_console(level: str) -> None:
    """Send asyncline's log, and no other package's, to stderr."""
    logger = logging.getLogger("asyncline")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ConsoleFormatter())
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())
