"""Fusion: neighbouring CPU hooks of one lane run as one task.

What a task costs beside its hooks, a turn on the loop, a hop to a thread or process and back, and there the
way of every value, is then paid once for several hooks. Nothing else changes: each hook still has its own
outcome, its own times and its own error.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One hook of a task that runs several. Plain values only: it crosses to worker processes."""

    index: int
    """Place of its Op in the plan."""
    op: str
    """Name of its Op."""
    hook: str
    args: tuple[int, ...]
    """Where its arguments lie in the frame of the task (see `Chain`)."""
    keeps: bool
    """Whether its value is needed outside of the task."""


@dataclass(frozen=True)
class Chain:
    """The hooks that run in one task, in order.

    Their values lie in a frame: first the arguments of the first hook, then the values of `extra_slots`, then
    what each step came to.
    """

    steps: tuple[Step, ...]
    extra_slots: tuple[int, ...]
    """Slots of the values that later steps take and the first does not. They are there when it begins."""
