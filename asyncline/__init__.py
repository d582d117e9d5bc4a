"""asyncline serves pipelines of models from one asyncio process.

Write Ops, wire them into a Graph, run `asyncline serve app:graph`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asyncline.errors import (
    AsynclineError,
    BadImage,
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    FetchFailed,
    GraphError,
    LoadError,
    OpError,
    Overloaded,
    ProductError,
    RequestError,
    SettingsError,
    Unavailable,
    UrlForbidden,
    WorkerCrashed,
)

if TYPE_CHECKING:
    from asyncline.engine.context import Context, context
    from asyncline.engine.engine import Engine
    from asyncline.engine.hooks import Observer
    from asyncline.engine.memory import empty
    from asyncline.graph.collate import Pad, Stack
    from asyncline.graph.fields import Image, Json, Tensor, Text
    from asyncline.graph.graph import Graph
    from asyncline.graph.op import Op, op
    from asyncline.graph.outcomes import Each, Reply, Rows, Skip
    from asyncline.graph.request import Request, Response

__version__ = "0.1.0"

__all__ = [
    "AsynclineError",
    "BadImage",
    "BadRequest",
    "Cancelled",
    "Context",
    "DeadlineExceeded",
    "Each",
    "Engine",
    "FetchFailed",
    "Graph",
    "GraphError",
    "Image",
    "Json",
    "LoadError",
    "Observer",
    "Op",
    "OpError",
    "Overloaded",
    "Pad",
    "ProductError",
    "Reply",
    "Request",
    "RequestError",
    "Response",
    "Rows",
    "SettingsError",
    "Skip",
    "Stack",
    "Tensor",
    "Text",
    "Unavailable",
    "UrlForbidden",
    "WorkerCrashed",
    "__version__",
    "context",
    "empty",
    "op",
]

_NAMES = {
    "engine.context": "Context context",
    "engine.engine": "Engine",
    "engine.hooks": "Observer",
    "engine.memory": "empty",
    "graph.collate": "Pad Stack",
    "graph.fields": "Image Json Tensor Text",
    "graph.graph": "Graph",
    "graph.op": "Op op",
    "graph.outcomes": "Each Reply Rows Skip",
    "graph.request": "Request Response",
}
_HOMES = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: a client of a server needs no engine."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
