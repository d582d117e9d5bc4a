"""LoopGuard: names the hook that blocks the event loop."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback

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


class LoopGuard:
    """A thread that asks the loop for a sign of life and, when none comes, looks at the loop's stack.

    Costs the request path nothing: the culprit is found by the code objects of the Ops' hooks.
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
        threading.Thread(target=self._watch, name="asyncline loop guard", daemon=True).start()

    def _watch(self) -> None:
        while not self._closed.wait(self._interval_s):
            answered = threading.Event()
            try:
                asked_at = time.monotonic()
                self._loop.call_soon_threadsafe(answered.set)
                if not answered.wait(LATE_S) and not self._closed.is_set():
                    op, hook = self._look()
                    stack = ""
                    if not answered.wait(self._blocked_s - LATE_S) and not self._closed.is_set():
                        op, hook = self._look()
                        stack = self._log(op, hook)
                        answered.wait()  # one report for each blockage
                    seconds = time.monotonic() - asked_at
                    self._loop.call_soon_threadsafe(self._tell, op, hook, seconds, stack)
            except RuntimeError:
                return  # the loop is closed

    def _look(self) -> tuple[str, str]:
        """The Op and hook that the loop is in; empty where it is in none."""
        return self._frames.find(sys._current_frames().get(self._loop_thread))

    def _log(self, op: str, hook: str) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        stack = "".join(traceback.format_stack(frame, limit=12)) if frame else ""
        log.warning(
            "%s has blocked the event loop for %.0f ms: every request waits. "
            "Give the Op cpu='thread' or 'process', or await instead\n%s",
            f"op {op!r} {hook}" if op else "something outside of the Ops", self._blocked_s * 1e3, stack,
        )  # fmt: skip
        return stack

    def _tell(self, op: str, hook: str, seconds: float, stack: str) -> None:
        if stack and self._hooks.loop_blocked:
            self._hooks.emit(self._hooks.loop_blocked, op, hook, seconds, stack)
        if op and self._hooks.loop_late:
            self._hooks.emit(self._hooks.loop_late, op, hook, self._interval_s + seconds)

    def close(self) -> None:
        self._closed.set()
