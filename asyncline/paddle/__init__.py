"""Paddle Serving's pipeline classes on this engine."""

from asyncline.paddle import pipeline_service_pb2
from asyncline.paddle.arguments import ArgsParser
from asyncline.paddle.channel_data import ChannelData, ChannelDataType
from asyncline.paddle.errors import (
    ChannelDataEcode,
    ChannelDataErrcode,
    CustomException,
    CustomExceptionCode,
    ProductErrCode,
)
from asyncline.paddle.op import Op
from asyncline.paddle.request_op import RequestOp
from asyncline.paddle.response_op import ResponseOp
from asyncline.paddle.server import PipelineServer, WebService

__all__ = [
    "ArgsParser",
    "ChannelData",
    "ChannelDataEcode",
    "ChannelDataErrcode",
    "ChannelDataType",
    "CustomException",
    "CustomExceptionCode",
    "Op",
    "PipelineServer",
    "ProductErrCode",
    "RequestOp",
    "ResponseOp",
    "WebService",
    "pipeline_service_pb2",
]
