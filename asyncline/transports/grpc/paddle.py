"""Paddle Serving's PipelineService, for clients of both numberings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from grpclib.const import Cardinality, Handler

from asyncline.engine.engine import Engine
from asyncline.errors import RequestError
from asyncline.transports.grpc.call import Call
from asyncline.transports.grpc.inbox import Bytes
from asyncline.transports.grpc.service import Service
from asyncline.transports.paddle import Pipeline
from asyncline.transports.threads import LARGE_NBYTES
from asyncline.wire.paddle import BadPackage, PipelineRequest, grpc
from asyncline.wire.weight import Scale


class PaddleService(Service):
    """`inference`: every outcome of a request that could be read is an answer with its number in `err_no`; a message
    that could not, and what is refused at the door, is a status.
    """

    files = (grpc.FILE,)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pipeline = Pipeline(engine)
        self._max_decoded = engine.plan.settings.service.max_decoded_nbytes

    def __mapping__(self) -> Mapping[str, Handler]:
        return {grpc.METHOD: Handler(self._inference, Cardinality.UNARY_UNARY, bytes, bytes)}

    def _inference(self, call: Call, data: Bytes) -> None:
        if len(data) > LARGE_NBYTES:
            call.decode(self._read, data, partial(self._run, call))
        else:
            self._run(call, self._read(data))

    def _read(self, data: Bytes) -> RequestError | tuple[PipelineRequest, Any, int]:
        """The request, its payload and what that weighs; or why it fits nothing here."""
        scale = Scale(self._max_decoded)
        try:
            request = grpc.decode_request(data, scale)
        except BadPackage as error:
            return error
        try:
            return request, self._pipeline.payload(request, scale), scale.nbytes
        except RequestError as error:
            return error

    def _run(self, call: Call, read: RequestError | tuple[PipelineRequest, Any, int]) -> None:
        if isinstance(read, RequestError):
            self._misfit(call, read)
            return
        request, payload, weight = read
        pipeline = self._pipeline
        call.run(
            payload,
            lambda item: pipeline.answer(request, item, grpc.encode_response),
            weight=weight,
            log_id=pipeline.log_id(request) or None,
        )

    def _misfit(self, call: Call, error: RequestError) -> None:
        """Answer what could be read, and fits nothing here."""
        self._engine.note_rejected(error)
        call.answer(self._pipeline.refusal(error, grpc.encode_response))
