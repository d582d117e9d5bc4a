"""RequestOp: the entry of a pipeline."""

from __future__ import annotations

from typing import Any

from asyncline.paddle.op import ENTRY, Op
from asyncline.wire.paddle import PipelineRequest


class RequestOp(Op):
    """Unpacks what a client sent. Override `unpack_request_package`, and `init_op` for what it needs."""

    def __init__(self) -> None:
        super().__init__(name=ENTRY)

    def unpack_request_package(self, request: PipelineRequest) -> Any:
        """From the request to a dict for the first Ops.

        :returns: `(data, log_id, prod_errcode, prod_errinfo)`, or the data alone. By default text by key, and arrays
            by the names of tensors, with their offsets as `name.lod`.
        """
        return request.values(), request.logid, None, ""
