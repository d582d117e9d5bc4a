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
WANTED = 0.9
"""Share of that for which the loop's thread has had a core, or waited for one, if it was the one that had it."""


class LoopGuard:
    """A thread that asks the loop for a sign of life and, when none comes, looks at the loop's stack.

    Costs the request path nothing: the culprit is found by the code objects of the Ops' hooks.

    A call of C code that keeps the interpreter keeps this thread from looking as well. It is known by a pause that took
    too long, while the loop's thread did not wait for others. This thread has the interpreter then as soon as the call
    is over, and sees who made it. Such a call counts from the end of the pause that it began in.
    """

    def __init__(
        self, plan: Plan, hooks: Hooks, *, blocked_s: float = BLOCKED_S, interval_s: float = INTERVAL_S
    ) -> None:
        self._hooks = hooks
        self._blocked_s = blocked_s
        self._interval_s = interval_s
        self._frames = HookFrames(node.op for node in plan.nodes)
        #: Held while it runs. No Event: after a wait for one, the loop may have gone on until this thread can look.
        self._running = threading.Lock()
        self._running.acquire()

    def start(self) -> None:
        """Guard the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._schedule = f"/proc/self/task/{threading.get_native_id()}/schedstat"
        threading.Thread(target=self._watch, name="asyncline loop guard", daemon=True).start()

    def _watch(self) -> None:
        while True:
            try:
                began_at, wanted_s = time.monotonic(), self._wanted_s()
                if self._running.acquire(timeout=self._interval_s):
                    return
                op, hook = self._find()
                held_s = time.monotonic() - began_at - self._interval_s
                if op and held_s >= HELD_S:
                    self._held(op, hook, held_s, wanted_s)
                self._ask()
            except RuntimeError:
                return  # the loop is closed

    def _ask(self) -> None:
        answered = threading.Event()
        asked_at = time.monotonic()
        self._loop.call_soon_threadsafe(answered.set)
        if not answered.wait(LATE_S) and self._running.locked():
            op, hook = self._find()
            stack = ""
            if not answered.wait(self._blocked_s - LATE_S) and self._running.locked():
                op, hook = self._find()
                stack = self._stack()
                self._log(op, hook, self._blocked_s, "has blocked the event loop", "thread' or 'process", stack)
                answered.wait()  # one report for each blockage
            seconds = time.monotonic() - asked_at
            self._loop.call_soon_threadsafe(self._tell, op, hook, seconds, stack)

    def _held(self, op: str, hook: str, held_s: float, wanted_s: float) -> None:
        """The interpreter was not to be had for that long, and then the loop was in that hook.

        :param wanted_s: as it was before the pause.
        """
        stack = self._stack() if held_s >= self._blocked_s else ""  # now: while a file is read, the loop goes on
        if self._wanted_s() - wanted_s < WANTED * held_s:
            return  # another thread had it
        if stack:
            what = "has kept the interpreter, and so blocked the event loop,"
            self._log(op, hook, held_s, what, "process", stack)
        self._loop.call_soon_threadsafe(self._tell, op, hook, held_s, stack)

    def _wanted_s(self) -> float:
        """For how long the loop's thread has had a core, or waited for one; 0 where the kernel does not tell."""
        try:
            with open(self._schedule, "rb") as file:
                ran_ns, waited_ns, _ = map(int, file.read().split())
        except OSError:
            return 0.0
        return (ran_ns + waited_ns) / 1e9

    def _find(self) -> tuple[str, str]:
        """The Op and hook that the loop is in; empty where it is in none."""
        return self._frames.find(sys._current_frames().get(self._loop_thread))

    def _stack(self) -> str:
        return self._frames.stack(sys._current_frames().get(self._loop_thread), STACK_FRAMES)

    def _log(self, op: str, hook: str, seconds: float, what: str, lanes: str, stack: str) -> None:
        log.warning(
            "%s %s for %.0f ms: every request waits. Give the Op cpu='%s', or await instead\n%s",
            f"op {op!r} {hook}" if op else "something outside of the Ops", what, seconds * 1e3, lanes, stack,
        )  # fmt: skip

    def _tell(self, op: str, hook: str, seconds: float, stack: str) -> None:
        if stack and self._hooks.loop_blocked:
            self._hooks.emit(self._hooks.loop_blocked, op, hook, seconds, stack)
        if op and self._hooks.loop_late:
            self._hooks.emit(self._hooks.loop_late, op, hook, self._interval_s + seconds)

    def close(self) -> None:
        if self._running.locked():
            self._running.release()
