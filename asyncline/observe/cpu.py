"""CPU times: what this process, its loop and its workers took, and how much of the machine's was left."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class CpuTimes:
    """All in seconds since some moment; what the kernel does not tell is 0."""

    loop_s: float
    """Of the thread that asks: the loop's."""
    loop_waited_s: float
    """That this thread could have run, and something else did."""
    processes_s: Mapping[int, float]
    """Of this process, by 0, and of each worker process, by its id."""
    up_s: float
    """That the machine has been up."""
    idle_s: float
    """That its cores had nothing to do, all added up."""

    @classmethod
    def take(cls, pids: Iterable[int]) -> CpuTimes:
        """Call it on the loop; costs some 20 µs."""
        waited = _read("/proc/thread-self/schedstat")
        up, idle = _read("/proc/uptime") or (0.0, 0.0)
        processes = {0: time.process_time()}
        for pid in pids:
            # A process's CPU clock, as clock_getcpuclockid(3) makes its number; no file is read.
            with suppress(OSError):
                processes[pid] = time.clock_gettime((~pid << 3) | 2)
        return cls(time.thread_time(), waited[1] / 1e9 if waited else 0.0, processes, up, idle)

    def idle_cores(self, earlier: CpuTimes) -> float | None:
        """How many cores of the machine have had nothing to do since `earlier`; None where that is not known."""
        up_s = self.up_s - earlier.up_s
        return (self.idle_s - earlier.idle_s) / up_s if up_s > 0 and self.idle_s else None

    def spent(self, earlier: CpuTimes) -> dict[int, float]:
        """CPU seconds since `earlier`, by process."""
        return {pid: spent - earlier.processes_s.get(pid, 0.0) for pid, spent in self.processes_s.items()}


def _read(path: str) -> tuple[float, ...]:
    """The numbers of a file of /proc, which the kernel makes up in microseconds; none where there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ()
    try:
        return tuple(map(float, os.pread(descriptor, 128, 0).split()))
    finally:
        os.close(descriptor)
