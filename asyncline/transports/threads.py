"""Work on messages that is too much for a turn of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

LARGE_NBYTES = 256 * 1024
"""Messages over this size are decoded in a thread."""
MOST = 2
"""At once. More would not be sooner, as they hold the interpreter by turns; and what they make is not in the budget of
bytes in flight before it is whole."""

_P = ParamSpec("_P")
_T = TypeVar("_T")

_threads = ThreadPoolExecutor(MOST, "asyncline-decode")


async def in_thread(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """What `work` returns or raises; if nobody waits any more before it is its turn, it is not done at all."""
    return await asyncio.get_running_loop().run_in_executor(_threads, lambda: work(*args, **kwargs))
