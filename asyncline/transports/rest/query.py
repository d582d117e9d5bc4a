"""Queries of the operator's pages."""

from __future__ import annotations

from aiohttp import web

from asyncline.errors import BadRequest


def seconds(request: web.BaseRequest, default: float, most: float) -> float:
    """`?seconds=5`.

    :raises BadRequest: it is no number above 0, up to `most`.
    """
    text = request.query.get("seconds")
    if text is None:
        return default
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found <= most:
        raise BadRequest(f"query seconds: expected a number up to {most:g}")
    return found
