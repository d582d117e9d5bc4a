"""The protobuf messages of open_inference.proto, in a descriptor pool of their own.

Not in protobuf's default pool: a client library of the protocol that is imported in the same process registers
messages of the same names there.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pool, message_factory  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from asyncline.errors import BadRequest
from asyncline.wire.oip.descriptor import DESCRIPTOR

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
"""Of the path of a method: `/inference.GRPCInferenceService/ModelInfer`."""

pool = descriptor_pool.DescriptorPool()
pool.AddSerializedFile(DESCRIPTOR)


@cache
def message(name: str) -> Any:
    """The class of a message: `message("ModelReadyRequest")(name="resnet").SerializeToString()`."""
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def parse(name: str, data: bytes | memoryview) -> Any:
    """Read a message of the schema.

    :raises BadRequest: it is malformed.
    """
    try:
        return message(name).FromString(bytes(data))
    except DecodeError:
        raise BadRequest(f"the message is no {name}") from None


def method(name: str) -> str:
    """The path of a method."""
    return f"/{SERVICE}/{name}"
