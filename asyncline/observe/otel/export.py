"""Export: spans to an OpenTelemetry collector, by a thread of its own."""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
import time
import uuid
from collections import Counter
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from asyncline.engine.engine import Engine
from asyncline.errors import SettingsError
from asyncline.observe.otel.fresh import Fresh, Taken
from asyncline.observe.otel.ids import Ids
from asyncline.observe.statistics import Statistics
from asyncline.observe.timeline.recorder import Recorder
from asyncline.settings import ServiceSettings, headers_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger("asyncline.otel")

PATH = "/v1/traces"
"""Of OTLP/HTTP, under the endpoint."""
MOST_SPANS = 1_000
"""Made in one go, which is a second: the thread shares the interpreter with the loop, and a span takes 60 µs of it."""
CHUNK = 128
"""Spans of one message to the collector."""
TIMEOUT_S = 5.0
"""How long the collector may take for a message, with all tries; the timeline keeps what ends meanwhile."""
CLOSE_S = 2.0
"""How long a stop waits for the last spans to be taken."""


class Export:
    """Each second hands to its thread what the timeline has, where that is done with what it got before.

    The timeline is the queue: bounded, and what it had to let go of before its turn came is counted as lost.

    :param exporter: by default the one of OTLP over HTTP, to the endpoint of the settings.
    :raises SettingsError: the extra is not installed, or the timeline is off.
    """

    def __init__(
        self,
        engine: Engine,
        recorder: Recorder | None,
        statistics: Statistics,
        settings: ServiceSettings,
        exporter: SpanExporter | None = None,
    ) -> None:
        if recorder is None:
            raise SettingsError("service.otel_endpoint exports what the timeline has: dag.timeline_mb is 0")
        assert settings.otel_endpoint is not None
        self._engine = engine
        self._recorder = recorder
        self._statistics = statistics
        self._where = urlsplit(settings.otel_endpoint).hostname
        self._ids = Ids(settings.otel_sample_ratio)
        try:
            # Here, where nothing runs yet: it takes a good while.
            spans: Any = importlib.import_module("asyncline.observe.otel.spans")
            self._exporter = exporter or _otlp(settings)
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("opentelemetry"):
                raise
            raise SettingsError(
                "service.otel_endpoint needs OpenTelemetry's SDK: pip install 'asyncline[otel]'"
            ) from None
        from asyncline import __version__

        of = spans.resource(engine.graph.name, str(uuid.uuid4()), __version__)
        self._maker = spans.Maker(engine.plan, self._ids, of, __version__)
        self._fresh = Fresh()
        self._reasons = _Reasons()
        #: Spans that the collector has taken.
        self.exported = 0
        #: Requests whose spans were not exported though they may have been sampled, by why.
        self.lost: Counter[str] = Counter(timeline=0, limit=0, collector=0)
        self._is_told = False
        self._is_busy = False
        self._is_cut = False
        #: None: the end.
        self._queue: SimpleQueue[Taken | None] = SimpleQueue()
        self._ended: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._work, name="asyncline otel", daemon=True)
        engine.spans = self._ids

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        logging.getLogger("opentelemetry").addHandler(self._reasons)
        self._thread.start()

    def tick(self) -> None:
        """Hand over what there is, unless the thread is still at the last of it."""
        if not self._is_busy:
            self._is_busy = True
            self._queue.put(self._take())

    def _take(self) -> Taken:
        engine, statistics = self._engine, self._statistics
        statistics.fold()
        done = sum(statistics.outcomes.values())
        return Taken(self._recorder.records(), engine.clock(), time.time_ns(), done, engine.contexts())

    def close(self) -> None:
        """Hand over the last of it."""
        if self._ended is not None:
            self._queue.put(self._take())
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
            self._exporter.shutdown()  # which ends its waiting
            log.warning("the last spans were not taken by %s within %.0f s, and are lost", self._where, CLOSE_S)
        logging.getLogger("opentelemetry").removeHandler(self._reasons)

    # -- the thread -----------------------------------------------------------------------------------

    def _work(self) -> None:
        while (taken := self._queue.get()) is not None:
            try:
                self._export(taken)
            except Exception:  # one pass must not end the others
                log.exception("spans cannot be exported")
            self._is_busy = False
            del taken  # not kept while the thread waits for the next
        if not self._is_cut:
            self._exporter.shutdown()
        assert self._ended is not None
        try:
            self._loop.call_soon_threadsafe(self._ended.set)
        except RuntimeError:
            pass  # the loop is closed: nobody waits

    def _export(self, taken: Taken) -> None:
        items, batches, missed = self._fresh.pick(taken)
        self.lost["timeline"] += missed
        sampled = [item for item in items if self._ids.is_sampled(item.data_id, item.traceparent)]
        per_request = 1 + len(taken.records.plan.nodes)
        chosen = sampled[:: -(-len(sampled) * per_request // MOST_SPANS) or 1]
        self.lost["limit"] += len(sampled) - len(chosen)
        batches = batches[:: -(-len(batches) // MOST_SPANS) or 1]
        chunk: list[ReadableSpan] = []
        requests = 0
        for count, spans in self._maker.make(taken, chosen, batches):
            if len(chunk) + len(spans) > CHUNK:
                self._send(chunk, requests)
                chunk, requests = [], 0
            chunk += spans
            requests += count
            time.sleep(0)  # the loop has its turn
        if chunk:
            self._send(chunk, requests)

    def _send(self, spans: list[ReadableSpan], requests: int) -> None:
        if self._exporter.export(spans).name == "SUCCESS":
            self.exported += len(spans)
            if self._is_told:
                self._is_told = False
                log.info("the collector at %s takes spans again", self._where)
            return
        self.lost["collector"] += requests
        if not self._is_told:
            self._is_told = True
            log.warning("the collector at %s does not take spans, which are lost: %s", self._where, self._reasons.last)


class _Reasons(logging.Handler):
    """Keeps what OpenTelemetry's SDK said last, of which there is one line for each try."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


def _otlp(settings: ServiceSettings) -> SpanExporter:
    from asyncline.observe.otel.spans import OTLPSpanExporter

    endpoint = (settings.otel_endpoint or "").rstrip("/")
    if not endpoint.endswith(PATH):
        endpoint += PATH
    headers = None if settings.otel_headers is None else headers_of(settings.otel_headers.get_secret_value())
    return OTLPSpanExporter(endpoint=endpoint, headers=headers, timeout=TIMEOUT_S)
