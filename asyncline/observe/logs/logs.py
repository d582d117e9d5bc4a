"""Logs: where the server's log goes.

    pipeline.log      all of the level asked for, INFO by default
    pipeline.log.wf   WARNING and up
    pipeline.tracer   the blocks of the tracer, which are nowhere else
    pipeline.access   a line for each request, if asked for

in the folder `service.log_dir`, which one server alone writes to, and all but the last two on the console too; without
a folder, everything there.

The loggers are `asyncline` and those of the packages that the Ops come from, unless the app has set up these or the
root logger by itself: then they are the app's own affair.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

from asyncline.engine.frames import HookFrames
from asyncline.engine.lanes.worker_log import app_loggers, is_set_up
from asyncline.errors import SettingsError
from asyncline.graph.graph import Graph
from asyncline.observe.logs.enqueue import Enqueue
from asyncline.observe.logs.formats import ConsoleFormatter, FileFormatter, JsonFormatter, TracerFormatter
from asyncline.observe.logs.limit import Limit
from asyncline.observe.logs.lock import FolderLock, InUse
from asyncline.observe.logs.writer import LogFile, Targets, Writer
from asyncline.settings import ServiceSettings

LEVELS = ("debug", "info", "warning", "error")


class Logs:
    """Set up by `start`, undone by `close`. The level is the one that `asyncline`'s logger has.

    :raises SettingsError: the folder cannot be written to, or another server does.
    """

    def __init__(self, settings: ServiceSettings, graph: Graph) -> None:
        is_json = settings.log_format == "json"
        console = logging.StreamHandler(sys.stderr)
        console.setFormatter(JsonFormatter() if is_json else ConsoleFormatter())
        main: list[logging.Handler] = [console]
        tracer: list[logging.Handler] = [console]
        #: Where lines of requests go.
        self.access: Targets = (console,)
        self._closing: list[logging.Handler] = []
        self._lock: FolderLock | None = None
        folder = settings.log_dir
        if folder is not None:
            nbytes = int(settings.log_file_mb * 10**6)

            def file(name: str, formatter: logging.Formatter, level: int = 0) -> logging.Handler:
                opened = LogFile(folder / name, formatter, nbytes, settings.log_files, level)
                self._closing.append(opened)
                return opened

            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._lock = FolderLock(folder)
                text = JsonFormatter() if is_json else FileFormatter()
                main += [file("pipeline.log", text), file("pipeline.log.wf", text, logging.WARNING)]
                tracer = [file("pipeline.tracer", TracerFormatter())]
                if settings.access_log:
                    self.access = (file("pipeline.access", logging.Formatter("%(message)s")),)
            except InUse as error:
                raise SettingsError(
                    f"service.log_dir: another server ({error}) writes to {folder}: give each its own --log-dir"
                ) from None
            except OSError as error:
                self._close_files()
                raise SettingsError(f"service.log_dir: cannot write to {folder}: {error.strerror}") from error
        if self.access[0] is console and settings.access_log:
            # Its lines are made elsewhere, whatever the format.
            plain = logging.StreamHandler(sys.stderr)
            plain.setFormatter(logging.Formatter("%(message)s"))
            self.access = (plain,)
        self._limit = Limit(settings.log_limit)
        self.writer = Writer(self._limit, main)
        frames = HookFrames(graph.ops)
        self._enqueue = Enqueue(self.writer, main, self._limit, frames)
        self._enqueue_tracer = Enqueue(self.writer, tracer, Limit(0), frames)
        #: Loggers of the app that come here.
        self.apps = [name for name in app_loggers(graph.ops) if not is_set_up(name)]
        self._before: list[tuple[logging.Logger, list[logging.Handler], bool, int]] = []

    @property
    def left_out(self) -> Mapping[str, int]:
        """Lines that were not written so far, by why."""
        return {"limit": self._limit.left_out, "full": self.writer.dropped}

    def start(self) -> None:
        self.writer.start()
        level = logging.getLogger("asyncline").getEffectiveLevel()
        self._set("asyncline", self._enqueue, level, propagate=False)
        self._set("asyncline.tracer", self._enqueue_tracer, logging.NOTSET, propagate=False)
        for name in self.apps:
            self._set(name, self._enqueue, logging.getLogger(name).level or level, propagate=True)

    def _set(self, name: str, handler: logging.Handler, level: int, *, propagate: bool) -> None:
        logger = logging.getLogger(name)
        self._before.append((logger, logger.handlers[:], logger.propagate, logger.level))
        logger.handlers[:] = [handler]
        logger.propagate = propagate
        logger.setLevel(level)

    def flush(self, seconds: float) -> None:
        """Wait up to `seconds` until what has been logged is written."""
        self.writer.flush(seconds)

    def close(self) -> None:
        """Write what is left, and leave the loggers as they were."""
        for logger, handlers, propagate, level in reversed(self._before):
            logger.handlers[:] = handlers
            logger.propagate = propagate
            logger.setLevel(level)
        self._before.clear()
        self.writer.close()
        self._close_files()

    def _close_files(self) -> None:
        for handler in self._closing:
            handler.close()
        if self._lock is not None:
            self._lock.close()
