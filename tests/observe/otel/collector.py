"""A collector of OpenTelemetry that takes OTLP over HTTP, and what it was told."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Collector:
    """Decodes what comes; `answer` may refuse it first."""

    def __init__(self) -> None:
        self.url = ""
        self.answer: Answer | None = None
        self.requests: list[web.Request] = []
        self.resources: list[dict[str, Any]] = []
        self.spans: list[Span] = []
        self._changed = asyncio.Event()

    async def take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append(request)
        if self.answer is None:
            if request.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            message = ExportTraceServiceRequest.FromString(body)
            for of in message.resource_spans:
                self.resources.append(attributes(of.resource.attributes))
                for scope in of.scope_spans:
                    assert scope.scope.name == "asyncline"
                    self.spans += scope.spans
        self._changed.set()
        self._changed.clear()
        return web.Response() if self.answer is None else await self.answer(request)

    async def until(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await self._changed.wait()

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Span:
        (span,) = self.named(name)
        return span


def attributes(of: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in of if isinstance(pair, KeyValue)}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()
