"""RestTransport: HTTP/1.1 in front of one Engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache, partial
from importlib.resources import files
from typing import Any, cast

from aiohttp import web

from asyncline.engine.engine import Engine
from asyncline.engine.item import Item
from asyncline.errors import NotFound, OpError, Overloaded, RequestError, Unsupported, hook_error
from asyncline.settings import ServiceSettings
from asyncline.transports.base import Transport
from asyncline.transports.guard.guard import ConnGuard, Ticket
from asyncline.transports.guard.listener import Listener
from asyncline.transports.guard.turns import Turns
from asyncline.transports.rest.answer import JSON, Answer, error_answer
from asyncline.transports.rest.body import BodyDecoder
from asyncline.transports.rest.coding import LEAST_NBYTES
from asyncline.transports.rest.connection import Connection
from asyncline.transports.rest.events import EVENTS, EventStream
from asyncline.transports.rest.intake import LOG_ID, Intake
from asyncline.transports.rest.openapi import openapi
from asyncline.transports.rest.paddle import PaddleRoute
from asyncline.transports.rest.routes import MethodNotAllowed, Routes
from asyncline.transports.threads import LARGE_NBYTES, in_thread
from asyncline.wire import json, msgpack
from asyncline.wire.weight import Scale

log = logging.getLogger("asyncline.rest")

MSGPACK = "application/msgpack"
BURST = 8
"""Most pieces, each a small request, that are taken in in one turn of the loop while other wires have something to do.
A small request takes it about 50 µs: with all of 64 connections in a turn, those by other wires waited five times as
long."""
PATHS_KEPT = 256
"""Paths whose routes are remembered."""
DOCS = files("asyncline.transports.rest").joinpath("docs.html").read_bytes()

Page = Callable[[web.BaseRequest], Awaitable[Answer]]


class RestTransport(Transport):
    """`POST /{graph}` and the server's own pages.

    :param metrics: renders `/metrics` for a header Accept: the page and its type.
    :param guard: that of the server; one of its own by default.
    :param routes: make the routes of other protocols.
    """

    def __init__(
        self,
        engine: Engine,
        settings: ServiceSettings,
        metrics: Callable[[str | None], Awaitable[tuple[bytes, str]]],
        guard: ConnGuard | None = None,
        *,
        routes: Iterable[Callable[[Intake], Routes]] = (),
    ) -> None:
        self._engine = engine
        guard = guard or ConnGuard(engine, settings)
        self._limits = guard.limits
        self._settings = settings
        self._intake = Intake(engine, settings)
        self._routes = (*[make(self._intake) for make in routes], PaddleRoute(engine, self._intake))
        self._metrics = metrics
        self._decoder = BodyDecoder(engine.graph.request)
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
        #: The routes of a path, None where it is a page or nobody's.
        self._owner = lru_cache(PATHS_KEPT)(self._find_owner)
        self._draining = False
        self._turns = Turns(BURST, guard.turns)
        self._listener = Listener(guard, "rest", self._connect)
        self._server: web.Server | None = None

    async def start(self) -> None:
        self._server, self._reserve = self._serving(self._handle), self._serving(self._show)
        await self._listener.start(self._settings, self._settings.http_port, self._settings.http_fd)

    def _serving(self, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> web.Server:
        loop = asyncio.get_running_loop()
        return web.Server(
            handle,
            request_factory=partial(web.BaseRequest, loop=loop, client_max_size=self._intake.max_body),
            handler_cancellation=True,  # a client that leaves cancels its Item
        )

    def _connect(self, ticket: Ticket) -> Connection:
        assert self._server is not None
        return Connection(self._reserve if ticket.over else self._server, ticket, self._turns, self._refuse)

    @property
    def address(self) -> str:
        return f"{'http' if self._settings.tls_cert is None else 'https'}://{self._listener.place}"

    def close(self) -> None:
        self._draining = True
        self._listener.close()
        for routes in self._routes:
            routes.close()

    async def wait_closed(self) -> None:
        if self._server is None:
            return
        await self._listener.wait_closed()
        servers = self._server, self._reserve
        connections = cast(list[Connection], [each for server in servers for each in server.connections])
        for connection in connections:
            connection.because("stopping")
        for server in servers:
            server.pre_shutdown()
        await asyncio.gather(*[server.shutdown(timeout=self._limits.linger_s) for server in servers])
        closing = [asyncio.ensure_future(connection.wait_closed()) for connection in connections]
        if closing:
            await asyncio.wait(closing, timeout=self._limits.linger_s)
            for connection in connections:
                connection.abort("stopping")  # what its client has not taken by now is lost
            await asyncio.wait(closing)

    def _find_owner(self, path: str) -> Routes | None:
        if path in self._pages:
            return None
        return next((routes for routes in self._routes if routes.owns(path)), None)

    # -- one request --------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        write_error: Callable[..., Answer] = error_answer
        try:
            if path == self._graph_path and request.method == "POST":
                return await self._infer(request)
            if (routes := self._owner(path)) is not None:
                write_error = routes.error
                return self._closing(await routes.handle(request))
            page, secret = self._page(path, request.method)
            if secret:
                self._intake.authenticate(request)
            return await page(request)
        except RequestError as error:
            self._engine.note_rejected(error)
            headers = f"Allow: {error.allowed}\r\n" if isinstance(error, MethodNotAllowed) else ""
            if LOG_ID.fullmatch(log_id := request.headers.get("X-Log-Id", "")):
                headers += f"X-Log-Id: {log_id}\r\n"
            unread = not request.content.is_eof()
            return write_error(error, next(self._engine.ids), headers, close=self._draining or unread)
        except (ConnectionError, asyncio.CancelledError):
            raise  # the client is gone: nobody to answer
        except Exception:
            request_id = next(self._engine.ids)
            log.exception("request %s: the server failed", request_id)
            return write_error(OpError("the server failed; its log says how"), request_id, close=True)

    async def _show(self, request: web.BaseRequest) -> web.StreamResponse:
        """A request on a connection over the limit: of the reserve, which is there for operators."""
        path = request.path
        if path in self._pages or ((routes := self._owner(path)) is not None and routes.for_operators):
            answer = await self._handle(request)
            if isinstance(answer, Answer):
                answer.close_after()
            return answer
        cast(Connection, request.protocol).refuse_more()
        error = Overloaded("too many connections are open: use some again, or ask later")
        return error_answer(error, next(self._engine.ids), close=True)

    def _closing(self, answer: web.StreamResponse) -> web.StreamResponse:
        if self._draining and isinstance(answer, Answer):
            answer.close_after()
        return answer

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
        intake, headers = self._intake, request.headers
        reserved = intake.enter(request)
        scale = intake.scale()
        try:
            kind = headers.get("Content-Type", "")
            if kind.startswith("multipart/"):
                payload = await self._form(request, scale)
            else:
                body = intake.body_nowait(request)
                if body is None:
                    body = bytes(await intake.body(request))
                if len(body) > LARGE_NBYTES:
                    payload = await in_thread(self._decoder.decode, body, kind, scale)
                else:
                    payload = self._decoder.decode(body, kind, scale)
            reserved = intake.decoded(scale, reserved)
            accept = headers.get("Accept")
            events = None
            if accept is not None and EVENTS in accept:
                events = EventStream(request, intake.timing, accept, close=self._draining)
                item = intake.begin(headers, payload, on_part=events.on_part, on_done=events.on_done)
                await events.run(item)
            else:
                item = intake.begin(headers, payload)
                if not item.done:
                    await item.wait()
        finally:
            intake.leave(reserved)
        if events is not None and events.has_begun:
            if self._draining:
                events.force_close()
            return events
        answer = self._answer(item, headers, accept)
        if answer.body_length >= LEAST_NBYTES:
            await answer.compress(headers.get("Accept-Encoding"))
        return answer

    async def _form(self, request: web.BaseRequest, scale: Scale) -> Any:
        if "Content-Encoding" in request.headers:
            raise Unsupported("a compressed form is not accepted: send it as it is")
        return await self._intake.receive(request, partial(self._decoder.form, request, self._intake.max_body, scale))

    def _answer(self, item: Item, headers: Mapping[str, str], accept: str | None) -> Answer:
        ids = self._intake.about(item, headers)
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

    # -- pages --------------------------------------------------------------------------------------

    async def _index(self, request: web.BaseRequest) -> Answer:
        name = self._engine.graph.name
        lines = [
            f"asyncline serves graph {name!r}",
            "",
            f"POST /{name}        run it: {self._decoder.accepted()}",
            *([f"                    part by part with Accept: {EVENTS}"] if self._engine.plan.streams else []),
            "     /v2            the same by the Open Inference Protocol, for tritonclient and others",
            "GET  /docs          try it from the browser",
            "GET  /openapi.json  its description",
            *(
                ["GET  /dashboard     what it does now, live"]
                if any(r.owns("/dashboard") for r in self._routes)
                else []
            ),
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
        page, kind = await self._metrics(request.headers.get("Accept"))
        return Answer(200, page, kind)

    async def _openapi(self, request: web.BaseRequest) -> Answer:
        description = openapi(self._engine.graph, self._decoder, has_token=self._intake.has_token)
        return Answer(200, json.encode(description), JSON)

    async def _docs(self, request: web.BaseRequest) -> Answer:
        return Answer(200, DOCS, "text/html; charset=utf-8")
