"""Sample: what a process holds at one moment. Read from /proc, where nothing waits for a disk."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass, fields

import numpy as np

from asyncline.observe.resident import memory_of, resident_nbytes


@dataclass(frozen=True)
class Sample:
    at: float
    """Seconds, monotonic."""
    requests: int
    """Requests that have had their outcome so far."""
    rss: int
    """Bytes of this process."""
    pss: int
    """The same, with its part only of what several processes share; 0 where the kernel does not tell."""
    workers_rss: int
    """Bytes that the processes of the CPU pool share with nobody."""
    descriptors: int
    tasks: int
    """Of asyncio, without those of requests in flight."""
    threads: int
    blocks: int
    """Memory blocks of Python's allocators."""
    malloc_used: int = 0
    """Bytes of malloc that are in use; 0 where the C library does not tell."""
    malloc_free: int = 0
    """Bytes that it keeps for later, in all of its arenas."""
    uncollected: int = 0
    """Objects that the garbage collector found and could not free."""
    arena: int = 0
    """Bytes in the slots of shared memory that results of the CPU pool still keep."""
    own: int = 0
    """Bytes of this process that the server fills on purpose, up to a bound: its timeline."""


class Samples:
    """The newest samples, as numbers in one array: objects of their own would look like what grows.

    :param most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self._rows = np.zeros((most, len(fields(Sample))))
        self._count = 0

    def append(self, sample: Sample) -> None:
        self._rows[self._count % len(self._rows)] = astuple(sample)
        self._count += 1

    def list(self) -> list[Sample]:
        """Oldest first."""
        most = len(self._rows)
        rows = self._rows[: self._count] if self._count <= most else np.roll(self._rows, -(self._count % most), axis=0)
        return [Sample(float(at), *map(int, rest)) for at, *rest in rows.tolist()]

    def __len__(self) -> int:
        return min(self._count, len(self._rows))


def take(at: float, requests: int, tasks: int, pids: Iterable[int], arena: int = 0, own: int = 0) -> Sample:
    """Some 100 µs, and more with many descriptors or much memory: not to be called on the loop."""
    malloc = _mallinfo()
    return Sample(
        at=at,
        requests=requests,
        rss=resident_nbytes(),
        pss=_pss(),
        workers_rss=sum(memory.resident - memory.shared for pid in pids if (memory := memory_of(pid)) is not None),
        descriptors=len(os.listdir("/proc/self/fd")),
        tasks=tasks,
        threads=threading.active_count(),
        blocks=sys.getallocatedblocks(),
        malloc_used=malloc.uordblks + malloc.hblkhd,
        malloc_free=malloc.fordblks,
        uncollected=sum(generation["uncollectable"] for generation in gc.get_stats()),
        arena=arena,
        own=own,
    )


def count_tasks(in_flight: int) -> int:
    """On the loop. A request may have a task, or none."""
    return max(0, len(asyncio.all_tasks()) - in_flight)


def _pss() -> int:
    with suppress(OSError), open("/proc/self/smaps_rollup", "rb") as file:
        for line in file:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return 0


class _Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of malloc.h."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def _mallinfo() -> _Mallinfo:
    try:
        found = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):  # another C library, or one from before 2020
        return _Mallinfo()
    found.restype = _Mallinfo
    info: _Mallinfo = found()
    return info
