"""The protobuf messages of health.proto and reflection.proto, by their full names."""

from __future__ import annotations

from asyncline.wire.grpc.descriptors import HEALTH, REFLECTION
from asyncline.wire.schema import Schema

_schema = Schema(HEALTH, REFLECTION)
message, parse = _schema.message, _schema.parse
