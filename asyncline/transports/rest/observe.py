"""What an operator asks a live server.

    GET  /verdict?seconds=10            one sentence: what limits the server, and what to turn
    GET  /figures?seconds=10            the figures behind it
    GET  /figures/live                  all that the dashboard shows, each second: see live.py
    GET  /dashboard                     dashboard.html, a page that shows it
    GET  /admin/timeline?seconds=5      what ended in that time, as Chrome's trace JSON
    GET  /admin/timeline?data_id=7      the same of one request

and the pages of `admin.py`. All but the dashboard's ask for the token where there is one; without one, `/admin` answers
to this machine only, and takes nothing from the pages of other sites in its browsers.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from base64 import b64encode
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Protocol

from aiohttp import web

from asyncline.errors import BadRequest, NotFound, Overloaded, RequestError
from asyncline.transports.rest.admin import Administered, AdminPages
from asyncline.transports.rest.answer import JSON, Answer, error_answer
from asyncline.transports.rest.events import EVENTS
from asyncline.transports.rest.intake import Intake
from asyncline.transports.rest.live import Viewers, Watched
from asyncline.transports.rest.local import check_local
from asyncline.transports.rest.query import seconds
from asyncline.transports.rest.routes import MethodNotAllowed, Routes
from asyncline.wire import json

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
DASHBOARD = files("asyncline.transports.rest").joinpath("dashboard.html").read_bytes()


SETTABLE = {"/admin/log-level"}


def _policy(page: bytes) -> str:
    """Headers with which a browser runs what is written in `page`, and nothing that comes from data."""
    hashes = {
        tag: " ".join(
            f"'sha256-{b64encode(hashlib.sha256(text).digest()).decode()}'"
            for text in re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), page, re.DOTALL)
        )
        for tag in (b"style", b"script")
    }
    return (
        f"Content-Security-Policy: default-src 'none'; style-src {hashes[b'style']}; script-src {hashes[b'script']}; "
        "connect-src 'self'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'\r\n"
        "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-cache\r\n"
    )


DASHBOARD_HEADERS = _policy(DASHBOARD)


class Observed(Watched, Protocol):
    """Where the answers come from: `observe.Observing`."""

    @property
    def admin(self) -> Administered: ...
    def verdict(self, seconds: float) -> str: ...
    def figures(self, seconds: float) -> dict[str, Any]: ...
    def timeline(self, seconds: float) -> Callable[[], bytes] | None: ...
    def timeline_of(self, data_id: int) -> Callable[[], bytes | None] | None: ...


class ObserveRoutes(Routes):
    """Pages of figures; no request of a graph."""

    for_operators = True

    def __init__(self, observed: Observed, intake: Intake) -> None:
        self._observed = observed
        self._intake = intake
        self._pages: dict[str, Callable[[web.BaseRequest], Any]] = {
            "/verdict": self._verdict,
            "/figures": self._figures,
            "/figures/live": self._live,
            "/dashboard": self._dashboard,
            "/admin/timeline": self._timeline,
            **AdminPages(observed.admin, intake).pages,
        }
        self._is_capturing = False
        #: Those who watch.
        self.viewers = Viewers(observed)

    def owns(self, path: str) -> bool:
        return path in self._pages or path.startswith("/admin/")

    def error(self, error: RequestError, request_id: int | str, headers: str = "", *, close: bool = False) -> Answer:
        return error_answer(error, request_id, headers, close=close)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        page = self._pages.get(request.path)
        if page is None:
            raise NotFound("there is no such page: see / for a list")
        methods = ("GET", "HEAD", "POST") if request.path in SETTABLE else ("GET", "HEAD")
        if request.method not in methods:
            raise MethodNotAllowed(f"{request.method[:16]} is not allowed here: GET the page", ", ".join(methods))
        if page != self._dashboard:  # it holds no figures, and asks for the token itself
            self._intake.authenticate(request)
        if request.path.startswith("/admin/") and not self._intake.has_token:
            check_local(request)
        answer: web.StreamResponse = await page(request)
        return answer

    async def _verdict(self, request: web.BaseRequest) -> Answer:
        return Answer(200, f"{self._observed.verdict(seconds(request, 10, 60))}\n".encode(), TEXT)

    async def _figures(self, request: web.BaseRequest) -> Answer:
        return Answer(200, json.encode(self._observed.figures(seconds(request, 10, 60))), JSON)

    async def _live(self, request: web.BaseRequest) -> web.StreamResponse:
        return Answer(200, b"", EVENTS) if request.method == "HEAD" else await self.viewers.watch(request)

    async def _dashboard(self, request: web.BaseRequest) -> Answer:
        answer = Answer(200, DASHBOARD, HTML, DASHBOARD_HEADERS)
        await answer.compress(request.headers.get("Accept-Encoding"))
        return answer

    def close(self) -> None:
        self.viewers.close()

    async def _timeline(self, request: web.BaseRequest) -> Answer:
        data_id = request.query.get("data_id")
        if data_id is not None:
            if not (data_id.isascii() and data_id.isdigit() and len(data_id) <= 18):
                raise BadRequest("query data_id: expected a whole number")
        if self._is_capturing:
            raise Overloaded("another timeline is being written: ask again", retry_after_s=1)
        make: Callable[[], bytes | None] | None
        if data_id is not None:
            make = self._observed.timeline_of(int(data_id))
        else:
            make = self._observed.timeline(seconds(request, 5, 600))
        if make is None:
            raise NotFound("no timeline is kept: dag.timeline_mb is 0")
        self._is_capturing = True
        try:
            trace = await asyncio.to_thread(make)
        finally:
            self._is_capturing = False
        if trace is None:
            raise NotFound("nothing is kept of that request: it is too long ago, or still running")
        answer = Answer(200, trace, JSON)
        await answer.compress(request.headers.get("Accept-Encoding"))
        return answer
