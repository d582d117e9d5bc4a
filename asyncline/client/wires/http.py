"""HttpWire: `POST /{graph}` with msgpack both ways, and server-sent events of msgpack in base64."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64decode
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote

from asyncline.client.address import Address
from asyncline.client.base import Malformed, broken_off, malformed
from asyncline.client.http import HttpAnswer, HttpPeer, HttpStream, Parts
from asyncline.client.wires.base import GRACE_S, Call, Wire, WireSettings, context
from asyncline.errors import BadRequest, OpError, RequestError
from asyncline.wire import json, msgpack
from asyncline.wire.events import Event, EventDecoder
from asyncline.wire.frame.messages import error_of

CONNECTIONS = 100
"""Most connections to one server: each carries one request at a time."""
MSGPACK = "application/msgpack"
EVENTS = "text/event-stream"

_STATUSES = {
    400: "bad_request", 401: "unauthenticated", 404: "not_found", 405: "not_found", 408: "slow_client",
    413: "too_large", 415: "unsupported", 422: "product", 429: "overloaded", 499: "cancelled",
    503: "unavailable", 504: "deadline",
}  # fmt: skip
"""What happened, where the body's code does not say it."""
_CODES = {422: ("bad_image", "fetch_failed", "url_forbidden"), 500: ("worker_crashed",), 503: ("overloaded",)}
"""Statuses of several outcomes: those that the body's code tells from the rest."""


async def connect(address: Address, settings: WireSettings) -> HttpWire:
    """Nothing is sent yet."""
    return HttpWire(address, settings, await context(address, settings))


class HttpWire(Wire):
    def __init__(self, address: Address, settings: WireSettings, tls: ssl.SSLContext | None) -> None:
        super().__init__(address, settings)
        self._loop = asyncio.get_running_loop()
        self._whom = str(address)
        headers = {} if settings.token is None else {"Authorization": f"Bearer {settings.token}"}
        self._peer = HttpPeer(
            address,
            headers,
            settings.max_answer_nbytes,
            tls,
            connections=settings.connections or CONNECTIONS,
            connect_s=settings.connect_s,
        )

    async def call(self, call: Call, timeout_s: float) -> Any:
        expires_at = self._loop.time() + timeout_s + GRACE_S
        request = self._request(call, timeout_s, f"{MSGPACK};{msgpack.TENSORS}")
        answer = await self._peer.send("POST", _path(call), self._whom, expires_at, **request)
        if answer.status != 200:
            raise self._error(answer)
        return self._decode(answer.body)

    async def stream(self, call: Call, timeout_s: float) -> AsyncGenerator[Any, None]:
        expires_at = self._loop.time() + timeout_s + GRACE_S
        request = self._request(call, timeout_s, f"{EVENTS};{msgpack.EVENTS}")
        answer = await self._peer.open("POST", _path(call), self._whom, expires_at, **request)
        try:
            if answer.status != 200:
                raise self._error(await answer.all())
            async for kind, data in self._events(answer):
                if kind == "done":
                    return
                if kind == "error":
                    raise self._error_event(data)
                yield self._decode(_unarmoured(data))
            raise broken_off(self._whom)
        finally:
            answer.close()

    async def _events(self, answer: HttpStream) -> AsyncGenerator[Event, None]:
        decoder = EventDecoder(self.settings.max_answer_nbytes)
        while data := await answer.some():
            try:
                events = decoder.feed(data)
            except BadRequest as error:
                raise malformed(self._whom, str(error)) from None
            for event in events:
                yield event

    def _request(self, call: Call, timeout_s: float, accept: str) -> dict[str, Any]:
        try:
            body = msgpack.encode(call.payload, tensors=True)
        except OpError as error:
            raise BadRequest(error.message.replace("the answer", "the request")) from None
        headers = {"Accept": accept, "X-Timeout-Ms": str(max(1, round(timeout_s * 1e3)))}
        if call.log_id:
            headers["X-Log-Id"] = call.log_id
        if call.priority != 1:
            headers["X-Priority"] = str(call.priority)
        if call.traceparent is not None:
            headers["traceparent"] = call.traceparent
        return {"data": Parts((body,), len(body), MSGPACK), "headers": headers}

    def _decode(self, data: bytes | memoryview) -> Any:
        try:
            return msgpack.decode(data, answer=True)
        except BadRequest as error:
            raise malformed(self._whom, str(error)) from error

    async def ready(self, timeout_s: float) -> bool:
        try:
            answer = await self._peer.send("GET", "/readyz", self._whom, self._loop.time() + timeout_s)
        except RequestError:
            return False
        return answer.status == 200

    def _error(self, answer: HttpAnswer) -> RequestError:
        """The error that an answer stands for, of the class that the server raised or of its base."""
        retry_after = answer.headers.get("Retry-After", "")
        error = self._error_of(answer.status, bytes(answer.body), int(retry_after) if retry_after.isdecimal() else None)
        # An Item has an id, and its error says that it was one.
        error.was_refused = "X-Data-Id" not in answer.headers
        return error

    def _error_event(self, data: bytes) -> RequestError:
        try:
            status = json.decode(data).get("status")
        except (BadRequest, AttributeError):
            status = None
        return self._error_of(status if type(status) is int else 0, data)

    def _error_of(self, status: int, body: bytes, retry_after_s: int | None = None) -> RequestError:
        try:
            said = json.decode(body)
            code, message = said["code"], said["message"]
            if type(code) not in (str, int) or type(message) is not str:
                raise TypeError
        except (BadRequest, TypeError, KeyError):
            return Malformed(f"{self._whom} answered {status}, which is none of asyncline's")
        kind = code if code in _CODES.get(status, ()) else _STATUSES.get(status, "op_error")
        error = error_of(kind, code, message, retry_after_s)
        if type(request_id := said.get("request_id")) is str:
            error.add_note(f"request {request_id}")
        return error

    async def close(self) -> None:
        await self._peer.close()


def _path(call: Call) -> str:
    return f"/{quote(call.graph, safe='')}"


def _unarmoured(data: bytes) -> bytes:
    try:
        return b64decode(data, validate=True)
    except ValueError:
        return b""  # which is no msgpack either
