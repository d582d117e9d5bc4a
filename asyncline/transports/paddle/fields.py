"""Values of a request by name, as the fields of a graph's Request take them.

Text     a string, or a STRING tensor
Json     a string of JSON; an array as nested lists
Image    base64, or a URL; a tensor of UINT8 with the file's bytes
Tensor   a tensor, or an array as Python prints it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from asyncline.errors import RequestError
from asyncline.graph.fields import Field, Image, Json, Tensor
from asyncline.wire import json
from asyncline.wire.paddle import printed
from asyncline.wire.paddle.messages import PROFILE_KEY
from asyncline.wire.weight import Scale


def prepared(values: dict[str, Any], fields: Mapping[str, Field], scale: Scale | None = None) -> dict[str, Any]:
    """What `Request.unpack` takes; it checks the values further.

    :param scale: weighs what they become.
    :raises BadRequest: a value cannot be what its field is; names it.
    :raises TooLarge: it weighs too much.
    """
    found = {}
    for name, value in values.items():
        field = fields.get(name)
        if field is not None:
            try:
                found[name] = _value(value, field, scale)
            except RequestError as error:
                error.message = f"field {name!r}: {error.message}"
                raise
        elif name != PROFILE_KEY and not _is_offsets(name, values):
            found[name] = value
    return found


def _value(value: Any, field: Field, scale: Scale | None) -> Any:
    is_array = isinstance(value, np.ndarray)
    if isinstance(field, Tensor):
        if is_array:
            return value
        if scale is not None:
            scale.add_json(value.encode(errors="replace"))
        return printed.parse(value)
    if isinstance(field, Json):
        if not is_array:
            return json.decode(value.encode(errors="replace"), scale=scale)
        if scale is not None:
            scale.add_array(value)
        return value.tolist()
    if isinstance(field, Image) and is_array and value.dtype == np.uint8:
        return value.tobytes()
    return value


def _is_offsets(name: str, values: Mapping[str, Any]) -> bool:
    """Whether these are the offsets of a tensor, which nothing here has a place for."""
    return name.endswith(".lod") and name.removesuffix(".lod") in values and isinstance(values[name], np.ndarray)
