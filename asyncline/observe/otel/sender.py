"""Sender: makes spans of what it is handed, and sends them to the collector. Of the thread of Export, all of it."""

from __future__ import annotations

import importlib
import logging
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from asyncline.errors import SettingsError
from asyncline.graph.plan import Plan
from asyncline.observe.otel.fresh import Fresh, Taken
from asyncline.observe.otel.ids import Ids
from asyncline.settings import ServiceSettings, headers_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

    from asyncline.observe.otel.spans import Maker

log = logging.getLogger("asyncline.otel")

PATH = "/v1/traces"
"""Of OTLP/HTTP, under the endpoint."""
MOST_SPANS = 1_000
"""Made in one go, which is a second: the thread shares the interpreter with the loop, and a span takes 40 µs of it."""
CHUNK = 128
"""Spans of one message to the collector."""
TIMEOUT_S = 5.0
"""How long the collector may take for a message, with all tries; the timeline keeps what ends meanwhile."""


class Sender:
    """Sends what is fresh of each Taken.

    :param exporter: by default the one of OTLP over HTTP, to the endpoint of the settings.
    :raises SettingsError: the extra is not installed.
    """

    def __init__(self, plan: Plan, ids: Ids, settings: ServiceSettings, exporter: SpanExporter | None = None) -> None:
        try:
            self._spans: Any = importlib.import_module("asyncline.observe.otel.spans")
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("opentelemetry"):
                raise
            raise SettingsError(
                "service.otel_endpoint needs OpenTelemetry's SDK: pip install 'asyncline[otel]'"
            ) from None
        self._plan = plan
        self._ids = ids
        self._settings = settings
        self.where = urlsplit(settings.otel_endpoint or "").hostname
        self._exporter = exporter
        self._maker: Maker | None = None
        self._fresh = Fresh(ids)
        self._reasons = _Reasons()
        self._is_told = False
        #: Spans that the collector has taken.
        self.exported = 0
        #: Requests whose spans were not exported though they may have been sampled, by why.
        self.lost: Counter[str] = Counter(timeline=0, limit=0, collector=0)

    def send(self, taken: Taken) -> None:
        """Make the spans, and wait until the collector has taken them, or not."""
        maker = self._maker or self._open()
        sampled, batches, missed = self._fresh.pick(taken)
        self.lost["timeline"] += missed
        chosen = sampled[:: _stride(len(sampled) * (1 + len(self._plan.nodes)))]
        self.lost["limit"] += len(sampled) - len(chosen)
        chunk: list[ReadableSpan] = []
        requests = 0
        for count, spans in maker.make(taken, chosen, batches[:: _stride(len(batches))]):
            if len(chunk) + len(spans) > CHUNK:
                self._export(chunk, requests)
                chunk, requests = [], 0
            chunk += spans
            requests += count
            time.sleep(0)  # the loop has its turn
        if chunk:
            self._export(chunk, requests)

    def _open(self) -> Maker:
        """Not sooner: it takes a while, and looks around in the system."""
        from asyncline import __version__

        logging.getLogger("opentelemetry").addHandler(self._reasons)
        of = self._spans.resource(self._plan.graph.name, str(uuid.uuid4()), __version__)
        made: Maker = self._spans.Maker(self._plan, self._ids, of, __version__)
        self._maker = made
        if self._exporter is None:
            endpoint = (self._settings.otel_endpoint or "").rstrip("/")
            if not endpoint.endswith(PATH):
                endpoint += PATH
            secret = self._settings.otel_headers
            headers = None if secret is None else headers_of(secret.get_secret_value())
            self._exporter = self._spans.OTLPSpanExporter(endpoint=endpoint, headers=headers, timeout=TIMEOUT_S)
        return made

    def _export(self, spans: list[ReadableSpan], requests: int) -> None:
        assert self._exporter is not None
        if self._exporter.export(spans).name == "SUCCESS":
            self.exported += len(spans)
            if self._is_told:
                self._is_told = False
                log.info("the collector at %s takes spans again", self.where)
            return
        self.lost["collector"] += requests
        if not self._is_told:
            self._is_told = True
            log.warning("the collector at %s does not take spans, which are lost: %s", self.where, self._reasons.last)

    def close(self) -> None:
        """Any thread may call it, once: then `send` tries nothing again, and ends soon."""
        if self._exporter is not None:
            self._exporter.shutdown()
        logging.getLogger("opentelemetry").removeHandler(self._reasons)


def _stride(spans: int) -> int:
    """Of every how many one is made, so that there are no more than may be."""
    return max(1, -(-spans // MOST_SPANS))


class _Reasons(logging.Handler):
    """Keeps what OpenTelemetry's SDK said last, which says it for each try."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()
