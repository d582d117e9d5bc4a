"""Recipe: how worker processes make an Op of their own."""

from __future__ import annotations

import importlib
import pickle
from dataclasses import dataclass
from functools import reduce
from typing import Any

from asyncline.errors import LoadError, public_message
from asyncline.graph.op import Op, recipe
from asyncline.graph.plan import Node
from asyncline.settings import OpSettings


@dataclass(frozen=True)
class Recipe:
    """Its class, found by import, and its arguments."""

    name: str
    cls: type[Op]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    settings: OpSettings


def make_recipe(node: Node) -> Recipe:
    """How workers make this Op.

    :raises LoadError: its class cannot be imported there, or its arguments cannot be pickled.
    """
    cls = type(node.op)
    cure = "define it at the top level of a module, or set cpu = 'thread'"
    where = f"op {node.name!r}: its hooks run in the CPU pool, which cannot import {cls.__qualname__!r}"
    main = importlib.import_module(cls.__module__)
    if cls.__module__ == "__main__" and getattr(main, "__file__", None) is None:
        raise LoadError(f"{where} from an interactive session: {cure}")
    try:
        found: Any = reduce(getattr, cls.__qualname__.split("."), main)
    except AttributeError:
        raise LoadError(f"{where} from {cls.__module__!r}: {cure}") from None
    if found is not cls:
        raise LoadError(f"{where} from {cls.__module__!r}, where that name is something else: {cure}")
    args, kwargs = recipe(node.op)
    made = Recipe(node.name, cls, args, kwargs, node.settings)
    try:
        pickle.dumps(made)
    except Exception as error:
        raise LoadError(
            f"op {node.name!r}: its arguments have to reach the CPU pool, but {public_message(error)}: "
            "pass plain values and build the rest in init_op, or set cpu = 'thread'"
        ) from error
    return made
