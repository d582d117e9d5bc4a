"""Resident: the memory of this process, and of others."""

from __future__ import annotations

import os

_PAGE_NBYTES = os.sysconf("SC_PAGE_SIZE")


class Resident:
    """Reads /proc/self/statm, which the kernel makes up in microseconds: no disk is touched."""

    def __init__(self) -> None:
        self._descriptor = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def nbytes(self) -> int:
        """Resident set size."""
        return int(os.pread(self._descriptor, 128, 0).split()[1]) * _PAGE_NBYTES

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def nbytes_of(pid: int) -> int | None:
    """Resident set size of another process, with what it shares; None where it has ended."""
    try:
        descriptor = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return int(os.pread(descriptor, 128, 0).split()[1]) * _PAGE_NBYTES
    except (OSError, IndexError):  # it ended meanwhile
        return None
    finally:
        os.close(descriptor)
