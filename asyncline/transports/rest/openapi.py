"""The OpenAPI description of a graph, made from the fields of its Request."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic_core import to_jsonable_python

from asyncline.graph.fields import Field, Image
from asyncline.graph.graph import Graph
from asyncline.transports.rest.answer import STATUSES
from asyncline.transports.rest.body import BodyDecoder
from asyncline.transports.rest.events import EVENTS

ERROR = {
    "type": "object",
    "required": ["code", "message", "request_id"],
    "properties": {
        "code": {"type": ["string", "integer"], "examples": sorted(set(STATUSES) - {"product", "cancelled"})},
        "message": {"type": "string"},
        "request_id": {"type": "string"},
    },
}

EVENT_TEXT = (
    "server-sent events: `data` is one part of the answer as JSON; the last is `event: done` with data_id, parts and "
    "times_ms, or `event: error` with an Error"
)


def openapi(graph: Graph, decoder: BodyDecoder, *, has_token: bool) -> dict[str, Any]:
    """An OpenAPI 3.1 document of the one route that runs `graph`."""
    from asyncline import __version__

    fields = graph.request.fields
    schemas: dict[str, Any] = {"Error": ERROR}
    for field in fields.values():
        schemas |= field.schema().get("$defs", {})
    schema = _object(fields, in_form=False) if fields else {}
    content: dict[str, Any] = {"application/json": {"schema": schema}, "application/msgpack": {"schema": schema}}
    if fields:
        encoding = {name: {"contentType": field.media_type} for name, field in fields.items()}
        content["multipart/form-data"] = {"schema": _object(fields, in_form=True), "encoding": encoding}
    for media_type in decoder.raw_types:
        content[media_type] = {"schema": {}}
    error = {
        "description": "error",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    answer = {"type": "array", "items": {}, "description": "the parts"} if graph.streams else {}
    errors = {str(status): error for status in sorted(set(STATUSES.values()) - {499, 405})}
    operation = {
        "operationId": graph.name,
        "summary": _summary(graph),
        "parameters": [
            _header("X-Timeout-Ms", "deadline in milliseconds; the server's own may be earlier", {"type": "integer"}),
            _header("X-Log-Id", "your id of this request; it is in every log line of it", {"type": "string"}),
        ],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {
                "description": "the answer",
                "content": {
                    "application/json": {"schema": answer},
                    "application/msgpack": {"schema": answer},
                    EVENTS: {"schema": {"type": "string", "description": EVENT_TEXT}},
                },
            },
            **errors,
        },
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": graph.name, "version": __version__, "description": " → ".join(op.name for op in graph.ops)},
        "paths": {f"/{graph.name}": {"post": operation}},
        "components": {"schemas": schemas},
    }
    if has_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _object(fields: dict[str, Field], *, in_form: bool) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: _property(field, in_form=in_form) for name, field in fields.items()},
        "required": [name for name, field in fields.items() if field.required],
        "additionalProperties": False,
    }


def _property(field: Field, *, in_form: bool) -> dict[str, Any]:
    schema = {key: value for key, value in field.schema().items() if key != "$defs"}
    if isinstance(field, Image):
        # In a form an image is a file; and neither a default nor an example of one is of use to a reader.
        schema = {"type": "string"} if in_form else schema
        return schema | {"description": f"{field.description} (at most {field.max_mb:g} MB)".strip()}
    if field.description:
        schema["description"] = field.description
    if not field.required:
        schema["default"] = to_jsonable_python(field.default, fallback=str)
    if field.example is not None:
        schema["examples"] = [field.example]
    return schema


def _header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _summary(graph: Graph) -> str:
    doc = inspect.getdoc(graph.ops[-1]) if type(graph.ops[-1]).__doc__ else None
    return doc.splitlines()[0] if doc else f"run graph {graph.name}"
