"""What Paddle's clients are tested against: every kind of field, and it says what it got."""

from __future__ import annotations

from typing import Any

from asyncline import Graph, Json, ProductError, Request, Tensor, Text, context, op


@op(cpu="inline")
def scale(x: Any, by: Any, note: str) -> Any:
    if note == "sold out":
        raise ProductError(77, "no stock")
    return {"y": x * by, "note": note, "log_id": context().log_id}


request = Request(x=Tensor("FP32", [-1, 2]), by=Json(float, default=2.0), note=Text(default=""))
graph = Graph("scale", scale(request.x, request.by, request.note))
