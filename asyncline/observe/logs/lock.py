"""FolderLock: a folder that one process has for itself; two that rotate the same files lose lines."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

NAME = "pipeline.lock"


class InUse(Exception):
    """Another process has the folder; says which."""


class FolderLock:
    """Held until `close`, or until the process ends in whatever way: what it left behind locks nobody out.

    :raises InUse: it is taken.
    :raises OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 20).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise InUse(f"pid {holder}" if holder.isdigit() else "of an unknown pid") from None
        except OSError:
            pass  # a file system without locks
        else:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        os.close(self._descriptor)
