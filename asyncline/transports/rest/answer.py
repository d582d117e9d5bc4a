"""Outcomes as HTTP responses."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from asyncline.engine.item import Item
from asyncline.errors import ProductError, RequestError, TooLarge, public_message
from asyncline.transports.rest import coding
from asyncline.transports.timing import TRACE_HEADER, trace_headers
from asyncline.wire import json

STATUSES: dict[str, int] = {
    "bad_request": 400,
    "unauthenticated": 401,
    "not_found": 404,
    "method_not_allowed": 405,
    "slow_client": 408,
    "too_large": 413,
    "unsupported": 415,
    "bad_image": 422,
    "fetch_failed": 422,
    "product": 422,
    "url_forbidden": 422,
    "cancelled": 499,
    "op_error": 500,
    "worker_crashed": 500,
    "overloaded": 503,
    "unavailable": 503,
    "deadline": 504,
}
"""HTTP status of each code of `asyncline.errors`."""
HEAD_TOO_LARGE = 431
"""Of a `too_large` that is about the head of a request."""

_LINES = {
    status: f"HTTP/1.1 {status} {HTTPStatus(status).phrase if status != 499 else 'Client Closed Request'}\r\n"
    for status in (200, HEAD_TOO_LARGE, *STATUSES.values())
}
JSON = "application/json"


class Answer(web.StreamResponse):
    """A whole response, written in one piece.

    aiohttp's own Response costs more than the rest of an echo request; this one is a status line, the
    headers given, and the body.

    :param headers: lines of `Name: value\\r\\n`; values must hold no line break.
    """

    def __init__(self, status: int, body: bytes, content_type: str, headers: str = "", *, close: bool = False) -> None:
        # Not super().__init__(): what it prepares (multidict, cookies, payload) is never used.
        self._status = status
        self._content = body
        self._content_type = content_type
        self._header_lines = headers
        self._must_close = close
        self._keep_alive = not close
        self._eof_sent = False

    @property
    def body_length(self) -> int:
        return len(self._content)

    async def prepare(self, request: web.BaseRequest) -> Any:
        self._keep_alive = request.keep_alive and not self._must_close
        connection = ""
        if not self._keep_alive:
            connection = "Connection: close\r\n"
        elif request.version < (1, 1):
            connection = "Connection: keep-alive\r\n"
        head = (
            f"{_LINES[self._status]}Content-Type: {self._content_type}\r\nContent-Length: {self.body_length}\r\n"
            f"{self._header_lines}{connection}\r\n"
        ).encode("latin-1")
        writer = request.writer
        data = head if request.method == "HEAD" else head + self._content
        self._content = b""  # so that a client that does not read keeps one copy, not two
        await writer.write(data)
        if request.protocol.writing_paused:
            await writer.drain()  # however short: who reads no answers gets no more of them
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        self._eof_sent = True

    def close_after(self) -> None:
        """Close the connection once it is written."""
        self._must_close = True
        self._keep_alive = False

    async def compress(self, accept: str | None) -> None:
        """Compress the body, unless it is short.

        :param accept: the header Accept-Encoding.
        """
        chosen = coding.accepted_coding(accept) if self.body_length >= coding.LEAST_NBYTES else None
        if chosen is not None:
            self._set_body(await coding.deflate(self._parts, chosen))
            self._header_lines += f"Content-Encoding: {chosen}\r\nVary: Accept-Encoding\r\n"

    @property
    def _parts(self) -> tuple[bytes | memoryview, ...]:
        return (self._content,)

    def _set_body(self, body: bytes) -> None:
        self._content = body


class PartedAnswer(Answer):
    """A response of several parts, which are not joined: large arrays are written from where they lie."""

    def __init__(
        self, status: int, parts: tuple[bytes | memoryview, ...], content_type: str, headers: str = ""
    ) -> None:
        super().__init__(status, bytes(parts[0]), content_type, headers)
        self._more = parts[1:]

    @property
    def body_length(self) -> int:
        return sum(map(len, self._parts))

    @property
    def _parts(self) -> tuple[bytes | memoryview, ...]:
        return (self._content, *self._more)

    def _set_body(self, body: bytes) -> None:
        self._content, self._more = body, ()

    async def prepare(self, request: web.BaseRequest) -> Any:
        writer = await super().prepare(request)
        if request.method != "HEAD":
            for part in self._more:
                await writer.write(part)
        return writer


def id_lines(item: Item) -> str:
    """The headers that name an Item."""
    ids = f"X-Data-Id: {item.data_id}\r\n"
    return f"{ids}X-Log-Id: {item.log_id}\r\n" if item.log_id else ids


def trace_lines(item: Item, headers: Mapping[str, str]) -> str:
    """The headers that say where the Item's timeline is, where `headers` of its request ask for that."""
    if headers.get(TRACE_HEADER) != "1":
        return ""
    return "".join([f"{name}: {value}\r\n" for name, value in trace_headers(item)])


def status_of(error: RequestError) -> int:
    """The HTTP status of an error; that of its nearest known base where a user's class has a code of its own."""
    if isinstance(error, ProductError):
        return STATUSES["product"]
    codes = [error.code, *(getattr(base, "code", None) for base in type(error).__mro__)]
    return next(STATUSES[str(code)] for code in codes if str(code) in STATUSES)


class HeadTooLarge(TooLarge):
    """Expected error: too many header fields, or too long a line."""


def error_body(error: RequestError, request_id: int | str, *, with_status: bool = False) -> bytes:
    """The JSON error `{"code", "message", "request_id"}`; and `status`, where HTTP has said another already."""
    said = {"code": error.code, "message": public_message(error), "request_id": str(request_id)}
    return json.encode({"status": status_of(error), **said} if with_status else said)


def error_answer(
    error: RequestError, request_id: int | str, headers: str = "", *, close: bool = False, body: bytes | None = None
) -> Answer:
    """An error with its status.

    :param body: what it says; by default the JSON `{"code", "message", "request_id"}`.
    """
    status = HEAD_TOO_LARGE if isinstance(error, HeadTooLarge) else status_of(error)
    if body is None:
        body = error_body(error, request_id)
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers += f"Retry-After: {retry_after_s}\r\n"
    if status == 401:
        headers += "WWW-Authenticate: Bearer\r\n"
    return Answer(status, body, JSON, headers, close=close)
