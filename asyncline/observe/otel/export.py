"""Export: hands what the timeline has to a thread, which sends it as spans."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from queue import SimpleQueue

from asyncline.engine.engine import Engine
from asyncline.errors import SettingsError
from asyncline.observe.otel.fresh import Taken
from asyncline.observe.otel.ids import Ids
from asyncline.observe.otel.sender import Sender
from asyncline.observe.statistics import Statistics
from asyncline.observe.timeline.recorder import Recorder
from asyncline.settings import ServiceSettings

log = logging.getLogger("asyncline.otel")

CLOSE_S = 2.0
"""How long a stop waits for the last spans to be taken."""


class Export:
    """Each second hands to its thread what the timeline has, where that is done with what it got before.

    The timeline is the queue: bounded, and what it had to let go of before its turn came is counted as lost.

    :raises SettingsError: the extra is not installed, or the timeline is off.
    """

    def __init__(
        self, engine: Engine, recorder: Recorder | None, statistics: Statistics, settings: ServiceSettings
    ) -> None:
        if recorder is None:
            raise SettingsError("service.otel_endpoint exports what the timeline has: dag.timeline_mb is 0")
        self._engine = engine
        self._recorder = recorder
        self._statistics = statistics
        engine.spans = ids = Ids(settings.otel_sample_ratio)
        self.sender = Sender(engine.plan, ids, settings)
        self._is_busy = False
        self._is_cut = False
        #: None: the end.
        self._queue: SimpleQueue[Taken | None] = SimpleQueue()
        self._ended: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._work, name="asyncline otel", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._thread.start()

    def tick(self) -> None:
        """Hand over what there is, unless the thread is still at the last of it."""
        if not self._is_busy:
            self._is_busy = True
            self._queue.put(take(self._engine, self._recorder, self._statistics))

    def close(self) -> None:
        """Hand over the last of it."""
        if self._ended is not None:
            self._queue.put(take(self._engine, self._recorder, self._statistics))
            self._queue.put(None)

    async def wait_closed(self) -> None:
        """Wait until the last spans are taken, for `CLOSE_S` at most."""
        if self._ended is None:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._ended.wait()
        except TimeoutError:
            self._is_cut = True
            where = self.sender.where
            log.warning("the last spans were not taken by %s within %g s, and are lost", where, CLOSE_S)
        self.sender.close()

    def _work(self) -> None:
        while (taken := self._queue.get()) is not None and not self._is_cut:
            try:
                self.sender.send(taken)
            except Exception:  # one pass must not end the others
                log.exception("spans cannot be exported")
            self._is_busy = False
            del taken  # not kept while the thread waits for the next
        assert self._ended is not None
        try:
            self._loop.call_soon_threadsafe(self._ended.set)
        except RuntimeError:
            pass  # the loop is closed: nobody waits


def take(engine: Engine, recorder: Recorder, statistics: Statistics) -> Taken:
    """What there is now; call it on the loop."""
    statistics.fold()
    done = sum(statistics.outcomes.values())
    return Taken(recorder.records(), engine.clock(), time.time_ns(), done, engine.contexts())
