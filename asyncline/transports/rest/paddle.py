"""`POST /{name}/{method}`, as Paddle Serving's REST gateway has it.

Clients post JSON under whatever media type their library puts there, so none is looked at. Every outcome of a request
that could be read is 200 with its number in `err_no`; a body that could not, and what is refused at the door, is an
error in the gateway's words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from aiohttp import web

from asyncline.engine.engine import Engine
from asyncline.engine.item import Item
from asyncline.errors import Overloaded, RequestError, Unavailable, public_message
from asyncline.graph.graph import RESERVED
from asyncline.transports.paddle import Pipeline
from asyncline.transports.rest.answer import JSON, Answer, status_of
from asyncline.wire.paddle import BadPackage, rest

TEXT = "text/plain; charset=utf-8"
NOT_FOUND = b"Not Found\n"
NOT_ALLOWED = b"Method Not Allowed\n"

GRPC_CODES = {
    "bad_request": 3,
    "unauthenticated": 16,
    "slow_client": 1,
    "too_large": 8,
    "unsupported": 12,
    "overloaded": 8,
    "unavailable": 14,
}
"""gRPC's status for each code that a request is refused with before it is an Item; INTERNAL for any other."""
INTERNAL = 13


class Door(Protocol):
    """What a route needs of the transport that it is of."""

    @property
    def is_draining(self) -> bool: ...

    def admit(self, request: web.BaseRequest) -> int:
        """Let a request in, or raise why not; the bytes of the budget that it holds until they are released."""

    async def body(self, request: web.BaseRequest) -> bytes:
        """The whole body, within the limits of size and time."""

    def options(self, headers: Mapping[str, str]) -> dict[str, Any]:
        """What the headers say to `Engine.begin`, beside the log_id."""

    def about(self, item: Item) -> str:
        """Headers that tell an Item's ids, and where its time went."""


class PaddleRoute:
    """The gateway's only route."""

    def __init__(self, engine: Engine, door: Door) -> None:
        self._engine = engine
        self._door = door
        self._pipeline = Pipeline(engine)

    @staticmethod
    def match(path: str) -> tuple[str, str] | None:
        """The service and the method that a path names, either perhaps empty; None where it is not the gateway's."""
        parts = path.split("/")
        if len(parts) != 3 or parts[1] in RESERVED:
            return None
        return parts[1], parts[2]

    async def __call__(self, request: web.BaseRequest, name: str, method: str) -> Answer:
        if not name or not method:
            return Answer(404, NOT_FOUND, TEXT, close=self._closes(request))
        if request.method != "POST":
            return Answer(405, NOT_ALLOWED, TEXT, "Allow: POST\r\n", close=self._closes(request))
        try:
            return await self._infer(request, name, method)
        except RequestError as error:
            if not isinstance(error, (Overloaded, Unavailable)):  # those are counted where they are raised
                self._engine.note_rejected(error)
            return _refusal(error, close=self._closes(request))

    async def _infer(self, request: web.BaseRequest, name: str, method: str) -> Answer:
        engine, door, pipeline = self._engine, self._door, self._pipeline
        reserved = door.admit(request)
        try:
            body = await door.body(request)
            options = door.options(request.headers)
            try:
                call = rest.decode_request(body, name, method)
            except BadPackage as error:
                return self._misfit(error)
            try:
                payload = pipeline.payload(call)
            except RequestError as error:
                return self._misfit(error)
            item = engine.begin(payload, log_id=pipeline.log_id(call), **options)
            if not item.done:
                await item.wait()
        finally:
            engine.admission.release(reserved)
        return self._answer(pipeline.answer(call, item, rest.encode_response), door.about(item))

    def _misfit(self, error: RequestError) -> Answer:
        """The answer to what could be read, and fits nothing here."""
        self._engine.note_rejected(error)
        return self._answer(self._pipeline.refusal(error, rest.encode_response))

    def _answer(self, body: bytes, headers: str = "") -> Answer:
        return Answer(200, body, JSON, headers, close=self._door.is_draining)

    def _closes(self, request: web.BaseRequest) -> bool:
        """Whether a connection cannot be used again after an answer that did not take the whole request in."""
        return self._door.is_draining or not request.content.is_eof()


def _refusal(error: RequestError, *, close: bool) -> Answer:
    headers = ""
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers += f"Retry-After: {retry_after_s}\r\n"
    status = status_of(error)
    if status == 401:
        headers += "WWW-Authenticate: Bearer\r\n"
    body = rest.encode_error(GRPC_CODES.get(str(error.code), INTERNAL), public_message(error))
    return Answer(status, body, JSON, headers, close=close)
