"""The protobuf messages of open_inference.proto."""

from __future__ import annotations

from asyncline.wire.oip.descriptor import DESCRIPTOR
from asyncline.wire.schema import Schema

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
"""Of the path of a method: `/inference.GRPCInferenceService/ModelInfer`."""

_schema = Schema(DESCRIPTOR, package=PACKAGE)
pool, message, parse = _schema.pool, _schema.message, _schema.parse


def method(name: str) -> str:
    """The path of a method."""
    return f"/{SERVICE}/{name}"
