"""Hooks of an Op as they are called: with as many arguments as they take, on a copy of the Op's attributes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from asyncline.errors import GraphError
from asyncline.paddle.op import Op


class Hook:
    """One hook of one Op.

    :param offered: the arguments that it may take, by the names of the last of them.
    :param needed: how many it has to take.
    :raises GraphError: it takes others.
    """

    def __init__(self, op: Op, name: str, needed: int, offered: tuple[str, ...]) -> None:
        self.name = name
        self._function: Callable[..., Any] = getattr(type(op), name)
        self._count, self._named = _fit(op, name, getattr(op, name), needed, offered)

    def __call__(self, view: Op, *args: Any, **ids: Any) -> Any:
        named = [ids[name] for name in self._named]
        return self._function(view, *args[: self._count], *named)


def _fit(
    op: Op, name: str, function: Callable[..., Any], needed: int, offered: tuple[str, ...]
) -> tuple[int, list[str]]:
    parameters = list(inspect.signature(function).parameters.values())
    if inspect.iscoroutinefunction(function):
        raise GraphError(f"op {op.name!r}: {name} cannot be async")
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return needed, list(offered)
    places = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    missing = [each for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty]
    required = sum(each.default is each.empty for each in places)
    if len(places) < needed or required > needed + len(offered) or missing:
        expected = ", ".join([*("..." for _ in range(needed)), *offered])
        raise GraphError(f"op {op.name!r}: {name}{inspect.signature(function)} does not fit: it gets ({expected})")
    # Releases had fewer: those that are left out are the first (0.6: log_id alone), unless the names say otherwise.
    rest = [each.name for each in places[needed:]][: len(offered)]
    if all(each in offered for each in rest):
        return needed, rest
    return needed, list(offered[len(offered) - len(rest) :])


def run(op: Op, state: Mapping[str, Any], hook: Hook, *args: Any, **ids: Any) -> tuple[Any, dict[str, Any]]:
    """Call a hook on a copy of an Op for one request.

    :param state: what the request's hooks have set so far; with what this one set, it comes back.
    """
    view = object.__new__(type(op))
    view.__dict__.update(op.__dict__)
    view.__dict__.update(state)
    before = dict(view.__dict__)
    returned = hook(view, *args, **ids)
    fresh = {name: value for name, value in view.__dict__.items() if before.get(name, before) is not value}
    op.__dict__.update(fresh)
    return returned, {**state, **fresh}
