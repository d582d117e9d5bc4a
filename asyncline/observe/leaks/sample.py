"""Sample: what a process holds at one moment. Read from /proc, where nothing waits for a disk."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

_PAGE_NBYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    at: float
    """Seconds, monotonic."""
    requests: int
    """Requests that have had their outcome so far."""
    rss: int
    """Bytes of this process."""
    workers_rss: int
    """Bytes that the processes of the CPU pool share with nobody."""
    descriptors: int
    tasks: int
    """Of asyncio, without those of requests in flight."""
    threads: int
    blocks: int
    """Memory blocks of Python's allocators."""


def take(at: float, requests: int, tasks: int, pids: Iterable[int]) -> Sample:
    """Some 100 µs, and more with many descriptors: not to be called on the loop."""
    return Sample(
        at=at,
        requests=requests,
        rss=_memory("self")[0],
        workers_rss=sum(resident - shared for resident, shared in map(_memory, map(str, pids))),
        descriptors=len(os.listdir("/proc/self/fd")),
        tasks=tasks,
        threads=threading.active_count(),
        blocks=sys.getallocatedblocks(),
    )


def count_tasks(in_flight: int) -> int:
    """On the loop. A request may have a task, or none."""
    return max(0, len(asyncio.all_tasks()) - in_flight)


def _memory(process: str) -> tuple[int, int]:
    with suppress(OSError), open(f"/proc/{process}/statm", "rb") as file:
        resident, shared = file.read().split()[1:3]
        return int(resident) * _PAGE_NBYTES, int(shared) * _PAGE_NBYTES
    return 0, 0  # it has ended
