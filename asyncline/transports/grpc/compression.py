"""What gRPC compresses messages with: one by one, in both directions."""

from __future__ import annotations

import zlib

from asyncline.errors import BadRequest, Unsupported
from asyncline.transports.inflate import GZIP, ZLIB

IDENTITY = "identity"
_WBITS = {"gzip": GZIP, "deflate": ZLIB}
ACCEPTED = ",".join((IDENTITY, *_WBITS))
"""For `grpc-accept-encoding`."""
LEAST_NBYTES = 1024
"""A smaller answer is sent as it is."""
_LEVEL = 1


def check(encoding: str) -> None:
    """:raises Unsupported: nobody here speaks it."""
    if encoding != IDENTITY and encoding not in _WBITS:
        raise Unsupported(f"the encoding {encoding[:32]!r} is not known (there are: {ACCEPTED})")


def chosen(encoding: str, accepted: str) -> str:
    """What to send answers in: as the client itself sends, if it says that it reads that too."""
    return encoding if encoding in _WBITS and encoding in accepted.replace(" ", "").split(",") else IDENTITY


def compress(message: bytes | memoryview, encoding: str) -> bytes:
    deflate = zlib.compressobj(_LEVEL, wbits=_WBITS[encoding])
    return deflate.compress(message) + deflate.flush()


def wbits_of(encoding: str) -> int:
    """For `inflate`.

    :raises BadRequest: it is none.
    """
    if encoding not in _WBITS:
        raise BadRequest("a message is marked as compressed, but no grpc-encoding says how")
    return _WBITS[encoding]
