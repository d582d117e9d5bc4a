"""Captures: timelines of single requests, as files: of those that were slow or failed."""

from __future__ import annotations

import asyncio
import logging
import re
import time

from asyncline.engine.engine import Engine
from asyncline.engine.hooks import Observer
from asyncline.engine.item import TOTAL, Item
from asyncline.errors import SettingsError
from asyncline.observe.gathering import code_label
from asyncline.observe.timeline.chrome import encoded
from asyncline.observe.timeline.kept import Kept
from asyncline.observe.timeline.recorder import Recorder
from asyncline.settings import ServiceSettings

log = logging.getLogger("asyncline.timeline")

MOST_FILES = 100
"""The oldest are deleted for new ones."""
MOST_NBYTES = 4_000_000
"""Larger timelines are not written."""
INTERVAL_S = 1.0
"""At most one is written in this time; what else was slow is in the timeline as ever."""
SETTLE_S = 0.1
"""How long after its outcome: what was running for it is over soon."""
SUFFIX = ".trace.json"


class Captures(Observer):
    """Writes the timeline of a request that took longer than `trace_slow_ms`, or failed where `trace_errors` is set.

    :param recorder: has what is written.
    :raises SettingsError: the folder cannot be made.
    """

    def __init__(self, engine: Engine, recorder: Recorder, settings: ServiceSettings) -> None:
        self._engine = engine
        self._recorder = recorder
        self._slow_s = float("inf") if settings.trace_slow_ms is None else settings.trace_slow_ms / 1e3
        self._errors = settings.trace_errors
        self._folder = settings.trace_dir
        self._prefix = re.sub(r"[^\w-]", "_", engine.graph.name, flags=re.ASCII)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"service.trace_dir: cannot make {self._folder}: {error.strerror}") from error
        self._free_at = 0.0
        self._pending: tuple[asyncio.TimerHandle, Item] | None = None

    def item_done(self, item: Item) -> None:
        if item.times[TOTAL] < self._slow_s and not (self._errors and item.error is not None):
            return
        now = self._engine.clock()
        if now < self._free_at:
            return
        self._free_at = now + INTERVAL_S
        self._pending = self._engine.loop.call_later(SETTLE_S, self._capture), item

    def _capture(self) -> None:
        assert self._pending is not None
        (_, item), self._pending = self._pending, None
        code = "ok" if item.error is None else code_label(item.error)
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{self._prefix}-{item.data_id}-{code}-{item.times[TOTAL] * 1e3:.0f}ms"
        self._engine.loop.run_in_executor(None, self._write, name, self._recorder.records(), item.data_id)

    def _write(self, name: str, kept: Kept, data_id: int) -> None:
        """Of the thread."""
        try:
            trace = encoded(kept.of(data_id))
            if len(trace) > MOST_NBYTES:
                log.warning("the timeline of request %d has %d bytes and is not written", data_id, len(trace))
                return
            files = sorted(self._folder.glob(f"*{SUFFIX}"), key=lambda path: path.name)
            for path in files[: max(0, len(files) + 1 - MOST_FILES)]:
                path.unlink(missing_ok=True)
            unfinished = self._folder / f"{name}.part"
            unfinished.write_bytes(trace)
            path = unfinished.rename(self._folder / f"{name}{SUFFIX}")
        except OSError as error:
            log.warning("the timeline of request %d cannot be written: %s", data_id, error.strerror)
        else:
            log.info("timeline of request %d: %s", data_id, path, extra={"data_id": data_id})

    def close(self) -> None:
        """Write what is waiting for it, in the loop's executor."""
        if self._pending is not None:
            self._pending[0].cancel()
            self._capture()
