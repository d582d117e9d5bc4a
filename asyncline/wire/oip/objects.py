"""Values out of JSON objects, each of the type that it has to be; null is as absent. Errors are BadRequest."""

from __future__ import annotations

from typing import Any

from asyncline.errors import BadRequest, RequestError
from asyncline.wire.oip.messages import Parameters


def as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest("expected an object")
    return value


def as_list(head: dict[str, Any], key: str) -> list[Any]:
    value = head.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRequest(f"{key} is no list")
    return value


def text(head: dict[str, Any], key: str) -> str:
    value = head.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRequest(f"{key} is no string")
    return value


def texts(head: dict[str, Any], key: str) -> tuple[str, ...]:
    values = as_list(head, key)
    if not all(isinstance(value, str) for value in values):
        raise BadRequest(f"{key} are no strings")
    return tuple(values)


def shape(head: dict[str, Any], least: int = 0) -> tuple[int, ...]:
    """It has to be there."""
    value = head.get("shape")
    if not isinstance(value, list) or not all(type(length) is int and length >= least for length in value):
        raise BadRequest("shape is no list of lengths")
    return tuple(value)


def parameters(head: dict[str, Any]) -> Parameters:
    value = head.get("parameters")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest("parameters is no object")
    return value


def pop_flag(parameters: dict[str, Any], key: str) -> bool | None:
    value = parameters.pop(key, None)
    if not isinstance(value, bool | None):
        raise BadRequest(f"{key} is neither true nor false")
    return value


def named(kind: str, position: int, value: Any) -> tuple[dict[str, Any], str]:
    """The object of a tensor, and its name, which has to be there."""
    try:
        head = as_object(value)
        name = text(head, "name")
    except RequestError as error:
        error.message = f"{kind} {position}: {error.message}"
        raise
    if not name:
        raise BadRequest(f"{kind} {position} has no name")
    return head, name
