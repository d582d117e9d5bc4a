"""Inflating what comes compressed, no further than to its limit: a bomb costs no more than an honest body.

What is long is inflated in a thread, from its beginning and in one piece, so that nothing is copied on the loop; zlib
lets go of the interpreter meanwhile. Its bytes have been taken from the budget by then.
"""

from __future__ import annotations

import asyncio
import zlib

from asyncline.errors import BadRequest, TooLarge

DEFLATE_RATIO = 1032
"""What deflate can make of a byte, at most: 258 bytes of two bits."""
ON_LOOP_NBYTES = 64 * 1024
"""Up to here a coding takes less than a turn of the loop may."""
ZLIB, GZIP, BARE = zlib.MAX_WBITS, 16 + zlib.MAX_WBITS, -zlib.MAX_WBITS
"""`wbits` of what deflate's output is wrapped in."""

Buffer = bytes | bytearray | memoryview


def most_inflated(nbytes: int) -> int:
    """How long `nbytes` may turn out to be."""
    return nbytes * DEFLATE_RATIO


async def inflate(data: Buffer, wbits: int, most: int, what: str) -> bytes:
    """See `inflate_nowait`; this takes its time."""
    found = inflate_nowait(data, wbits, most, what)
    return await asyncio.to_thread(inflate_all, data, wbits, most, what) if found is None else found


def inflate_nowait(data: Buffer, wbits: int, most: int, what: str) -> bytes | None:
    """What was compressed; None where it is too long for the loop.

    :param most: longest result.
    :param what: for the message: what it is.
    :raises BadRequest: it is not compressed so, ends early, or something comes after it.
    :raises TooLarge: the result is longer.
    """
    if len(data) > ON_LOOP_NBYTES:
        return None
    if most <= ON_LOOP_NBYTES:
        return inflate_all(data, wbits, most, what)
    return _inflate(data, wbits, ON_LOOP_NBYTES, what)


def inflate_all(data: Buffer, wbits: int, most: int, what: str) -> bytes:
    """See `inflate_nowait`; for a thread."""
    found = _inflate(data, wbits, most, what)
    if found is None:
        raise TooLarge(f"{what} is over the limit of {most} bytes once it is inflated")
    return found


def _inflate(data: Buffer, wbits: int, most: int, what: str) -> bytes | None:
    """None: it is longer."""
    inflater = zlib.decompressobj(wbits)
    try:
        found = inflater.decompress(data, most + 1)
    except zlib.error:
        raise BadRequest(f"{what} is not compressed as its encoding says") from None
    if len(found) > most:
        return None
    if not inflater.eof:
        raise BadRequest(f"{what} ends early: it is compressed, and its end is missing")
    if inflater.unused_data:
        raise BadRequest(f"something comes after what is compressed of {what}")
    return found
