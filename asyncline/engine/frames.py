"""HookFrames: which hook a stack is in, told by the code objects of the Ops' hooks. Costs the hooks nothing."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Any

from asyncline.graph.op import HOOKS, Op


class HookFrames:
    """Knows the hooks of some Ops; one that is written in C has no frame, and is not found."""

    def __init__(self, ops: Iterable[Op]) -> None:
        #: By code: the Ops with that hook, and its name.
        self._found: dict[CodeType, list[tuple[str, str]]] = {}
        for op in ops:
            for hook in (*HOOKS, "bucket"):
                code = _code(op.hook(hook))
                if code is not None:
                    self._found.setdefault(code, []).append((op.name, hook))

    def find(self, frame: FrameType | None) -> tuple[str, str]:
        """The Op and hook that the stack that ends with `frame` is in; empty where it is in none."""
        while frame is not None:
            found = self._found.get(frame.f_code)
            if found is not None:
                if len(found) == 1:
                    return found[0]
                # Several Ops of one class. By name: a replica runs a copy of its Op.
                name = getattr(frame.f_locals.get("self"), "name", None)
                return next((each for each in found if each[0] == name), found[0])
            frame = frame.f_back
        return "", ""

    def stack(self, frame: FrameType | None, most: int) -> str:
        """The frames of a stack that ends with `frame`: from the hook on, where it is in one, and at most so many."""
        count, at = 0, frame
        while at is not None and count < most:
            count += 1
            if at.f_code in self._found:
                break
            at = at.f_back
        return "".join(traceback.format_stack(frame, limit=count)) if frame is not None else ""


def _code(function: Any) -> CodeType | None:
    plain = getattr(function, "__func__", function)
    code: CodeType | None = getattr(plain, "__code__", None)
    return code
