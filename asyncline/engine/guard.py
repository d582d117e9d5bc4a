"""LoopGuard: names the hook that blocks the event loop."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from types import CodeType, FrameType
from typing import Any

from asyncline.engine.hooks import Hooks
from asyncline.graph.op import HOOKS
from asyncline.graph.plan import Plan

log = logging.getLogger("asyncline.engine")

BLOCKED_S = 0.25
"""A loop that does not answer for this long is blocked."""
INTERVAL_S = 1.0
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
        self._ops: dict[CodeType, list[tuple[object, str]]] = {}
        for node in plan.nodes:
            for hook in (*HOOKS, "bucket"):
                function = node.op.hook(hook)
                code = _code(function)
                if code is not None:
                    self._ops.setdefault(code, []).append((node.op, f"op {node.name!r} {hook}"))
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
                self._loop.call_soon_threadsafe(answered.set)
                if not answered.wait(self._blocked_s) and not self._closed.is_set():
                    where, stack = self._look()
                    log.warning(
                        "%s has blocked the event loop for %.0f ms: every request waits. "
                        "Give the Op cpu='thread' or 'process', or await instead\n%s",
                        where, self._blocked_s * 1e3, stack,
                    )  # fmt: skip
                    self._loop.call_soon_threadsafe(self._tell, where, stack)
                    answered.wait()  # one report for each blockage
            except RuntimeError:
                return  # the loop is closed

    def _look(self) -> tuple[str, str]:
        frame = sys._current_frames().get(self._loop_thread)
        stack = "".join(traceback.format_stack(frame, limit=12)) if frame else ""
        at: FrameType | None = frame
        while at is not None:
            names = self._ops.get(at.f_code)
            if names is not None:
                me = at.f_locals.get("self")
                return next((name for op, name in names if op is me), names[0][1]), stack
            at = at.f_back
        return "something outside of the Ops", stack

    def _tell(self, where: str, stack: str) -> None:
        if self._hooks.loop_blocked:
            self._hooks.emit(self._hooks.loop_blocked, where, self._blocked_s, stack)

    def close(self) -> None:
        self._closed.set()


def _code(function: Any) -> CodeType | None:
    """What the loop's stack shows of a hook: None of one that is written in C."""
    plain = getattr(function, "__func__", function)
    code: CodeType | None = getattr(plain, "__code__", None)
    return code
