"""Admin: what an operator may look into, and turn, on a live server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from asyncline.engine.engine import Engine
from asyncline.errors import BadRequest, Overloaded
from asyncline.observe import stacks
from asyncline.observe.leaks.bundle import Busy, traced
from asyncline.observe.leaks.watch import LeakWatch
from asyncline.observe.logs.logs import LEVELS, Logs
from asyncline.settings import Settings


class Admin:
    """Answers for `/admin`. What takes long is returned as a function, to be called in a thread."""

    def __init__(self, engine: Engine, settings: Settings, logs: Logs | None, leaks: LeakWatch | None) -> None:
        self._engine = engine
        self._settings = settings
        self._logs = logs
        self._leaks = leaks
        self._closed = threading.Event()

    def settings(self) -> dict[str, Any]:
        """Those in force, as YAML has them; a secret is stars. And `sources`: where each was written."""
        return {**self._settings.model_dump(mode="json"), "sources": self._settings.sources()}

    def stacks(self) -> Callable[[], str]:
        """What all threads and tasks of the process are doing; call this on the loop."""
        tasks = stacks.tasks()
        return lambda: f"{stacks.threads()}\n{tasks}"

    @property
    def log_level(self) -> str:
        return logging.getLevelName(logging.getLogger("asyncline").getEffectiveLevel()).lower()

    def set_log_level(self, level: str) -> None:
        """Of asyncline's log and the app's, in the processes of the CPU pool too.

        :raises BadRequest: there is no such level.
        """
        if level not in LEVELS:
            raise BadRequest(f"no log level {level[:16]!r}: use {', '.join(LEVELS)}")
        for name in ("asyncline", *(self._logs.apps if self._logs is not None else ())):
            logging.getLogger(name).setLevel(level.upper())
        self._engine.note_log_levels()

    def allocations(self, seconds: float) -> Callable[[], str]:
        """What is allocated from now on and not freed within some seconds, by line of code."""

        def trace() -> str:
            try:
                return traced(seconds, self._closed)
            except Busy:
                raise Overloaded("allocations are being traced already: ask again", retry_after_s=10) from None

        return trace

    def leaks(self) -> dict[str, Any] | None:
        """What the leak watch sees; None where there is none."""
        return None if self._leaks is None else self._leaks.figures()

    def close(self) -> None:
        """End a trace that is being taken."""
        self._closed.set()
