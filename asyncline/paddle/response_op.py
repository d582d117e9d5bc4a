"""ResponseOp: the exit of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncline.errors import GraphError
from asyncline.paddle.channel_data import ChannelData
from asyncline.paddle.errors import CustomExceptionCode, HookError
from asyncline.paddle.op import ENTRY, Op
from asyncline.wire.paddle import PaddleTensor, PipelineResponse
from asyncline.wire.paddle.printed import write


class ResponseOp(Op):
    """Packs what a client gets. Override `pack_response_package`, and `init_op` for what it needs.

    It is asked for answers only: an error goes to the client as its number and message.
    """

    def __init__(self, input_ops: Sequence[Op] | Op) -> None:
        super().__init__(name=ENTRY, input_ops=input_ops)
        self.is_pack_tensor = False

    def set_pack_format(self, isTensor: bool = False) -> None:
        """Whether arrays are answered as tensors rather than as the text that Python prints."""
        self.is_pack_tensor = isTensor

    def pack_response_package(self, channeldata: ChannelData) -> PipelineResponse:
        """From the result of the last Op to the answer: arrays or text by key.

        :raises HookError: a value is neither (7000).
        """
        values = channeldata.parse()
        response = PipelineResponse()
        if channeldata.npdata is not None and self.is_pack_tensor:
            response.tensors = [PaddleTensor(name, _array(value)) for name, value in values.items()]
            return response
        for name, value in values.items():
            if channeldata.npdata is None and not isinstance(value, str):
                raise HookError(
                    CustomExceptionCode.TYPE_ERROR.value, f"fetch var type must be str({type(value).__name__})."
                )
            response.key.append(name)
            response.value.append(value if isinstance(value, str) else printed(value))
        return response


def check_response_op(response_op: Any) -> ResponseOp:
    """:raises GraphError: it is no ResponseOp of exactly one Op."""
    if not isinstance(response_op, ResponseOp):
        raise GraphError(f"set_response_op: expected a ResponseOp, got {response_op!r}")
    if len(response_op.get_input_ops()) != 1:
        raise GraphError("set_response_op: a ResponseOp has exactly one Op in input_ops")
    return response_op


def printed(value: Any) -> str:
    """An array, or a list of text, as Python prints it; of numbers all digits."""
    return repr(value) if isinstance(value, list) else write(value)


def _array(value: Any) -> np.ndarray[Any, Any]:
    return value if isinstance(value, np.ndarray) else np.array(value, object)
