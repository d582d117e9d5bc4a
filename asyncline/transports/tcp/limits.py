"""Limits: what one connection may take, in time and in bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Besides those of ServiceSettings: `max_body_mb`, `body_timeout_s` for a whole frame, `keepalive_s`."""

    hello_s: float = 10.0
    """How long a client may take to say HELLO."""
    linger_s: float = 1.0
    """How long a client may take to close its end after a GOAWAY."""
    max_streams: int = 256
    """Most CALLs of one connection that wait for their answer."""
    max_value_nbytes: int = 2**20
    """Most of lists, maps and texts in one CALL; they become Python objects one by one, on the loop."""
    burst: int = 128
    """Most frames of one connection in one turn of the loop; others have theirs in between."""
    unread_nbytes: int = 2**20
    """With more than this written and not yet read, nothing more is taken from a client."""
    stall_s: float = 30.0
    """How often such a client has to have read ..."""
    stall_nbytes: int = 30 * 16 * 1024
    """... so much; else it is closed."""
