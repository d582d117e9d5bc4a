"""HttpWire: `POST /{graph}` with msgpack both ways."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any
from urllib.parse import quote

from asyncline.client.address import Address
from asyncline.client.base import Malformed
from asyncline.client.http import HttpAnswer, HttpPeer, Parts
from asyncline.client.wires.base import GRACE_S, Call, Wire, WireSettings, context
from asyncline.errors import BadRequest, OpError, RequestError
from asyncline.wire import json, msgpack
from asyncline.wire.frame.messages import error_of

CONNECTIONS = 100
"""Most connections to one server: each carries one request at a time."""
MSGPACK = "application/msgpack"

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
        try:
            body = msgpack.encode(call.payload, tensors=True)
        except OpError as error:
            raise BadRequest(error.message.replace("the answer", "the request")) from None
        headers = {
            "Accept": f"{MSGPACK};{msgpack.TENSORS}",
            "X-Timeout-Ms": str(max(1, round(timeout_s * 1e3))),
        }
        if call.log_id:
            headers["X-Log-Id"] = call.log_id
        if call.priority != 1:
            headers["X-Priority"] = str(call.priority)
        if call.traceparent is not None:
            headers["traceparent"] = call.traceparent
        expires_at = self._loop.time() + timeout_s + GRACE_S
        path = f"/{quote(call.graph, safe='')}"
        answer = await self._peer.send(
            "POST", path, self._whom, expires_at, data=Parts((body,), len(body), MSGPACK), headers=headers
        )
        if answer.status != 200:
            raise self._error(answer)
        try:
            return msgpack.decode(answer.body, any_keys=True)
        except BadRequest as error:
            raise Malformed(f"{self._whom} gave an answer that cannot be used: {error}") from error

    async def ready(self, timeout_s: float) -> bool:
        try:
            answer = await self._peer.send("GET", "/readyz", self._whom, self._loop.time() + timeout_s)
        except RequestError:
            return False
        return answer.status == 200

    def _error(self, answer: HttpAnswer) -> RequestError:
        """The error that an answer stands for, of the class that the server raised or of its base."""
        try:
            said = json.decode(bytes(answer.body))
            code, message = said["code"], said["message"]
            if type(code) not in (str, int) or type(message) is not str:
                raise TypeError
        except (BadRequest, TypeError, KeyError):
            return Malformed(f"{self._whom} answered {answer.status}, which is none of asyncline's")
        status = _STATUSES.get(answer.status, "op_error")
        if code in _CODES.get(answer.status, ()):
            status = code
        retry_after = answer.headers.get("Retry-After", "")
        error = error_of(status, code, message, int(retry_after) if retry_after.isdecimal() else None)
        # An Item has an id, and its error says that it was one.
        error.was_refused = "X-Data-Id" not in answer.headers
        if type(request_id := said.get("request_id")) is str:
            error.add_note(f"request {request_id}")
        return error

    async def close(self) -> None:
        await self._peer.close()
