"""A bare Request: it answers with what Paddle's clients sent, as it saw that."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncline import Graph, Request, op


@op(cpu="inline")
def seen(values: dict[str, Any]) -> dict[str, str]:
    return {name: _said(value) for name, value in values.items()}


def _said(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name} {list(value.shape)} {value.tolist()}"
    return f"{type(value).__name__} {value}"


graph = Graph("seen", seen(Request()))
