"""Log lines: every one of an Item carries its data_id and log_id."""

from __future__ import annotations

import logging
import sys

from asyncline.engine.hooks import Observer
from asyncline.engine.item import Item
from asyncline.errors import OpError, RequestError
from asyncline.graph.plan import Node
from asyncline.observe.logs.formats import ConsoleFormatter

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


def to_console(level: str) -> None:
    """Send asyncline's log, and no other package's, to stderr: what comes before there are settings for `Logs`."""
    logger = logging.getLogger("asyncline")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ConsoleFormatter())
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())
