"""CallLimits: what the calls of one connection may take, besides what any connection may."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CallLimits:
    """Besides `asyncline.transports.guard.limits`."""

    max_streams: int = 256
    """Most CALLs of one connection that wait for their answer."""
    max_value_nbytes: int = 2**20
    """Most of lists, maps and texts in one CALL; they become Python objects one by one, on the loop."""
    max_value_weight: int = 12 * 2**20
    """Most bytes that these become, as Scale weighs them: 100,000 numbers, or 40,000 lists and maps of one element,
    whose decoding takes up to 16 ms. A megabyte of empty lists took 215 ms."""
    burst: int = 16
    """Most frames of one connection in one turn of the loop; others have theirs in between. With 64 of them in a turn
    requests by other wires waited twice as long, for 2 % more calls."""
    turn_burst: int = 32
    """Most of all connections, while other wires have something to do."""
