"""Memory for what a hook makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

#: Gives room for that many bytes in shared memory, or None; set in a process of the CPU pool.
take: Callable[[int], np.ndarray[Any, Any] | None] | None = None


def empty(shape: int | Sequence[int], dtype: DTypeLike = np.uint8) -> np.ndarray[Any, Any]:
    """An uninitialised array, C-contiguous, for a large result of a hook.

    In the CPU pool it lies in the memory that the server reads: what is written there, returned whole or as
    a view, is not copied again. Anywhere else it is `numpy.empty`.

    :param shape: elements along each axis.
    :param dtype: any but objects.
    """
    kind = np.dtype(dtype)
    if take is None or kind.hasobject:
        return np.empty(shape, kind)
    sides = (shape,) if isinstance(shape, int) else tuple(shape)
    count = prod(sides)
    hold = take(count * kind.itemsize)
    if hold is None:
        return np.empty(shape, kind)
    return hold[: count * kind.itemsize].view(kind).reshape(sides)
