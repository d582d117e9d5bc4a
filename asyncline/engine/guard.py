"""LoopGuard: names the hook that blocks the event loop."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time

from asyncline.engine.frames import HookFrames
from asyncline.engine.hooks import Hooks
from asyncline.graph.plan import Plan

log = logging.getLogger("asyncline.engine")

BLOCKED_S = 0.25
"""A loop that does not answer for this long is blocked: that is logged."""
LATE_S = 0.01
"""One that does not answer for this long is late: observers are told by whom, if it is a hook."""
INTERVAL_S = 0.1
"""Pause between two checks of a loop that answers."""
HELD_S = 0.03
"""A pause that became longer by this was held up: the interpreter was not to be had, from a few other threads it is."""
STACK_FRAMES = 12
"""Most that are logged."""
COMPUTED = 0.25
"""Share of such a pause that the loop's thread has computed, if it was the one. Other programs take cores too."""


class LoopGuard:
    """A thread that asks the loop for a sign of life and, when none comes, looks at the loop's stack.

    Costs the request path nothing: the culprit is found by the code objects of the Ops' hooks.

    A call of C code that keeps the interpreter keeps this thread from looking as well. It is known by a pause that took
    too long, while the loop's thread computed; this thread has the interpreter then as soon as the call is over, and
    sees who made it. So such a call counts from the end of a pause that it began in, which is up to `interval_s` less
    than it took.
    """

    def __init__(
        self, plan: Plan, hooks: Hooks, *, blocked_s: float = BLOCKED_S, interval_s: float = INTERVAL_S
    ) -> None:
        self._hooks = hooks
        self._blocked_s = blocked_s
        self._interval_s = interval_s
        self._frames = HookFrames(node.op for node in plan.nodes)
        self._closed = threading.Event()

    def start(self) -> None:
        """Guard the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        # Asked for while there is that thread; later the id alone may lead nowhere.
        self._loop_clock = time.pthread_getcpuclockid(self._loop_thread)
        threading.Thread(target=self._watch, name="asyncline loop guard", daemon=True).start()

    def _watch(self) -> None:
        while True:
            try:
                began_at, computed_s = time.monotonic(), time.clock_gettime(self._loop_clock)
                if self._closed.wait(self._interval_s):
                    return
                paused_s = time.monotonic() - began_at
                held_s = paused_s - self._interval_s
                if held_s >= HELD_S and time.clock_gettime(self._loop_clock) - computed_s >= COMPUTED * paused_s:
                    self._held(held_s)
                self._ask()
            except (OSError, RuntimeError):
                return  # the loop is closed, or its thread has ended

    def _ask(self) -> None:
        answered = threading.Event()
        asked_at = time.monotonic()
        self._loop.call_soon_threadsafe(answered.set)
        if not answered.wait(LATE_S) and not self._closed.is_set():
            op, hook = self._look()
            stack = ""
            if not answered.wait(self._blocked_s - LATE_S) and not self._closed.is_set():
                op, hook = self._look()
                stack = self._log(op, hook, self._blocked_s, "has blocked the event loop", "thread' or 'process")
                answered.wait()  # one report for each blockage
            seconds = time.monotonic() - asked_at
            self._loop.call_soon_threadsafe(self._tell, op, hook, seconds, stack)

    def _held(self, held_s: float) -> None:
        """The interpreter was kept for that long, by the loop's thread."""
        op, hook = self._look()
        if not op:
            return  # it may have been many things, one after the other
        stack = ""
        if held_s >= self._blocked_s:
            what = "has kept the interpreter, and so blocked the event loop,"
            stack = self._log(op, hook, held_s, what, "process")
        self._loop.call_soon_threadsafe(self._tell, op, hook, held_s, stack)

    def _look(self) -> tuple[str, str]:
        """The Op and hook that the loop is in; empty where it is in none."""
        return self._frames.find(sys._current_frames().get(self._loop_thread))

    def _log(self, op: str, hook: str, seconds: float, what: str, lanes: str) -> str:
        stack = self._frames.stack(sys._current_frames().get(self._loop_thread), STACK_FRAMES)
        log.warning(
            "%s %s for %.0f ms: every request waits. Give the Op cpu='%s', or await instead\n%s",
            f"op {op!r} {hook}" if op else "something outside of the Ops", what, seconds * 1e3, lanes, stack,
        )  # fmt: skip
        return stack

    def _tell(self, op: str, hook: str, seconds: float, stack: str) -> None:
        if stack and self._hooks.loop_blocked:
            self._hooks.emit(self._hooks.loop_blocked, op, hook, seconds, stack)
        if op and self._hooks.loop_late:
            self._hooks.emit(self._hooks.loop_late, op, hook, self._interval_s + seconds)

    def close(self) -> None:
        self._closed.set()
