"""`asyncline new NAME`: writes a small app from the files in new_app/."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from asyncline.errors import GraphError, SettingsError
from asyncline.graph.graph import RESERVED

FILES = ("app.py", "config.yml", "test_app.py", "README.md")
PLACEHOLDER = "my_graph"


def write_app(folder: Path) -> Path:
    """Write the app into `folder`, which must not exist; its last part names the graph.

    :raises GraphError: that is no name for a graph.
    :raises SettingsError: the folder exists, or cannot be written.
    """
    name = folder.name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in RESERVED:
        raise GraphError(f"{name!r} cannot name a graph: use letters, digits and '_', and no name of a route")
    try:
        folder.mkdir(parents=True)
        for file in FILES:
            text = files("asyncline.tools").joinpath("new_app", file).read_text()
            (folder / file).write_text(text.replace(PLACEHOLDER, name))
    except FileExistsError:
        raise SettingsError(f"{folder} exists already") from None
    except OSError as error:
        raise SettingsError(f"cannot write {folder}: {error.strerror}") from error
    return folder
