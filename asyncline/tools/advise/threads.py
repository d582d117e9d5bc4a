"""Calls of user code in threads of their own, at the same time and bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from asyncline.engine.context import Context, current
from asyncline.tools.advise.arguments import describe

T = TypeVar("T")

HANG_S = 10.0
"""When calls that have not returned are left behind."""


class Unmeasured(Exception):
    """A hook that gave no figures; says why."""


def together(*works: Callable[[], T], limit_s: float = HANG_S) -> list[T]:
    """Run `works` at the same time, in hooks' surroundings, and return their results.

    :raises Unmeasured: one raised, or did not return within `limit_s`; its thread is left behind.
    """
    barrier = threading.Barrier(len(works))
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(place: int, work: Callable[[], T]) -> None:
        current.set(Context(0, "advise", None, time.monotonic() + limit_s))
        barrier.wait()
        try:
            results[place] = work()
        except BaseException as error:  # a SystemExit of a hook, too
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(works)]
    until = time.monotonic() + limit_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    if errors:
        raise Unmeasured(f"raises {describe(errors[0])}")
    if len(results) < len(works):
        raise Unmeasured(f"did not return within {limit_s:g} s")
    return [results[place] for place in range(len(works))]
