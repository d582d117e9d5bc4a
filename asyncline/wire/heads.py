"""The heads of arrays, maps and texts in msgpack, which say how long these are. msgpack itself believes them."""

from __future__ import annotations

import msgpack

LEAST_NBYTES = 512
"""What is shorter needs no look: whatever its heads say, that costs less than 20 us."""


def check(data: bytes | memoryview) -> None:
    """See to it that all is as long as it says. It takes 2.5 ns a head, and of others nothing.

    msgpack makes room for every array and map at once: 64 KiB of heads that say so again and again, each inside of the
    other, took 340 ms.

    :raises msgpack.OutOfData: it is not. Others of msgpack: it is none.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    unpacker.skip()
