"""What an operator looks into, and turns, on a live server; `ObserveRoutes` lets in who may.

GET  /admin/settings                the settings in force, and where each was written; secrets are stars
GET  /admin/stacks                  what threads and tasks of the process are doing
GET  /admin/log-level               debug, info, warning or error; POST the word to set it
GET  /admin/tracemalloc?seconds=5   what is allocated in that time and not freed; all is slower meanwhile
GET  /admin/leaks                   what the leak watch sees
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from aiohttp import web

from asyncline.errors import NotFound, Overloaded
from asyncline.transports.rest.answer import JSON, Answer
from asyncline.transports.rest.intake import Intake
from asyncline.transports.rest.query import seconds
from asyncline.wire import json

TEXT = "text/plain; charset=utf-8"


class Administered(Protocol):
    """Where the answers come from: `observe.Admin`."""

    @property
    def log_level(self) -> str: ...
    def settings(self) -> dict[str, Any]: ...
    def stacks(self) -> Callable[[], str]: ...
    def set_log_level(self, level: str) -> None: ...
    def allocations(self, seconds: float) -> Callable[[], str]: ...
    def leaks(self) -> dict[str, Any] | None: ...


class AdminPages:
    """The pages by path."""

    def __init__(self, admin: Administered, intake: Intake) -> None:
        self._admin = admin
        self._intake = intake
        self._is_capturing = False
        self.pages: dict[str, Callable[[web.BaseRequest], Any]] = {
            "/admin/settings": self._settings,
            "/admin/stacks": self._stacks,
            "/admin/log-level": self._log_level,
            "/admin/tracemalloc": self._tracemalloc,
            "/admin/leaks": self._leaks,
        }

    async def _settings(self, request: web.BaseRequest) -> Answer:
        return Answer(200, json.encode(self._admin.settings()), JSON)

    async def _stacks(self, request: web.BaseRequest) -> Answer:
        return await self._capture(self._admin.stacks)

    async def _tracemalloc(self, request: web.BaseRequest) -> Answer:
        wanted = seconds(request, 5, 30)
        return await self._capture(lambda: self._admin.allocations(wanted))

    async def _capture(self, begin: Callable[[], Callable[[], str]]) -> Answer:
        if self._is_capturing:
            raise Overloaded("another capture is being taken: ask again", retry_after_s=1)
        self._is_capturing = True
        try:
            text = await asyncio.to_thread(begin())
        finally:
            self._is_capturing = False
        return Answer(200, text.encode(errors="replace"), TEXT)

    async def _log_level(self, request: web.BaseRequest) -> Answer:
        if request.method == "POST":
            body = bytes(await self._intake.body(request))
            self._admin.set_log_level(body[:64].decode(errors="replace").strip().strip('"').lower())
        return Answer(200, f"{self._admin.log_level}\n".encode(), TEXT)

    async def _leaks(self, request: web.BaseRequest) -> Answer:
        found = self._admin.leaks()
        if found is None:
            raise NotFound("nothing is watched: dag.leak_watch is false")
        return Answer(200, json.encode(found), JSON)
