"""asyncline serves pipelines of models from one asyncio process.

Write Ops, wire them into a Graph, run `asyncline serve app:graph`.
"""

from asyncline.engine.context import Context, context
from asyncline.engine.engine import Engine
from asyncline.engine.hooks import Observer
from asyncline.engine.memory import empty
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
