"""Ends: the RequestOp and the ResponseOp of a pipeline, as its Request and as Ops of ours.

PlainEntry        of a RequestOp as it is                    value: (data, log_id)
Entry             unpack_request_package and init_op         value: (data, log_id)
Exit              pack_response_package, where it has to be an Op; value: a PipelineResponse
"""

from __future__ import annotations

from typing import Any

from asyncline.errors import BadRequest, RequestError
from asyncline.graph.op import Op as EngineOp
from asyncline.graph.request import Input, Request
from asyncline.paddle.channel_data import ChannelData
from asyncline.paddle.errors import CustomExceptionCode, HookError, caused_by, check_product_error, hook_failed
from asyncline.paddle.hooks import Hook, filled, item_now
from asyncline.paddle.request_op import RequestOp
from asyncline.paddle.response_op import ResponseOp
from asyncline.wire.paddle import PipelineRequest, PipelineResponse
from asyncline.wire.paddle.messages import TEXTS

Value = tuple[dict[str, Any], int] | tuple[dict[str, Any], int, str]
"""What an Op hands on: its result, and the log_id that the request came with; of one that jumps, its name."""


class PipelineEntry(Request):
    """The graph's entry: the PipelineRequest as it came."""

    takes_pipeline = True

    def unpack(self, payload: Any) -> Any:
        if not isinstance(payload, PipelineRequest):
            raise BadRequest("expected a request of Paddle's: POST /{name}/prediction with key and value")
        return payload


class PlainEntry(PipelineEntry):
    """The graph's entry, where nobody has overridden RequestOp: what it does is no work for an Op."""

    def unpack(self, payload: Any) -> Value:
        if type(payload) is not PipelineRequest:
            payload = super().unpack(payload)
        return payload.values(), payload.logid


class Entry(EngineOp):
    """A subclass of RequestOp as an Op of ours."""

    def __init__(self, request: Input, *, paddle: RequestOp, **settings: Any) -> None:
        super().__init__(request, **settings)
        self.paddle = paddle
        self._unpack = Hook(paddle, RequestOp, "unpack_request_package", 1)

    def init_op(self) -> None:
        self.paddle.init_op()

    def preprocess(self, request: PipelineRequest) -> Value:
        try:
            returned, _ = self._unpack.run({}, request)
            data, log_id, code, info = filled(returned, (None, request.logid, None, ""))
        except RequestError:
            raise
        except Exception as error:
            text = f"unpack_request_package: {type(error).__name__}: {error}"
            raise caused_by(error, CustomExceptionCode.RPC_PACKAGE_ERROR.value, text) from error
        check_product_error(code, info)
        if not isinstance(data, dict):
            text = f"unpack_request_package: expected a dict, got {type(data).__name__}"
            raise HookError(CustomExceptionCode.RPC_PACKAGE_ERROR.value, text)
        return data, log_id


class Packer:
    """Makes the answer of the last result."""

    def __init__(self, response: ResponseOp) -> None:
        self._response = response
        self._pack = Hook(response, ResponseOp, "pack_response_package", 1)

    def init(self) -> None:
        self._response.init_op()

    def pack(self, data: dict[str, Any], data_id: int, log_id: int) -> Any:
        if self._pack.is_default and TEXTS.issuperset(map(type, data.values())):
            return PipelineResponse(0, "", [*data], [*data.values()], [])  # as most are, and as it would make it
        try:
            answer, _ = self._pack.run({}, ChannelData(data, data_id, log_id))
        except Exception as error:
            raise hook_failed(error, type(self._response).__qualname__, "pack_response_package", log_id) from error
        return answer


class Exit(EngineOp):
    """A ResponseOp as an Op of ours."""

    def __init__(self, last: Input, *, paddle: ResponseOp, **settings: Any) -> None:
        super().__init__(last, **settings)
        self.paddle = paddle
        self._packer = Packer(paddle)

    def init_op(self) -> None:
        self._packer.init()

    def preprocess(self, value: Value) -> Any:
        return self._packer.pack(value[0], item_now().data_id, value[1])
