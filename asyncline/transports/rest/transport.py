"""RestTransport: HTTP/1.1 in front of one Engine."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.resources import files
from typing import Any, NoReturn, TypeVar, cast

from aiohttp import ClientConnectionError, web
from aiohttp.http import HttpProcessingError

from asyncline.engine.engine import Engine
from asyncline.engine.item import Item
from asyncline.errors import (
    BadRequest,
    NotFound,
    OpError,
    Overloaded,
    RequestError,
    SlowClient,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
    hook_error,
)
from asyncline.settings import ServiceSettings
from asyncline.transports.base import Transport
from asyncline.transports.guard.guard import ConnGuard, Ticket
from asyncline.transports.guard.listener import Listener
from asyncline.transports.rest.answer import JSON, Answer, error_answer, id_lines
from asyncline.transports.rest.body import BodyDecoder
from asyncline.transports.rest.connection import Connection
from asyncline.transports.rest.events import EVENTS, EventStream
from asyncline.transports.rest.openapi import openapi
from asyncline.transports.rest.paddle import PaddleRoute
from asyncline.transports.timing import Timing
from asyncline.wire import json, msgpack

log = logging.getLogger("asyncline.rest")

MSGPACK = "application/msgpack"
DOCS = files("asyncline.transports.rest").joinpath("docs.html").read_bytes()
_LOG_ID = re.compile(r"[\x20-\x7e]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

_T = TypeVar("_T")
Page = Callable[[web.BaseRequest], Awaitable[Answer]]


class MethodNotAllowed(RequestError):
    """The client's: a route that exists, with another method."""

    code = "method_not_allowed"

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class RestTransport(Transport):
    """`POST /{graph}` and the server's own pages.

    :param metrics: renders `/metrics`, in Prometheus's text format.
    :param guard: that of the server; one of its own by default.
    """

    def __init__(
        self, engine: Engine, settings: ServiceSettings, metrics: Callable[[], bytes], guard: ConnGuard | None = None
    ) -> None:
        self._engine = engine
        guard = guard or ConnGuard(engine, settings)
        self._limits = guard.limits
        self._settings = settings
        self._max_body = int(settings.max_body_mb * 10**6)
        self._token = settings.auth_token.get_secret_value().encode() if settings.auth_token else None
        self._metrics = metrics
        self._decoder = BodyDecoder(engine.graph.request)
        self._timing = Timing(engine.plan)
        self._graph_path = f"/{engine.graph.name}"
        #: Pages by path, and whether they need the token.
        self._pages: dict[str, tuple[Page, bool]] = {
            "/": (self._index, False),
            "/healthz": (self._healthz, False),
            "/readyz": (self._readyz, False),
            "/openapi.json": (self._openapi, False),
            "/docs": (self._docs, False),
            "/metrics": (self._metrics_page, True),
        }
        self._paddle = PaddleRoute(engine, self)
        self._draining = False
        self._listener = Listener(guard, "rest", self._connect)
        self._server: web.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = web.Server(
            self._handle,
            request_factory=partial(web.BaseRequest, loop=loop, client_max_size=self._max_body),
            handler_cancellation=True,  # a client that leaves cancels its Item
        )
        await self._listener.start(self._settings, self._settings.http_port, self._settings.http_fd)

    def _connect(self, ticket: Ticket) -> Connection:
        assert self._server is not None
        return Connection(self._server, ticket, self._refuse)

    @property
    def address(self) -> str:
        return f"{'http' if self._settings.tls_cert is None else 'https'}://{self._listener.place}"

    def close(self) -> None:
        self._draining = True
        self._listener.close()

    async def wait_closed(self) -> None:
        if self._server is None:
            return
        await self._listener.wait_closed()
        connections = cast(list[Connection], self._server.connections)
        for connection in connections:
            connection.because("stopping")
        self._server.pre_shutdown()
        await self._server.shutdown(timeout=self._limits.linger_s)
        closing = [asyncio.ensure_future(connection.wait_closed()) for connection in connections]
        if closing:
            await asyncio.wait(closing, timeout=self._limits.linger_s)
            for connection in connections:
                connection.abort("stopping")  # what its client has not taken by now is lost
            await asyncio.wait(closing)

    # -- one request --------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> Answer | EventStream:
        path = request.path
        try:
            if path == self._graph_path and request.method == "POST":
                return await self._infer(request)
            if (found := self._paddle.match(path)) is not None:
                return await self._paddle(request, *found)
            page, secret = self._page(path, request.method)
            if secret:
                self._authenticate(request)
            return await page(request)
        except RequestError as error:
            if not isinstance(error, (Overloaded, Unavailable)):  # those are counted where they are raised
                self._engine.note_rejected(error)
            headers = f"Allow: {error.allowed}\r\n" if isinstance(error, MethodNotAllowed) else ""
            if _LOG_ID.fullmatch(log_id := request.headers.get("X-Log-Id", "")):
                headers += f"X-Log-Id: {log_id}\r\n"
            unread = not request.content.is_eof()
            return error_answer(error, next(self._engine.ids), headers, close=self._draining or unread)
        except (ConnectionError, asyncio.CancelledError):
            raise  # the client is gone: nobody to answer
        except Exception:
            request_id = next(self._engine.ids)
            log.exception("request %s: the server failed", request_id)
            return error_answer(OpError("the server failed; its log says how"), request_id, close=True)

    def _refuse(self, error: RequestError) -> Answer:
        """The answer to what is no request."""
        self._engine.note_rejected(error)
        return error_answer(error, next(self._engine.ids), close=True)

    def _page(self, path: str, method: str) -> tuple[Page, bool]:
        if path == self._graph_path:
            raise MethodNotAllowed(f"{method[:16]} is not allowed here: POST the request", "POST")
        found = self._pages.get(path)
        if found is None:
            if method == "POST":
                raise NotFound(f"there is no graph {path[1:65]!r} (there is: {self._engine.graph.name})")
            raise NotFound("there is no such page: see / for a list")
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{method[:16]} is not allowed here: GET the page", "GET, HEAD")
        return found

    async def _infer(self, request: web.BaseRequest) -> Answer | EventStream:
        headers = request.headers
        engine = self._engine
        reserved = self.admit(request)
        try:
            kind = headers.get("Content-Type", "")
            if kind.startswith("multipart/"):
                payload = await self._receive(request, self._read_form)
            elif request.content.is_eof():
                # Nearly always it came in one piece with its head: nothing to wait for, so no timer.
                payload = self._decoder.decode(self._whole(request.content.read_nowait()), kind)
            else:
                payload = self._decoder.decode(await self._receive(request, self._read_whole), kind)
            log_id = headers.get("X-Log-Id", "")
            if log_id and not _LOG_ID.fullmatch(log_id):
                raise BadRequest("header X-Log-Id: expected at most 128 printable ASCII characters")
            accept = headers.get("Accept")
            events = None
            if accept is not None and EVENTS in accept:
                events = EventStream(request, self._timing, close=self._draining)
            item = engine.begin(
                payload,
                timeout_s=self._timeout_s(headers.get("X-Timeout-Ms")),
                log_id=log_id,
                traceparent=self._traceparent(headers.get("traceparent")),
                priority=self._priority(headers.get("X-Priority")),
                on_part=None if events is None else events.on_part,
                on_done=None if events is None else events.on_done,
            )
            if events is not None:
                await events.run(item)
            elif not item.done:
                await item.wait()
        finally:
            engine.admission.release(reserved)
        if events is not None and events.has_begun:
            if self._draining:
                events.force_close()
            return events
        return self._answer(item, accept)

    # -- for the routes

    @property
    def is_draining(self) -> bool:
        return self._draining

    def admit(self, request: web.BaseRequest) -> int:
        """Let a request in; the bytes of the budget that it holds until they are released.

        :raises RequestError: it is refused at the door.
        """
        if self._token is not None:
            self._authenticate(request)
        engine = self._engine
        if engine.state != "ready":
            engine.note_rejected(refusal := Unavailable(f"the server is {engine.state}"))
            raise refusal
        length = request.content_length
        if length is not None and length > self._max_body:
            raise TooLarge(f"a body of {length} bytes is over the limit of {self._max_body}")
        if "Content-Encoding" in request.headers:
            raise Unsupported("a compressed body is not accepted: send it as it is")
        # A body without a length may be as long as the limit. The budget is taken before it is read.
        reserved = length if length is not None else self._max_body if request.can_read_body else 0
        try:
            engine.admission.reserve(reserved)
        except RequestError as error:
            engine.note_rejected(error)
            raise
        return reserved

    async def body(self, request: web.BaseRequest) -> bytes:
        """The whole body of a request that was let in.

        :raises RequestError: it is malformed, too large or too slow.
        """
        if request.content.is_eof():
            return self._whole(request.content.read_nowait())
        return await self._receive(request, self._read_whole)

    def options(self, headers: Mapping[str, str]) -> dict[str, Any]:
        """What the headers say to `Engine.begin`, beside the log_id.

        :raises BadRequest: one is malformed.
        """
        return {
            "timeout_s": self._timeout_s(headers.get("X-Timeout-Ms")),
            "traceparent": self._traceparent(headers.get("traceparent")),
            "priority": self._priority(headers.get("X-Priority")),
        }

    def about(self, item: Item) -> str:
        """Headers that tell an Item's ids, and where its time went."""
        return f"{id_lines(item)}Server-Timing: {self._timing.text(item)}\r\n"

    async def _receive(self, request: web.BaseRequest, read: Callable[[web.BaseRequest], Awaitable[_T]]) -> _T:
        """Wait for the rest of the body, within bounds."""
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection = cast(Connection, request.protocol)
        try:
            async with connection.receiving(request.content):
                return await read(request)
        except TimeoutError:
            raise SlowClient(self._limits.slow_upload) from None
        except (HttpProcessingError, web.RequestPayloadError, ClientConnectionError) as error:
            raise BadRequest(f"the body is malformed: {error}") from None
        finally:
            connection.received()

    async def _read_form(self, request: web.BaseRequest) -> Any:
        return await self._decoder.form(request, self._max_body)

    async def _read_whole(self, request: web.BaseRequest) -> bytes:
        try:
            return self._whole(await request.read())
        except web.HTTPRequestEntityTooLarge:
            raise TooLarge(f"the body is over the limit of {self._max_body} bytes") from None

    def _whole(self, body: bytes) -> bytes:
        if len(body) > self._max_body:
            raise TooLarge(f"the body is over the limit of {self._max_body} bytes")
        return body

    def _priority(self, header: str | None) -> int:
        if header is None:
            return 1
        lowest = self._settings.priorities
        if not (header.isascii() and header.isdigit() and len(header) <= 2 and 1 <= int(header)):
            raise BadRequest("header X-Priority: expected a whole number, 1 for the highest priority")
        return min(int(header), lowest)

    @staticmethod
    def _timeout_s(header: str | None) -> float | None:
        if header is None:
            return None
        if not (header.isascii() and header.isdigit() and len(header) <= 9 and int(header) >= 1):
            raise BadRequest("header X-Timeout-Ms: expected a whole number of milliseconds")
        return int(header) / 1e3

    @staticmethod
    def _traceparent(header: str | None) -> str | None:
        # The W3C recommendation: what does not parse is ignored, not refused.
        return header if header is not None and _TRACEPARENT.fullmatch(header) else None

    def _answer(self, item: Item, accept: str | None) -> Answer:
        ids = self.about(item)
        error = item.error
        if error is None:
            try:
                if accept is not None and MSGPACK in accept:
                    packed = msgpack.encode(item.value, tensors=msgpack.TENSORS in accept)
                    return Answer(200, packed, MSGPACK, ids, close=self._draining)
                return Answer(200, json.encode(item.value), JSON, ids, close=self._draining)
            except RequestError as unwritable:
                error = unwritable
            except Exception as unexpected:
                error = hook_error(unexpected, "response", "encode")
        return error_answer(error, item.data_id, ids, close=self._draining)

    def _authenticate(self, request: web.BaseRequest) -> None:
        if self._token is None:
            return
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(
            token.strip().encode(errors="surrogateescape"), self._token
        ):
            self._refuse_token()

    @staticmethod
    def _refuse_token() -> NoReturn:
        raise Unauthenticated("a bearer token is required: send Authorization: Bearer TOKEN")

    # -- pages --------------------------------------------------------------------------------------

    async def _index(self, request: web.BaseRequest) -> Answer:
        name = self._engine.graph.name
        lines = [
            f"asyncline serves graph {name!r}",
            "",
            f"POST /{name}        run it: {self._decoder.accepted()}",
            *([f"                    part by part with Accept: {EVENTS}"] if self._engine.plan.streams else []),
            "GET  /docs          try it from the browser",
            "GET  /openapi.json  its description",
            "GET  /metrics       counts and times, for Prometheus",
            "GET  /healthz       200 while the process lives",
            "GET  /readyz        200 while it can serve",
            "",
        ]
        return Answer(200, "\n".join(lines).encode(), "text/plain; charset=utf-8")

    async def _healthz(self, request: web.BaseRequest) -> Answer:
        return Answer(200, json.encode({"status": "ok"}), JSON)

    async def _readyz(self, request: web.BaseRequest) -> Answer:
        problem = self._engine.problem()
        body = json.encode({"status": "ready"} if problem is None else {"status": "not ready", "reason": problem})
        return Answer(200 if problem is None else 503, body, JSON, close=self._draining)

    async def _metrics_page(self, request: web.BaseRequest) -> Answer:
        return Answer(200, self._metrics(), "text/plain; version=0.0.4; charset=utf-8")

    async def _openapi(self, request: web.BaseRequest) -> Answer:
        description = openapi(self._engine.graph, self._decoder, has_token=self._token is not None)
        return Answer(200, json.encode(description), JSON)

    async def _docs(self, request: web.BaseRequest) -> Answer:
        return Answer(200, DOCS, "text/html; charset=utf-8")
