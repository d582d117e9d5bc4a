"""What gRPC compresses messages with: one by one, in both directions."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from asyncline.errors import BadRequest, TooLarge, Unsupported

if TYPE_CHECKING:
    from zlib import _Decompress

IDENTITY = "identity"
_WBITS = {"gzip": 31, "deflate": 15}
"""Of zlib: in the wrapping of gzip, and in its own, which is what gRPC calls deflate."""
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


class Inflator:
    """Inflates one message as it comes; never to more than `max_nbytes`."""

    def __init__(self, encoding: str, max_nbytes: int) -> None:
        if encoding not in _WBITS:
            raise BadRequest("a message is marked as compressed, but no grpc-encoding says how")
        self._inflate: _Decompress = zlib.decompressobj(_WBITS[encoding])
        self._max_nbytes = max_nbytes
        self._left = max_nbytes

    def feed(self, data: bytes | memoryview) -> bytes:
        """Inflate some more.

        :raises TooLarge: it is over the limit now.
        :raises BadRequest: it is not of the encoding.
        """
        try:
            found = self._inflate.decompress(data, self._left + 1)
        except zlib.error:
            raise BadRequest("a message is not of the grpc-encoding that was said") from None
        self._left -= len(found)
        if self._left < 0:
            raise TooLarge(f"a message inflates to more than the limit of {self._max_nbytes} bytes")
        return found

    def finish(self) -> None:
        """:raises BadRequest: what was fed is less than a message, or more."""
        if not self._inflate.eof or self._inflate.unused_data:
            raise BadRequest("a compressed message is cut off, or more than one")
