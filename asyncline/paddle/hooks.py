"""Hooks of an Op as they are called: with as many arguments as they take, on a copy of the Op's attributes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from asyncline.engine.context import context, current
from asyncline.errors import GraphError
from asyncline.paddle.op import NAMES_SET, Op

TIMEOUT_S = 60.0
"""Longest call of another server, where it is not known for whom."""
NOTHING: Mapping[str, Any] = {}


class Hook:
    """One hook of one Op.

    :param base: the class that has the default, which sets nothing on `self`.
    :param needed: how many arguments it has to take.
    :param offered: those that it may take beside, by name.
    :raises GraphError: it takes others.
    """

    def __init__(self, op: Op, base: type[Op], name: str, needed: int, offered: tuple[str, ...] = ()) -> None:
        self.is_default = getattr(type(op), name) is getattr(base, name)
        self._op = op
        self._function: Callable[..., Any] = getattr(type(op), name)
        taken = _taken(op, name, needed, offered)
        #: Where the names that it takes are among those that are offered; None: it takes all.
        self._places = None if taken == offered else tuple(offered.index(each) for each in taken)

    def run(self, state: Mapping[str, Any], *args: Any, ids: tuple[Any, ...] = ()) -> tuple[Any, Mapping[str, Any]]:
        """Call it for one request.

        :param state: what the request's hooks have set so far.
        :param ids: the values of what is offered.
        :returns: what it returned, and what it set.
        """
        op = self._op
        if self._places is not None:
            ids = tuple([ids[place] for place in self._places])
        if self.is_default and not state:
            return self._function(op, *args, *ids), NOTHING
        now = op.__dict__.copy()  # which takes a quarter of filling an empty one
        if state:
            now.update(state)
        names = now[NAMES_SET] = set()
        view = object.__new__(type(op))
        object.__setattr__(view, "__dict__", now)
        returned = self._function(view, *args, *ids)
        if not names:
            return returned, NOTHING
        now = view.__dict__
        fresh = {name: now[name] for name in names if name in now}
        op.__dict__.update(fresh)
        return returned, fresh


def _taken(op: Op, name: str, needed: int, offered: tuple[str, ...]) -> tuple[str, ...]:
    """The names that it takes of those that are offered."""
    function = getattr(op, name)
    if inspect.iscoroutinefunction(function):
        raise GraphError(f"op {op.name!r}: {name} cannot be async")
    parameters = list(inspect.signature(function).parameters.values())
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return offered
    places = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    missing = [each for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty]
    required = sum(each.default is each.empty for each in places)
    if len(places) < needed or required > needed + len(offered) or missing:
        expected = ", ".join([*("..." for _ in range(needed)), *offered])
        raise GraphError(f"op {op.name!r}: {name}{inspect.signature(function)} does not fit: it gets ({expected})")
    rest = tuple(each.name for each in places[needed:])[: len(offered)]
    if set(rest) <= set(offered):
        return rest
    # 0.6 had log_id alone: what is left out comes first.
    return offered[len(offered) - len(rest) :]


def filled(returned: Any, defaults: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a hook returned, with defaults for what it left out.

    :raises ValueError: it has more values than there are.
    """
    if type(returned) is tuple and len(returned) == len(defaults):
        return returned
    if not isinstance(returned, tuple):
        returned = (returned,)
    if not 1 <= len(returned) <= len(defaults):
        raise ValueError(f"expected at most {len(defaults)} values, got {len(returned)}")
    return (*returned, *defaults[len(returned) :])


def remaining_s() -> float:
    """How long `process` may take: until the last deadline of its requests."""
    try:
        return max(0.001, context().remaining_s)
    except LookupError:  # in a thread that it has made
        return TIMEOUT_S


def item_now() -> Any:
    """The request that a hook runs for."""
    item = current.get()
    assert item is not None, "hooks run for a request"
    return item
