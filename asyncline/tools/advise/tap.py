"""Tap: stands in front of one hook and keeps what it got."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from asyncline.graph.outcomes import Reply, Skip
from asyncline.tools.advise.arguments import Arguments, describe


class Missing:
    """Stands for a value that could not be had. A hook that would get it is not called, so that one that fails
    ends only what depends on it, and not the request."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why


class Tap:
    """One sync CPU hook of one Op. Called in the hook's place, it keeps a copy of the arguments."""

    def __init__(self, op: str, hook: str, function: Callable[..., Any]) -> None:
        self.op = op
        self.hook = hook
        self.function = function
        #: None until it was called.
        self.arguments: Arguments | None = None
        #: Of that call; None while it runs, and where it raised.
        self.seconds: float | None = None
        self.raised = ""
        #: Why it was not called.
        self.missing = ""

    def __call__(self, *values: Any) -> Any:
        missing = _missing(values)
        if missing is not None:
            self.missing = missing.why
            return _instead(self.hook, missing)
        self.arguments = Arguments(values)
        started_at = time.perf_counter()
        try:
            result = self.function(*values)
        except BaseException as error:  # a SystemExit of a hook, too
            self.raised = describe(error)
            return _instead(self.hook, Missing(f"{self.op} {self.hook} raises {self.raised}"))
        self.seconds = time.perf_counter() - started_at
        return _unless_reply(result, self.op, self.hook)

    def __repr__(self) -> str:
        return f"<Tap of {self.op}.{self.hook}, {'called' if self.arguments else 'not called'}>"


def guard(op: str, hook: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """An async CPU hook that gets and gives Missing as a Tap does."""

    async def guarded(*values: Any) -> Any:
        missing = _missing(values)
        if missing is None:
            try:
                return _unless_reply(await function(*values), op, hook)
            except Exception as error:
                missing = Missing(f"{op} {hook} raises {describe(error)}")
        return _instead(hook, missing)

    return guarded


def pass_on(*values: Any) -> Any:
    """In the place of an absent `preprocess`: the sample is the input's value, or all of them."""
    missing = _missing(values)
    if missing is not None:
        return Skip(missing)
    return values[0] if len(values) == 1 else values


def _missing(values: tuple[Any, ...]) -> Missing | None:
    return next((value for value in values if type(value) is Missing), None)


def _unless_reply(result: Any, op: str, hook: str) -> Any:
    if type(result) is not Reply:
        return result
    return _instead(hook, Missing(f"{op} {hook} answers the request with a Reply"))


def _instead(hook: str, missing: Missing) -> Any:
    """What to return so that the Op's next hooks are passed by."""
    return Skip(missing) if hook == "preprocess" else missing
