"""Figures of hooks to the lane that suits them. Pure.

In this order:

| what was found | lane | because |
|---|---|---|
| up to 20 µs a call | inline | handing it to a thread or a worker costs the loop as much |
| raises where two threads run it | process, or none | a thread would have to run it one at a time |
| two threads do over 1.5 times the work of one | thread | it releases the GIL: parallel without a copy |
| alone it fills over 1.25 cores | thread | its own threads run, so it releases the GIL |
| it cannot go to the pool | thread | the only lane left that keeps it off the loop |
| threads could not be judged | none | a guess would be no advice |
| crossing takes as long as the call | inline to 100 µs, else thread | the pool costs more than it saves |
| the rest: Python that computes | process | in a thread it would hold up the loop, and other hooks |

`cpu` is one setting for both hooks of an Op: the lane in which most of their time is well spent, and no
lane that one of them cannot run in. Crossing is counted in full, though hooks that run as one task share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from asyncline.settings import Cpu

INLINE_S = 20e-6
"""What it costs the loop to hand a call to a thread."""
LONG_INLINE_S = 100e-6
"""Longest call that may stay on the loop where the pool does not pay."""
RELEASES = 1.5
"""Work of two threads over that of one from which a hook releases the GIL; 1 is none of it, 2 all the time."""
OWN_THREADS = 1.25
"""Cores filled by one call at a time from which a hook has threads of its own."""


@dataclass(frozen=True)
class Figures:
    """What the calls of one hook cost. Times are seconds."""

    per_call_s: float
    """Median of a call alone."""
    cores: float = 1.0
    """CPU time over time of calls alone: above 1 it has threads of its own."""
    speed_up: float | None = None
    """Work of two threads over that of one; None where it was not measured."""
    nbytes_in: int | None = None
    """Of its arguments, on their way to the pool; None where they cannot go."""
    nbytes_out: int | None = None
    """Of its result, on its way back."""
    crossing_s: float = 0.0
    """There and back: both pickled, copied and unpickled, and the hand-over."""
    barred: str = ""
    """Why it cannot run in the pool."""
    clash: str = ""
    """What it raised with two threads in it at once."""
    unjudged: str = ""
    """Why there is no `speed_up`, where one is wanted."""


@dataclass(frozen=True)
class Advice:
    """The lane that suits a hook, or an Op; None where the figures do not tell."""

    lane: Cpu | None
    why: str


def judge(figures: Figures) -> Advice:
    """The lane that suits one hook."""
    if figures.per_call_s <= INLINE_S:
        return Advice("inline", "costs less than handing it over")
    if figures.clash:
        if figures.barred:
            return Advice(None, f"fails in two threads at once ({figures.clash}) and in the pool ({figures.barred})")
        return Advice("process", f"fails in two threads at once: {figures.clash}")
    if figures.speed_up is not None and figures.speed_up > RELEASES:
        return Advice("thread", "releases the GIL; nothing has to be copied")
    if figures.cores > OWN_THREADS:
        return Advice("thread", f"releases the GIL: its own threads fill {figures.cores:.1f} cores")
    if figures.barred:
        return Advice("thread", f"cannot run in the pool: {figures.barred}")
    if figures.unjudged:
        return Advice(None, figures.unjudged)
    if figures.crossing_s >= figures.per_call_s:
        lane: Cpu = "inline" if figures.per_call_s <= LONG_INLINE_S else "thread"
        return Advice(lane, f"holds the GIL, but crossing to the pool would take {duration(figures.crossing_s)}")
    return Advice("process", "holds the GIL: a thread would hold up the rest of the server")


def combine(hooks: Mapping[str, tuple[Figures, Advice]]) -> Advice:
    """The one `cpu` of an Op, from its hooks by name."""
    wanted = {name: advice.lane for name, (_, advice) in hooks.items()}
    lanes = set(wanted.values())
    if None in lanes:
        return Advice(None, "not all of its hooks could be judged")
    if len(lanes) == 1:
        return Advice(lanes.pop(), "")
    # On the loop only where all of it may be: what is inline for its own sake is no weight.
    weights: dict[Cpu, float] = {}
    for figures, advice in hooks.values():
        if advice.lane not in (None, "inline"):
            weights[advice.lane] = weights.get(advice.lane, 0.0) + figures.per_call_s
    barred = next((name for name, (figures, _) in hooks.items() if figures.barred), None)
    clash = next((name for name, (figures, _) in hooks.items() if figures.clash), None)
    if barred and clash:
        return Advice(None, f"{barred} cannot run in the pool, {clash} not in threads")
    if barred:
        return Advice("thread", f"one setting for both hooks, and {barred} cannot run in the pool")
    if clash:
        return Advice("process", f"one setting for both hooks, and {clash} cannot run in threads")
    lane = max(weights, key=weights.__getitem__)
    whole = sum(figures.per_call_s for figures, _ in hooks.values())
    heavy = " and ".join(name for name, wants in wanted.items() if wants == lane)
    return Advice(lane, f"one setting for both hooks: {heavy} takes {duration(weights[lane])} of {duration(whole)}")


def duration(seconds: float) -> str:
    """`812 µs`, `21.3 ms`, `1.25 s`."""
    for unit, size in (("µs", 1e-6), ("ms", 1e-3)):
        if seconds < 999.5 * size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds)} s"


def _three_digits(number: float) -> str:
    return f"{number:.0f}" if number >= 99.95 else f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"
