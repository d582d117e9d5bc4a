"""A request to paste: what a client of a graph sends, made of its fields' examples."""

from __future__ import annotations

import shlex
from typing import Any

import orjson

from asyncline.graph.fields import Field, Image, Tensor, Text
from asyncline.graph.graph import Graph

PHOTO = "photo.jpg"


def curl(graph: Graph, address: str) -> str:
    """A curl line that sends one request to `graph` at `address`."""
    url = f"{address}/{graph.name}"
    if getattr(type(graph.request), "takes_pipeline", False):  # of Paddle's wire
        return f"""curl -d '{{"key": ["text"], "value": ["hello"]}}' {url}/prediction"""
    fields = {name: field for name, field in graph.request.fields.items() if field.required}
    images = [field for field in fields.values() if isinstance(field, Image)]
    if images and len(fields) == 1:
        data = shlex.quote(f"@{images[0].example or PHOTO}")
        return f"curl -H 'Content-Type: image/jpeg' --data-binary {data} {url}"
    if images:
        parts = [f"-F {shlex.quote(f'{name}={_in_form(field)}')}" for name, field in fields.items()]
        return f"curl {' '.join(parts)} {url}"
    body = {name: example(field) for name, field in fields.items()} if graph.request.fields else "hello"
    return f"curl -H 'Content-Type: application/json' -d {shlex.quote(orjson.dumps(body).decode())} {url}"


def example(field: Field) -> Any:
    """A value that the field takes, as JSON."""
    if field.example is not None:
        return field.example
    if isinstance(field, Text):
        return "hello"
    if isinstance(field, Tensor):
        value: Any = {"BOOL": False, "BYTES": "hello"}.get(field.dtype, 0)
        for length in reversed(field.shape):
            value = [value] * (1 if length == -1 else length)
        return value
    return {}


def _in_form(field: Field) -> str:
    if isinstance(field, Image):
        return f"@{field.example or PHOTO}"
    value = example(field)
    return value if isinstance(field, Text) else orjson.dumps(value).decode()
