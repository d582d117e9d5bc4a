"""Log records of the CPU pool's processes, brought to the server's loggers of the same names.

They go through a socket pair that all workers share, one packet each and at once, so that the last words of a process
that dies are not lost. The kernel bounds what waits there: what has no room is dropped, and counted.
"""

from __future__ import annotations

import asyncio
import logging
import marshal
import os
import socket
import sys
import traceback
from collections.abc import Iterable, Mapping

from asyncline.engine.context import current
from asyncline.engine.frames import HookFrames
from asyncline.graph.op import Op

MOST_CHARACTERS = 16_000
"""Of a message, and of a traceback; the rest is cut off."""
PACKET_BYTES = 2 * 4 * MOST_CHARACTERS + 4096
MOST_AT_ONCE = 100
"""Records that are passed on before the loop has its turn."""
_FIELDS = ("data_id", "log_id", "op", "hook")


def app_loggers(ops: Iterable[Op]) -> list[str]:
    """Names of the loggers of the packages that the Ops come from."""
    return sorted({type(op).__module__.partition(".")[0] for op in ops} - {"asyncline"})


def is_set_up(name: str) -> bool:
    """Whether the app has set up that logger, or the root logger, by itself."""
    return bool(logging.getLogger().handlers or logging.getLogger(name).handlers)


def levels(ops: Iterable[Op]) -> dict[str, int]:
    """By logger: what a worker need not send is below that."""
    return {name: logging.getLogger(name).getEffectiveLevel() for name in ("asyncline", *app_loggers(ops))}


class SendRecords(logging.Handler):
    """In a worker: what its loggers write goes to the server."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._dropped = 0
        self._frames = HookFrames(())

    def attach(self, wanted: Mapping[str, int]) -> None:
        for name, level in wanted.items():
            logger = logging.getLogger(name)
            if self not in logger.handlers:
                if name != "asyncline" and is_set_up(name):
                    continue
                logger.addHandler(self)
                logger.propagate = False
            logger.setLevel(level)

    def know(self, ops: Iterable[Op]) -> None:
        """Whose hooks run here."""
        self._frames = HookFrames(ops)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text, trace = record.getMessage(), ""
            if record.exc_info:
                trace = "".join(traceback.format_exception(*record.exc_info)).rstrip()
            call = current.get()
            fields: dict[str, int | str] = {}
            if call is not None:
                op, hook = self._frames.find(sys._getframe())
                fields = {"data_id": call.data_id, "log_id": call.log_id, "op": op, "hook": hook}
            fields |= {key: value for key in _FIELDS if isinstance(value := getattr(record, key, None), int | str)}
            packet = marshal.dumps(
                (record.name, record.levelno, record.created, record.pathname, record.lineno, text[:MOST_CHARACTERS],
                 trace[-MOST_CHARACTERS:], record.process, fields, self._dropped)
            )  # fmt: skip
            try:
                os.write(self._descriptor, packet)
                self._dropped = 0
            except OSError:  # full, or the server is gone
                self._dropped += 1
        except Exception:
            self.handleError(record)


class RecordsSocket:
    """In the server: hands what workers send to the loggers here."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._ours, self._readable)

    @property
    def descriptor(self) -> int:
        """For workers."""
        return self._theirs.fileno()

    def _readable(self, most: int = MOST_AT_ONCE) -> None:
        for _ in range(most):
            try:
                packet = self._ours.recv(PACKET_BYTES)
            except BlockingIOError:
                return
            if not packet:
                return
            _pass_on(*marshal.loads(packet))

    def close(self) -> None:
        """Pass on what is there; the workers have ended."""
        self._loop.remove_reader(self._ours)
        self._theirs.close()
        self._readable(10 * MOST_AT_ONCE)
        self._ours.close()


def _pass_on(
    name: str, level: int, created: float, path: str, line: int, text: str, trace: str, process: int,
    fields: Mapping[str, int | str], dropped: int,
) -> None:  # fmt: skip
    logger = logging.getLogger(name)
    if dropped:
        logger.warning("%d log lines of a worker process were dropped: they came too fast", dropped)
    if not logger.isEnabledFor(level):
        return
    record = logging.LogRecord(name, level, path, line, text, None, None)
    record.created = created
    record.process = process
    record.exc_text = trace or None
    record.__dict__.update(fields)
    logger.handle(record)
