"""Memory of processes, read from /proc/PID/statm, which the kernel makes up in microseconds: no disk is touched."""

from __future__ import annotations

import os
from typing import NamedTuple

_PAGE_NBYTES = os.sysconf("SC_PAGE_SIZE")


class Memory(NamedTuple):
    """Of one process, in bytes."""

    resident: int
    shared: int
    """Of that, what may be in other processes too."""


def memory_of(process: int | str = "self") -> Memory | None:
    """None where the process has ended. May be called on the loop."""
    try:
        descriptor = os.open(f"/proc/{process}/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        resident, shared = os.pread(descriptor, 128, 0).split()[1:3]
    except (OSError, ValueError):  # it ended meanwhile
        return None
    finally:
        os.close(descriptor)
    return Memory(int(resident) * _PAGE_NBYTES, int(shared) * _PAGE_NBYTES)


def resident_nbytes() -> int:
    """Of this process."""
    memory = memory_of()
    return 0 if memory is None else memory.resident
