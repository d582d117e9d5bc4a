"""What a serving process sets before libraries are loaded: threads of native libraries, and malloc.

Variables that are set already are left as they are. `ASYNCLINE_MALLOC=0` leaves malloc as it is.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import MutableMapping

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)
"""Read by OpenMP (torch, scikit-image), MKL, OpenBLAS (numpy), numexpr and OpenCV when they are loaded."""

MALLOC_SWITCH = "ASYNCLINE_MALLOC"
KEPT_BYTES = 512 * 2**20
# Of malloc.h: mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def set_library_threads(count: int, environ: MutableMapping[str, str] = os.environ) -> None:
    """Let native libraries that are loaded from here on run one call in `count` threads.

    Lanes and replicas run calls side by side already: calls × threads beyond the cores only get in each
    other's way.
    """
    for name in THREAD_VARIABLES:
        environ.setdefault(name, str(count))


def tune_malloc() -> bool:
    """Have glibc keep large blocks that are freed, rather than hand them back and fault them in again.

    Batches of a torch model on the CPU become up to five times faster by it, as their activations are such
    blocks; up to KEPT_BYTES that were once used stay with the process. Returns whether it was done.
    """
    if os.environ.get(MALLOC_SWITCH, "1") == "0" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    # One arena: a thread's own gives its heaps back whatever the threshold, and is faulted in again.
    mallopt(_M_ARENA_MAX, 1)
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
