"""Bundle: what an alarm leaves on disk."""

from __future__ import annotations

import dataclasses
import gc
import shutil
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from asyncline.observe.leaks.judge import Finding
from asyncline.observe.leaks.sample import Sample
from asyncline.wire import json

MOST_BUNDLES = 5
"""The oldest are deleted."""
MOST_LINES = 50
MOST_CHARACTERS = 10**6
"""Of each of its texts."""
MOST_TRACED_NBYTES = 32 * 2**20
"""Of what tracemalloc keeps about allocations; above, tracing ends early."""
LOOK_S = 0.1
_tracing = threading.Lock()


class Busy(Exception):
    """Allocations are being traced already."""


def traced(seconds: float, closed: threading.Event) -> str:
    """What has been allocated within some seconds and not freed, by line of code. All is several times slower.

    It ends early where there is too much of that to keep.

    :param closed: ends it early.
    :raises Busy: somebody else does.
    """
    if not _tracing.acquire(blocking=False):
        raise Busy
    try:
        if tracemalloc.is_tracing():
            raise Busy
        types = _types()
        tracemalloc.start(1)
        try:
            until = time.monotonic() + seconds
            while tracemalloc.get_tracemalloc_memory() < MOST_TRACED_NBYTES:
                left_s = until - time.monotonic()
                if left_s <= 0 or closed.wait(min(LOOK_S, left_s)):
                    break
            snapshot = tracemalloc.take_snapshot()
        finally:
            tracemalloc.stop()
        own = tracemalloc.Filter(False, tracemalloc.__file__)
        lines = [str(found) for found in snapshot.filter_traces([own]).statistics("lineno")[:MOST_LINES]]
        more = _types() - types
        counts = [f"{count:+10d} {name}" for name, count in more.most_common(MOST_LINES)]
        return "\n".join(
            [f"# allocated within {seconds:g} s and alive", *lines, "", "# objects more, by type", *counts]
        )
    finally:
        _tracing.release()


def _types() -> Counter[str]:
    return Counter(f"{kind.__module__}.{kind.__qualname__}" for kind in map(type, gc.get_objects()))


def write(folder: Path, finding: Finding, samples: Sequence[Sample], tasks: str, allocated: str) -> Path:
    """Write a bundle into a folder of its own below `folder`; returns that.

    :raises OSError: it cannot be written.
    """
    kept = sorted(folder.glob("leak-*"))
    for old in kept[: max(0, len(kept) + 1 - MOST_BUNDLES)]:
        shutil.rmtree(old, ignore_errors=True)
    made = folder / time.strftime("leak-%Y%m%d-%H%M%S")
    made.mkdir(parents=True)
    (made / "report.txt").write_text(f"{finding.text}\nPython {sys.version}\n")
    (made / "samples.json").write_bytes(json.encode([dataclasses.asdict(sample) for sample in samples]))
    (made / "tasks.txt").write_text(tasks[:MOST_CHARACTERS])
    (made / "allocated.txt").write_text(allocated[:MOST_CHARACTERS])
    return made
