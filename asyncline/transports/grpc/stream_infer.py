"""StreamInfer: many requests on one call, each answered when it is done, or part by part."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

from asyncline.engine.engine import Engine
from asyncline.engine.item import Item
from asyncline.errors import OpError, RequestError, hook_error, public_message
from asyncline.transports.grpc.call import Call, Options
from asyncline.transports.grpc.inbox import Message
from asyncline.transports.grpc.status import status_of
from asyncline.transports.oip import Models
from asyncline.transports.threads import in_thread
from asyncline.wire.oip import InferRequest, InferResponse, grpc, native

MOST_IN_FLIGHT = 256
"""Most requests of one call that are in flight; more are read when there is room."""
UNREAD_NBYTES = 2**20
"""With more answers than this not taken by the client, it gets no more for the time being."""
_FINAL = "triton_final_response"
_EMPTY_FINAL = "triton_enable_empty_final_response"
_MOST_LOG_ID = 128


def options_of(call: Call, models: Models, request: InferRequest) -> Options:
    """How a request is to be run, by its parameters and the call's headers: whichever leaves less.

    :raises BadRequest: a parameter is none.
    """
    asked = models.options(request)
    options: Options = {"timeout_s": asked.timeout_s, "priority": asked.priority}
    if request.id and "x-log-id" not in call.metadata and request.id.isprintable():
        options["log_id"] = request.id[:_MOST_LOG_ID]
    return options


class StreamInfer:
    """One ModelStreamInfer.

    An error is an answer that has a message and the id of its request; the call goes on. Every answer says whether it
    is the last to its request; where that is known only after the last part, a client that asks for it gets an empty
    one to say so.
    """

    def __init__(self, call: Call, engine: Engine, models: Models) -> None:
        self._call = call
        self._models = models
        self._engine = engine
        self._reserve = engine.reserve
        self._release = engine.admission.release
        self._streams = engine.graph.streams
        self._in_flight = 0
        self._room: asyncio.Future[None] | None = None
        #: Items whose parts the client does not take.
        self._held: set[Item] = set()
        call.on_drained = self._go_on

    async def run(self) -> None:
        call = self._call
        while (message := await call.receive()) is not None:
            await self._start(message)
            if call.out.nbytes > UNREAD_NBYTES:
                await call.written()
            await self._until_below(MOST_IN_FLIGHT)
        await self._until_below(1)

    async def _start(self, message: Message) -> None:
        request, nbytes = InferRequest(()), message.nbytes
        try:
            scale = self._models.scale()
            if grpc.takes_long(message.data):
                request = await in_thread(grpc.decode_request, message.data, scale)
                payload = await in_thread(self._models.payload, request, scale)
            else:
                request = grpc.decode_request(message.data, scale)
                payload = self._models.payload(request, scale)
            if scale.nbytes:
                self._reserve(scale.nbytes, nbytes)
                nbytes += scale.nbytes
            options = options_of(self._call, self._models, request)
            if self._streams:
                options["on_part"] = partial(self._part, request)
            self._in_flight += 1
            try:
                self._call.begin(payload, partial(self._done, request), nbytes=nbytes, **options)
            except BaseException:
                self._in_flight -= 1
                raise
        except RequestError as error:
            self._release(nbytes)
            self._engine.note_rejected(error)
            error.was_refused = True
            self._say(request, error)
        except BaseException:
            self._release(nbytes)
            raise

    def _part(self, request: InferRequest, item: Item, part: Any) -> None:
        self._answer(request, part, final=False)
        if self._call.out.nbytes > UNREAD_NBYTES:
            item.hold()
            self._held.add(item)

    def _done(self, request: InferRequest, item: Item) -> None:
        self._in_flight -= 1
        self._held.discard(item)
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        if item.error is not None:
            self._say(request, item.error)
        elif not self._streams:
            try:
                self._answer(request, item, final=True)
            except RequestError as error:
                self._say(request, error)
            except Exception as error:
                self._say(request, hook_error(error, "response", "encode"))
        elif request.parameters.get(_EMPTY_FINAL) is True:
            self._call.send(grpc.encode_stream_response(_empty(request, final=True)))

    def _answer(self, request: InferRequest, answer: Any, *, final: bool) -> None:
        response = self._models.response(request, answer)
        parameters = {**response.parameters, _FINAL: final}
        self._call.send(grpc.encode_stream_response(replace(response, parameters=parameters)))

    def _say(self, request: InferRequest, error: RequestError) -> None:
        message = public_message(error) or OpError.code
        response = _empty(request, final=True)
        if native.is_native(request.parameters):
            response = replace(response, parameters={**response.parameters, **_about(error)})
        self._call.send(grpc.encode_stream_response(response, message))

    def _go_on(self) -> None:
        """The client has taken everything."""
        held, self._held = self._held, set()
        for item in held:
            item.go_on()

    async def _until_below(self, count: int) -> None:
        while self._in_flight >= count:
            self._room = asyncio.get_running_loop().create_future()
            await self._room


def _empty(request: InferRequest, *, final: bool) -> InferResponse:
    return InferResponse((), request.model_name, request.model_version, request.id, {_FINAL: final})


def _about(error: RequestError) -> dict[str, Any]:
    """What a client of ours needs to raise the same error."""
    said = {"grpc_status": status_of(error).value, "code": error.code, "refused": error.was_refused}
    retry_after_s = getattr(error, "retry_after_s", None)
    return said if retry_after_s is None else {**said, "retry_after_s": retry_after_s}
