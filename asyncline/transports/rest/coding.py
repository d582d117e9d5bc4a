"""Content codings: gzip and deflate of bodies that come in and go out, with the size of what comes in bounded.

A body is inflated piece by piece, and no further than its limit: a bomb costs no more than an honest body of that
size. Long ones are worked on in a thread; zlib lets go of the interpreter meanwhile.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

from asyncline.errors import BadRequest, TooLarge, Unsupported

DEFLATE_RATIO = 1032
"""What deflate can make of a byte, at most: 258 bytes of two bits."""
ON_LOOP_NBYTES = 64 * 1024
"""Up to here a coding takes less than a turn of the loop may."""
LEAST_NBYTES = 1400
"""Shorter answers are one packet anyway."""
LEVEL = 1
"""The fastest: it is the server's time that clients share."""
_GZIP = 16 + zlib.MAX_WBITS

Buffer = bytes | bytearray | memoryview


def most_inflated(nbytes: int) -> int:
    """How long a compressed body of `nbytes` may turn out to be."""
    return nbytes * DEFLATE_RATIO


async def inflate(data: Buffer, coding: str, most: int) -> bytes:
    """A compressed body as it was.

    :param coding: the header Content-Encoding.
    :param most: longest result.
    :raises Unsupported: it is neither gzip nor deflate.
    :raises BadRequest: it is no such thing, ends early, or something comes after it.
    :raises TooLarge: the result is longer.
    """
    coding = coding.strip().lower()
    if coding == "identity":
        return bytes(data)
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise Unsupported(f"content encoding {coding[:32]!r} is not accepted: send gzip, deflate or the body as it is")
    # Some send deflate without zlib's header, whose first two bytes are a multiple of 31.
    bare = coding == "deflate" and (len(data) < 2 or (data[0] << 8 | data[1]) % 31 != 0)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS if coding == "deflate" else _GZIP)
    first = _step(inflater, data, min(most + 1, ON_LOOP_NBYTES))
    if not inflater.eof and inflater.unconsumed_tail:
        if len(first) > most:
            raise _too_large(most)
        first += await asyncio.to_thread(_step, inflater, inflater.unconsumed_tail, most + 1 - len(first))
    if len(first) > most:
        raise _too_large(most)
    if not inflater.eof:
        raise BadRequest("the compressed body ends early")
    if inflater.unused_data:
        raise BadRequest("something comes after the compressed body")
    return first


def _step(inflater: Any, data: Buffer, most: int) -> bytes:
    try:
        return bytes(inflater.decompress(data, most))
    except zlib.error:
        raise BadRequest("the body is not compressed as its Content-Encoding says") from None


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the body is over the limit of {most} bytes once it is inflated")


def accepted_coding(accept: str | None) -> str | None:
    """What an answer may be compressed with, by the header Accept-Encoding; None: nothing."""
    if accept is None:
        return None
    for coding in ("gzip", "deflate"):
        for each in accept.lower().split(","):
            name, _, weight = each.partition(";")
            if name.strip() == coding and weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
                return coding
    return None


async def deflate(parts: tuple[Buffer, ...], coding: str) -> bytes:
    """Compress a body, the parts of which are sent one after the other."""
    if sum(len(part) for part in parts) <= ON_LOOP_NBYTES:
        return _deflate(parts, coding)
    return await asyncio.to_thread(_deflate, parts, coding)


def _deflate(parts: tuple[Buffer, ...], coding: str) -> bytes:
    compressor = zlib.compressobj(LEVEL, wbits=_GZIP if coding == "gzip" else zlib.MAX_WBITS)
    return b"".join([*map(compressor.compress, parts), compressor.flush()])
