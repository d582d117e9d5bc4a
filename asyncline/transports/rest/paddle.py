"""`POST /{name}/{method}`, as Paddle Serving's REST gateway has it.

Clients post JSON under whatever media type their library puts there, so none is looked at. Every outcome of a request
that could be read is 200 with its number in `err_no`; a body that could not, and what is refused at the door, is an
error in the gateway's words.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from aiohttp import web

from asyncline.engine.engine import Engine
from asyncline.errors import RequestError, public_message
from asyncline.graph.graph import RESERVED
from asyncline.transports.paddle import Pipeline
from asyncline.transports.rest.answer import JSON, Answer, error_answer
from asyncline.transports.rest.intake import Intake
from asyncline.transports.rest.routes import Routes
from asyncline.transports.threads import LARGE_NBYTES, in_thread
from asyncline.wire.paddle import BadPackage, PipelineRequest, rest
from asyncline.wire.weight import Scale

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


class _Misfit(Exception):
    """A request that could be read, and fits nothing here."""

    def __init__(self, error: RequestError) -> None:
        self.error = error


class PaddleRoute(Routes):
    """The gateway's only route."""

    def __init__(self, engine: Engine, intake: Intake) -> None:
        self._engine = engine
        self._intake = intake
        self._pipeline = Pipeline(engine)

    def owns(self, path: str) -> bool:
        return self.match(path) is not None

    @staticmethod
    @lru_cache(256)
    def match(path: str) -> tuple[str, str] | None:
        """The service and the method that a path names, either perhaps empty; None where it is not the gateway's."""
        parts = path.split("/")
        if len(parts) != 3 or parts[1] in RESERVED:
            return None
        return parts[1], parts[2]

    async def handle(self, request: web.BaseRequest) -> Answer:
        found = self.match(request.path)
        assert found is not None, "it owns the path"
        name, method = found
        if not name or not method:
            return Answer(404, NOT_FOUND, TEXT, close=not request.content.is_eof())
        if request.method != "POST":
            return Answer(405, NOT_ALLOWED, TEXT, "Allow: POST\r\n", close=not request.content.is_eof())
        intake, pipeline = self._intake, self._pipeline
        reserved = intake.enter(request)
        scale = intake.scale()
        try:
            body = intake.body_nowait(request)
            if body is None:
                body = bytes(await intake.body(request))
            try:
                if len(body) > LARGE_NBYTES:
                    call, payload = await in_thread(self._read, body, name, method, scale)
                else:
                    call, payload = self._read(body, name, method, scale)
                reserved = intake.decoded(scale, reserved)
            except _Misfit as misfit:
                return self._refused(misfit.error)
            log_id = "" if call is None else pipeline.log_id(call)
            item = intake.begin(request.headers, payload, log_id=log_id)
            if not item.done:
                await item.wait()
        finally:
            intake.leave(reserved)
        body = rest.encode_texts(item.value) if type(item.value) is dict else None
        if body is None:
            body = pipeline.answer(call or PipelineRequest(name, method), item, rest.encode_response)
        return Answer(200, body, JSON, intake.about(item, request.headers))

    def _read(self, body: bytes, name: str, method: str, scale: Scale) -> tuple[PipelineRequest | None, Any]:
        """The request, or None where it is nothing but texts; and the payload that it is.

        :raises BadRequest: it cannot be read.
        """
        head = rest.decode(body, scale)
        if (texts := rest.texts(head)) is not None:
            payload = self._pipeline.of_texts(name, method, *texts)
            if payload is not None:
                return None, payload
        try:
            call = rest.request(head, name, method)
        except BadPackage as error:
            raise _Misfit(error) from None
        try:
            return call, self._pipeline.payload(call, scale)
        except RequestError as error:
            raise _Misfit(error) from None

    def _refused(self, error: RequestError) -> Answer:
        """The answer to what could be read, and fits nothing here."""
        self._engine.note_rejected(error)
        return Answer(200, self._pipeline.refusal(error, rest.encode_response), JSON)

    def error(self, error: RequestError, request_id: int | str, headers: str = "", *, close: bool = False) -> Answer:
        body = rest.encode_error(GRPC_CODES.get(str(error.code), INTERNAL), public_message(error))
        return error_answer(error, request_id, headers, close=close, body=body)
