"""Feeds of several requests laid together for one call of `process`, and its result taken apart.

A request's rows are the length of its arrays. Feeds share a call where their arrays agree in names, dtypes and all
lengths but the first; those with anything else in them (text, offsets of sequences) run alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

Feed = dict[str, Any]


def signature(feed: Any) -> Hashable:
    """What feeds have to have in common to be laid together; None for one that runs alone."""
    if not isinstance(feed, dict) or not feed:
        return None
    rows = None
    parts = []
    for name, value in feed.items():
        if not isinstance(value, np.ndarray) or value.ndim == 0 or "lod" in name or value.dtype.hasobject:
            return None
        if rows not in (None, len(value)):
            return None
        rows = len(value)
        parts.append((name, value.dtype.str, value.shape[1:]))
    return tuple(parts) if rows else None


def join(feeds: Sequence[Feed]) -> tuple[Feed, list[int]]:
    """Feeds of one signature, one after the other, and how many rows each has."""
    rows = [len(next(iter(feed.values()))) for feed in feeds]
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}, rows


def split(result: Feed, rows: Sequence[int]) -> list[Feed] | None:
    """The rows of each feed in every value; of a value with offsets, `name.lod`, its sequences.

    None where a value has another number of rows: whose they are cannot be told.
    """
    starts = list(accumulate(rows, initial=0))
    parts: list[Feed] = [{} for _ in rows]
    for name, value in result.items():
        if name.endswith(".lod") and name.removesuffix(".lod") in result:
            continue
        offsets = result.get(f"{name}.lod")
        count = _length(value) if offsets is None else _length(offsets) - 1
        if count != starts[-1]:
            return None
        for part, start, length in zip(parts, starts, rows, strict=False):
            if offsets is None:
                part[name] = value[start : start + length]
            else:
                mine = np.asarray(offsets)[start : start + length + 1]
                part[name], part[f"{name}.lod"] = value[mine[0] : mine[-1]], mine - mine[0]
    return parts


def _length(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return len(value) if value.ndim else -1
    return len(value) if isinstance(value, list) else -1
