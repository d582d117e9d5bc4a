"""Schema: protobuf messages in a descriptor pool of their own.

Not in protobuf's default pool: who imports grpcio's or Triton's modules in the same process registers theirs there.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pool, message_factory  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from asyncline.errors import BadRequest


class Schema:
    """:param files: each a FileDescriptorProto.
    :param package: that of the names that messages are asked for by; empty where those are full.
    """

    def __init__(self, *files: bytes, package: str = "") -> None:
        self.pool = descriptor_pool.DescriptorPool()
        for file in files:
            self.pool.AddSerializedFile(file)
        self._prefix = f"{package}." if package else ""
        #: The class of a message: `message("ModelReadyRequest")(name="resnet").SerializeToString()`.
        self.message = cache(self._class)

    def _class(self, name: str) -> Any:
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(self._prefix + name))

    def parse(self, name: str, data: bytes | memoryview) -> Any:
        """Read a message.

        :raises BadRequest: it is malformed.
        """
        try:
            return self.message(name).FromString(data)
        except DecodeError:
            raise BadRequest(f"the message is no {name}") from None
