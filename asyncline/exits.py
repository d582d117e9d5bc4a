"""Exit codes of the command line."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """Why `asyncline` ended."""

    OK = 0
    LOAD = 1
    """An app, an Op or a model could not be loaded, or the address is taken."""
    FAULT = 70
    """The Engine or a device failed: a supervisor should start the server again."""
    GAVE_UP = 71
    """The server that was supervised failed again and again."""
    ABORTED = 75
    """The drain ended with requests in flight."""
    CONFIG = 78
    """A graph or a setting is wrong."""
