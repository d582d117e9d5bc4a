"""Content codings: gzip and deflate of bodies that come in and go out. Long ones are worked on in a thread."""

from __future__ import annotations

import asyncio
import zlib

from asyncline.errors import Unsupported
from asyncline.transports.inflate import BARE, GZIP, ON_LOOP_NBYTES, ZLIB, Buffer
from asyncline.transports.inflate import inflate as inflated

LEAST_NBYTES = 1400
"""Shorter answers are one packet anyway."""
LEVEL = 1
"""The fastest: it is the server's time that clients share."""


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
    wbits = GZIP if coding != "deflate" else ZLIB
    # Some send deflate without zlib's header, whose first two bytes are a multiple of 31.
    if coding == "deflate" and (len(data) < 2 or (data[0] << 8 | data[1]) % 31 != 0):
        wbits = BARE
    return await inflated(data, wbits, most, "the body")


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
    compressor = zlib.compressobj(LEVEL, wbits=GZIP if coding == "gzip" else ZLIB)
    return b"".join([*map(compressor.compress, parts), compressor.flush()])
