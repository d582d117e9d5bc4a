"""The protobuf messages of health.proto and reflection.proto, in a descriptor pool of their own.

Not in protobuf's default pool: who imports grpcio's health or reflection in the same process registers them there.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pool, message_factory  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from asyncline.errors import BadRequest
from asyncline.wire.grpc.descriptors import HEALTH, REFLECTION

_pool = descriptor_pool.DescriptorPool()
for _file in (HEALTH, REFLECTION):
    _pool.AddSerializedFile(_file)


@cache
def message(name: str) -> Any:
    """The class of a message, by its full name."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(name))


def parse(name: str, data: bytes | memoryview) -> Any:
    """Read a message.

    :raises BadRequest: it is malformed.
    """
    try:
        return message(name).FromString(bytes(data))
    except DecodeError:
        raise BadRequest(f"the message is no {name}") from None
