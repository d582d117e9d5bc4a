"""CallLimits: what the calls of one connection may take, besides what any connection may."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CallLimits:
    """Besides `asyncline.transports.guard.limits`, and `max_body_mb` of a message."""

    max_streams: int = 256
    """Most calls of one connection at a time."""
    header_nbytes: int = 16 * 1024
    """Most of the headers of one call, as HTTP/2 counts them: 32 for each, besides its name and value."""
    frame_nbytes: int = 2**18
    """Longest frame."""
    stream_window_nbytes: int = 2**20
    """Most that a client may send on one call before it is taken in ..."""
    window_nbytes: int = 2**22
    """... and on all of them."""
    burst: int = 8
    """Most short frames of one connection in one turn of the loop; others have theirs in between. A small call is two,
    and takes the loop about 0.1 ms: with 64 of them in a turn, requests by other wires waited six times as long."""
    turn_burst: int = 16
    """Most of all connections, while other wires have something to do."""
    resets: int = 512
    """Most calls that a client may take back at once ..."""
    resets_per_s: float = 100.0
    """... and for long."""
    chatter: int = 512
    """Most frames at once that are neither part of a call nor asked for by the size of an answer (PING, SETTINGS,
    PRIORITY, WINDOW_UPDATE, empty DATA, what nobody knows) ..."""
    chatter_per_s: float = 20.0
    """... and for long."""
    chatter_per_frame: int = 4
    """How many more for each frame of a call, and of its answer."""
    ping_s: float = 60.0
    """After so long without a word a client that waits for an answer is asked whether it is there ..."""
    pong_s: float = 20.0
    """... and has so long to say so."""
