"""The OpenAPI description of a graph, made from the fields of its Request."""

from __future__ import annotations

import inspect
from typing import Any

from asyncline.graph.fields import Field, Image
from asyncline.graph.graph import Graph
from asyncline.transports.rest.answer import STATUSES
from asyncline.transports.rest.body import BodyDecoder

ERROR = {
    "type": "object",
    "required": ["code", "message", "request_id"],
    "properties": {
        "code": {"type": ["string", "integer"], "examples": sorted(set(STATUSES) - {"product", "cancelled"})},
        "message": {"type": "string"},
        "request_id": {"type": "string"},
    },
}


def openapi(graph: Graph, decoder: BodyDecoder, *, has_token: bool) -> dict[str, Any]:
    """An OpenAPI 3.1 document of the one route that runs `graph`."""
    from asyncline import __version__

    fields = graph.request.fields
    schema = _object({name: field.schema() for name, field in fields.items()}, fields) if fields else {}
    content: dict[str, Any] = {"application/json": {"schema": schema}, "application/msgpack": {"schema": schema}}
    if fields:
        form = {name: {"type": "string"} if isinstance(f, Image) else f.schema() for name, f in fields.items()}
        content["multipart/form-data"] = {"schema": _object(form, fields)}
    if decoder.raw_field is not None:
        content[fields[decoder.raw_field].media_type] = {"schema": {}}
    error = {
        "description": "error",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
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
                "content": {"application/json": {"schema": {}}, "application/msgpack": {"schema": {}}},
            },
            **errors,
        },
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": graph.name, "version": __version__, "description": " → ".join(op.name for op in graph.ops)},
        "paths": {f"/{graph.name}": {"post": operation}},
        "components": {"schemas": {"Error": ERROR}},
    }
    if has_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _object(properties: dict[str, Any], fields: dict[str, Field]) -> dict[str, Any]:
    for name, schema in properties.items():
        if fields[name].description:
            schema["description"] = fields[name].description
        if not fields[name].required:
            schema["default"] = fields[name].default
        if fields[name].example is not None and not isinstance(fields[name], Image):
            schema["examples"] = [fields[name].example]
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name, field in fields.items() if field.required],
        "additionalProperties": False,
    }


def _header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _summary(graph: Graph) -> str:
    doc = inspect.getdoc(graph.ops[-1]) if type(graph.ops[-1]).__doc__ else None
    return doc.splitlines()[0] if doc else f"run graph {graph.name}"
