"""Stacks: what the threads and the tasks of this process are doing."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections import Counter

MOST_FRAMES = 12
MOST_TASKS = 1000


def tasks() -> str:
    """Tasks of the running loop; those that wait at one place stand together."""
    places: Counter[str] = Counter()
    found = asyncio.all_tasks()
    for task in list(found)[:MOST_TASKS]:
        frames = task.get_stack(limit=MOST_FRAMES)
        where = "".join(f"    {at.f_code.co_filename}:{at.f_lineno} {at.f_code.co_qualname}\n" for at in frames)
        places[f"{_kind(task.get_name())}\n{where}"] += 1
    head = f"# {len(found)} tasks\n"
    return head + "".join(f"{count} x {place}" for place, count in places.most_common())


def threads() -> str:
    """Of all threads. Call it anywhere; lines of code are read from disk."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = [f"# {len(names)} threads\n"]
    for ident, frame in sys._current_frames().items():
        parts.append(f"{names.get(ident, ident)}\n")
        parts += traceback.format_stack(frame, limit=-MOST_FRAMES if ident == threading.get_ident() else MOST_FRAMES)
    return "".join(parts)


def _kind(name: str) -> str:
    return "Task" if name.startswith("Task-") else name
