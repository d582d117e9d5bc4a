"""The Open Inference Protocol's routes, `/v2/...`: what each of them says is in `transports/oip`.

    GET   /v2                                           the server, and which extensions it has
    GET   /v2/health/live   ready
    GET   /v2/models/{m}[/versions/{v}]                 metadata
    GET   /v2/models/{m}[/versions/{v}]/ready   config   stats
    POST  /v2/models/{m}[/versions/{v}]/infer
    GET   /v2/models/stats
    POST  /v2/repository/index

Models are neither loaded nor unloaded, and no memory is shared with clients: what would need it is refused. There is
nothing to unregister either, which is as clients want it who make sure before they begin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from asyncline.engine.engine import Engine
from asyncline.engine.item import Item
from asyncline.errors import BadRequest, NotFound, RequestError, TooLarge, hook_error, public_message
from asyncline.transports.oip import Models
from asyncline.transports.rest.answer import JSON, Answer, PartedAnswer, error_answer
from asyncline.transports.rest.intake import LOG_ID, Intake
from asyncline.transports.rest.routes import MethodNotAllowed, Routes
from asyncline.transports.threads import in_thread
from asyncline.wire import json
from asyncline.wire.oip import InferRequest, rest, rest_metadata
from asyncline.wire.weight import Scale

READ = ("GET", "HEAD")
MOST_NBYTES = 64 * 1024
"""Of a body that is no inference."""
SHARED_MEMORY = ("systemsharedmemory", "cudasharedmemory")


class OipRoutes(Routes):
    """`/v2` and what is below it."""

    def __init__(self, engine: Engine, models: Models, intake: Intake) -> None:
        self._engine = engine
        self._models = models
        self._intake = intake

    def owns(self, path: str) -> bool:
        return path.startswith("/v2/") or path == "/v2"

    def error(self, error: RequestError, request_id: int | str, headers: str = "", *, close: bool = False) -> Answer:
        body = rest_metadata.encode_error(public_message(error))
        return error_answer(error, request_id, headers, close=close, body=body)

    async def handle(self, request: web.BaseRequest) -> Answer:
        match request.path.rstrip("/").split("/")[2:]:
            case ["models", "stats"]:
                return self._read(request, self._statistics, secret=True)
            case ["models", name, "versions", version, *rest]:
                return await self._model(request, name, version, rest)
            case ["models", name, *rest]:
                return await self._model(request, name, "", rest)
            case []:
                return self._read(request, lambda: rest_metadata.encode_server_metadata(self._models.server_metadata))
            case ["health", "live"]:
                return self._read(request, lambda: json.encode({"live": True}))
            case ["health", "ready"]:
                _check(request, *READ)
                ready = self._engine.problem() is None
                return Answer(200 if ready else 503, json.encode({"ready": ready}), JSON)
            case ["repository", *rest]:
                return await self._repository(request, rest)
            case [memory, *rest] if memory in SHARED_MEMORY:
                return self._shared_memory(request, rest)
        raise NotFound("the Open Inference Protocol has no such route here: see /v2")

    def _read(self, request: web.BaseRequest, encode: Callable[[], bytes], *, secret: bool = False) -> Answer:
        _check(request, *READ)
        if secret:
            self._intake.authenticate(request)
        return Answer(200, encode(), JSON)

    # -- models

    async def _model(self, request: web.BaseRequest, name: str, version: str, rest: list[str]) -> Answer:
        models = self._models
        match rest:
            case ["infer"]:
                _check(request, "POST")
                return await self._infer(request, name, version)
            case []:
                return self._read(request, lambda: rest_metadata.encode_metadata(models.metadata(name, version)))
            case ["config"]:
                return self._read(request, lambda: rest_metadata.encode_config(models.config(name, version)))
            case ["stats"]:
                return self._read(request, lambda: self._statistics(name, version), secret=True)
            case ["ready"]:
                _check(request, *READ)
                ready = models.is_ready(name, version)
                return Answer(200 if ready else 503, json.encode({"name": name, "ready": ready}), JSON)
        raise NotFound("the Open Inference Protocol has no such route of a model here: see /v2")

    def _statistics(self, name: str = "", version: str = "") -> bytes:
        return rest_metadata.encode_statistics(self._models.statistics(name, version))

    async def _repository(self, request: web.BaseRequest, rest: list[str]) -> Answer:
        match rest:
            case ["index"]:
                _check(request, "POST")
                asked = await self._small(request)
                ready = isinstance(asked, dict) and asked.get("ready") is True
                return Answer(200, rest_metadata.encode_index(self._models.index(ready=ready)), JSON)
            case ["models", _, "load" | "unload" as what]:
                _check(request, "POST")
                raise BadRequest(f"models are served as long as the server runs: there is nothing to {what}")
        raise NotFound("the Open Inference Protocol has no such route of the repository: see /v2")

    async def _small(self, request: web.BaseRequest) -> Any:
        """The JSON of a request that is no inference; None where there is none."""

        async def read() -> bytes:
            body = bytearray()
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > MOST_NBYTES:
                    raise TooLarge(f"the body is over the limit of {MOST_NBYTES} bytes")
            return bytes(body)

        body = await self._intake.receive(request, read)
        return json.decode(body) if body else None

    def _shared_memory(self, request: web.BaseRequest, rest: list[str]) -> Answer:
        match rest:
            case ["status"] | ["region", _, "status"]:
                return self._read(request, lambda: b"[]")
            case ["unregister"] | ["region", _, "unregister"]:
                _check(request, "POST")
                return Answer(200, b"{}", JSON)
        raise BadRequest("memory is not shared with clients: send tensors in the body")

    # -- inference

    async def _infer(self, request: web.BaseRequest, name: str, version: str) -> Answer:
        intake, models, headers = self._intake, self._models, request.headers
        reserved = intake.enter(request)
        scale = intake.scale()
        try:
            models.check_runs(name, version)
            length = headers.get(rest.HEADER_LENGTH)
            body: bytes | memoryview | None = intake.body_nowait(request)
            if body is None:
                body = await intake.body(request, _guess(length))
            header_nbytes = rest.parse_header_length(length, len(body))
            if rest.takes_long(body, header_nbytes):
                asked, payload = await in_thread(self._decode, body, header_nbytes, name, version, scale)
            else:
                asked, payload = self._decode(body, header_nbytes, name, version, scale)
            options = models.options(asked)
            reserved = intake.decoded(scale, reserved)
            item = intake.begin(
                headers,
                payload,
                timeout_s=options.timeout_s,
                log_id=asked.id if LOG_ID.fullmatch(asked.id) else "",
                priority=options.priority,
            )
            if not item.done:
                await item.wait()
        finally:
            intake.leave(reserved)
        answer = self._answer(asked, item, headers)
        await answer.compress(headers.get("Accept-Encoding"))
        return answer

    def _decode(
        self, body: bytes | memoryview, header_nbytes: int | None, name: str, version: str, scale: Scale
    ) -> tuple[InferRequest, Any]:
        """The request, and the payload that it is."""
        if header_nbytes == 0 and len(body):
            metadata = self._models.raw_input(name, version)
            batches = self._models.batches
            asked = rest.decode_raw_request(body, metadata, batches=batches, model_name=name, model_version=version)
        else:
            asked = rest.decode_request(body, header_nbytes, scale, model_name=name, model_version=version)
        return asked, self._models.payload(asked, scale)

    def _answer(self, asked: InferRequest, item: Item, sent: Mapping[str, str]) -> Answer:
        headers = self._intake.about(item, sent)
        error = item.error
        if error is None:
            try:
                body = rest.encode_response(self._models.response(asked, item), asked)
                if body.header_nbytes is not None:
                    headers += f"{rest.HEADER_LENGTH}: {body.header_nbytes}\r\n"
                return PartedAnswer(200, body.parts, body.content_type, headers)
            except RequestError as unwritable:
                error = unwritable
            except Exception as unexpected:
                error = hook_error(unexpected, "response", "encode")
        return self.error(error, item.data_id, headers)


def _check(request: web.BaseRequest, *methods: str) -> None:
    if request.method not in methods:
        allowed = ", ".join(methods)
        raise MethodNotAllowed(f"{request.method[:16]} is not allowed here: {allowed} is", allowed)


def _guess(length: str | None) -> int | None:
    """The header's length, to lay the body out by; it is checked later."""
    return int(length) if length is not None and length.isascii() and length.isdigit() and len(length) < 16 else None
