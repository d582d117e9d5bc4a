"""Find the graph that `module:attr` names."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from asyncline.errors import GraphError, LoadError, SettingsError
from asyncline.graph.graph import Graph


def load(app: str) -> Graph:
    """Import a Graph by `module:attr`, from the working directory first; or what has one as its `graph`.

    `app.py:graph` and `path/to/app.py:graph` mean the module too.

    :raises LoadError: the module is missing, fails inside, lacks the attribute, or that is no Graph.
    """
    module_name, colon, attribute = app.partition(":")
    if not colon or not module_name or not attribute:
        raise LoadError(f"{app!r}: write it as module:attr, for example app:graph")
    here = str(Path.cwd())
    if module_name.endswith(".py"):
        parts = Path(module_name).with_suffix("").parts
        if Path(module_name).is_absolute() or ".." in parts:
            raise LoadError(f"{app!r}: write the path from the working directory, {here}")
        module_name = ".".join(parts)
    if not all(module_name.split(".")):
        raise LoadError(f"{app!r}: write it as module:attr, for example app:graph")
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (GraphError, SettingsError, LoadError) as error:
        raise type(error)(f"{module_name}: {error}{_where(error)}") from error
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name:
            if f"{module_name}.".startswith(f"{error.name}."):
                raise LoadError(f"there is no module {module_name!r} in {here} or installed") from error
            raise LoadError(
                f"module {module_name!r} needs {error.name!r}, which is not installed{_where(error)}"
            ) from error
        raise LoadError(f"module {module_name!r} fails: {type(error).__name__}: {error}{_where(error)}") from error
    found = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            graphs = ", ".join(name for name, value in vars(module).items() if isinstance(value, Graph))
            hint = f"; its graphs: {graphs}" if graphs else "; it has no Graph"
            raise LoadError(f"module {module_name!r} has no {attribute!r}{hint}") from None
    if not isinstance(found, Graph):
        found = getattr(found, "graph", found)
    if not isinstance(found, Graph):
        raise LoadError(f"{app} is a {type(found).__name__}, not a Graph")
    return found


def _where(error: BaseException) -> str:
    """The user's own line that raised, as ` (app.py:12)`."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    mine = [f for f in frames if not Path(f.filename).is_relative_to(Path(__file__).parent)]
    return f" ({Path(mine[-1].filename).name}:{mine[-1].lineno})" if mine else ""
