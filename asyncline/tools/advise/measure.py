"""Figures of one hook: it is called again and again, alone and by two threads at once."""

from __future__ import annotations

import hashlib
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from asyncline.tools.advise.arguments import Arguments, Pickled, describe
from asyncline.tools.advise.policy import INLINE_S, Figures, duration
from asyncline.tools.advise.race import Race, Span
from asyncline.tools.advise.tap import Tap
from asyncline.tools.advise.threads import Unmeasured, together

ALONE_S = 0.3
MOST_CALLS = 1000
"""Bounds on the calls alone."""
RACE_S = 1.5
"""Most time of the rounds of one and two threads; half of that, or less, where the machine is idle."""
ROUND_S = 0.01
"""Least time of a round; a thread takes 0.1 ms to start."""
ROUND_CALLS = 250
"""Most calls of one thread's round."""
SLOW_S = 2.0
"""A call that takes longer is not repeated."""
COPIES_BYTES = 64_000_000
"""Most bytes of arguments that lie ready for one thread's round."""
COPIES = 16
"""Likewise, where their bytes are not known."""
HANDOVER_S = 25e-6
"""What a task of the process lane costs the server, beside its data (DESIGN §10)."""
CONTROL = bytes(1_000_000)
CONTROL_S = 1e-3
"""About the time of hashing it."""

Call = tuple[Any, ...]
"""The arguments of one call."""


def measure(tap: Tap, barred: str = "") -> Figures:
    """Figures of a hook that was called once and returned. Blocks for a second, and some calls of the hook.

    :param barred: why its Op cannot be made in the CPU pool; empty where it can.
    :raises Unmeasured: it raised, or did not return.
    """
    arguments = tap.arguments
    assert arguments is not None and tap.seconds is not None
    if not barred and arguments.barred:
        barred = f"its arguments cannot cross: {arguments.barred}"
    if arguments.lost:
        unjudged = f"called once only, as its arguments cannot be copied: {arguments.lost}"
        return Figures(tap.seconds, barred=barred, unjudged=unjudged)
    (figures,) = together(partial(_alone, tap.function, arguments))
    figures = replace(figures, barred=barred or figures.barred)
    if figures.unjudged or figures.per_call_s <= INLINE_S:
        return figures
    if len(os.sched_getaffinity(0)) < 2:
        return replace(figures, unjudged="threads cannot be judged on a single core")
    most = COPIES if arguments.pickled is None else COPIES_BYTES // max(1, arguments.pickled.nbytes)
    return _in_threads(figures, Calls(tap.function, arguments.fresh, figures.per_call_s, min(most, ROUND_CALLS)))


def _in_threads(figures: Figures, hook: Calls) -> Figures:
    """Add what two threads gain."""
    control = Calls(hashlib.sha256, lambda: (CONTROL,), CONTROL_S, ROUND_CALLS, least_s=min(hook.round_s, 0.1))
    race = Race()
    until = time.perf_counter() + RACE_S
    while not race.one or (not race.is_over and time.perf_counter() < until):
        one = hook.span(1)
        try:
            two = hook.span(2)
        except Unmeasured as error:
            return replace(figures, clash=str(error))
        race.add(one, two, control.span(1), control.span(2))
    if not race.is_decided:
        tries = f"{race.fair} of {len(race.one)} tries"
        busy = f"the cores are busy: even hashing gained by a second thread in {tries} only"
        return replace(figures, unjudged=busy)
    return replace(figures, speed_up=race.speed_up, cores=race.cores)


def _alone(function: Callable[..., Any], arguments: Arguments) -> Figures:
    result, first_s = _timed(function, arguments.fresh())
    if first_s > SLOW_S:
        return Figures(first_s, unjudged=f"a call takes {duration(first_s)}: too slow to be tried again and again")
    seconds: list[float] = []
    until = time.perf_counter() + ALONE_S
    while not seconds or (len(seconds) < MOST_CALLS and time.perf_counter() < until):
        values = arguments.fresh()
        result = None  # so that the last one is not let go within the next one's time
        result, call_s = _timed(function, values)
        seconds.append(call_s)
    figures = Figures(statistics.median(seconds))
    return figures if arguments.pickled is None else _crossing(figures, function, arguments, arguments.pickled, result)


def _timed(function: Callable[..., Any], values: Call) -> tuple[Any, float]:
    """One call: its result and its seconds."""
    started_at = time.perf_counter()
    result = function(*values)
    return result, time.perf_counter() - started_at


def _crossing(
    figures: Figures, function: Callable[..., Any], arguments: Arguments, there: Pickled, result: Any
) -> Figures:
    """Add what it would be to run in the pool."""
    figures = replace(figures, nbytes_in=there.nbytes)
    values = arguments.fresh()
    try:
        back = Pickled.of(result)
        crossing_s = min(_crossing_s(values, result) for _ in range(3))
    except Exception as error:
        return replace(figures, barred=f"its result cannot cross: {describe(error)}")
    figures = replace(figures, nbytes_out=back.nbytes, crossing_s=crossing_s + HANDOVER_S)
    if there.buffers:
        try:
            function(*there.load())
        except BaseException as error:  # it did not on arrays that can be written to
            return replace(figures, barred=f"arrays are read-only there, and it raises {describe(error)}")
    return figures


def _crossing_s(values: Call, result: Any) -> float:
    started_at = time.perf_counter()
    Pickled.of(values).load()
    Pickled.of(result).load()
    return time.perf_counter() - started_at


class Calls:
    """Calls of a function by one thread, and by two at once.

    :param per_call_s: about the seconds of a call.
    :param most: most calls of a thread in one round.
    :param least_s: seconds that a round should take.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        fresh: Callable[[], Call],
        per_call_s: float,
        most: int,
        least_s: float = ROUND_S,
    ) -> None:
        self._function = function
        self._fresh = fresh
        self._count = max(1, min(most, math.ceil(least_s / per_call_s)))
        #: About the seconds of one thread.
        self.round_s = self._count * per_call_s

    def span(self, threads: int) -> Span:
        """A round of `threads` at once.

        :raises Unmeasured: a call raised, or did not return.
        """
        batches = [[self._fresh() for _ in range(self._count)] for _ in range(threads)]
        cpu_s = time.process_time()
        spans = together(*(partial(_calls, self._function, batch) for batch in batches))
        cpu_s = time.process_time() - cpu_s
        return Span(max(end for _, end in spans) - min(start for start, _ in spans), cpu_s)


def _calls(function: Callable[..., Any], batch: Sequence[Call]) -> tuple[float, float]:
    """Call it for each; when the first began and the last ended."""
    started_at = time.perf_counter()
    for values in batch:
        function(*values)
    return started_at, time.perf_counter()
