"""An answer as JSON for a person, or as it is for a program."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import orjson

from asyncline.errors import SettingsError
from asyncline.wire import json

MOST_ELEMENTS = 1000
"""Longer arrays are summed up."""
MOST_BYTES = 1024
"""Longer bytes are only counted."""


def as_json(answer: Any) -> bytes:
    """Indented JSON, with short arrays as lists and short bytes as base64, and what there is to know of longer ones.

    :raises OpError: it holds something that JSON cannot carry.
    """
    packed = json.encode(_shortened(answer))
    return orjson.dumps(orjson.loads(packed), option=orjson.OPT_INDENT_2)


def as_it_is(answer: Any) -> bytes:
    """Bytes and texts as they are, an array as an `.npy` file, anything else as JSON on one line."""
    if isinstance(answer, bytes):
        return answer
    if isinstance(answer, str):
        return answer.encode(errors="surrogatepass")
    if isinstance(answer, np.ndarray):
        file = io.BytesIO()
        np.save(file, answer, allow_pickle=False)
        return file.getvalue()
    return json.encode(answer)


def take_bytes(answer: Any) -> tuple[bytes, Any]:
    """The bytes or the array of an answer, as a file would hold them, and what else there is to print.

    :raises SettingsError: there are none, or several.
    """
    kinds = (bytes, np.ndarray)
    if isinstance(answer, kinds):
        return as_it_is(answer), None
    if isinstance(answer, dict):
        names = [name for name, value in answer.items() if isinstance(value, kinds)]
        if len(names) == 1:
            return as_it_is(answer[names[0]]), {name: value for name, value in answer.items() if name != names[0]}
        if names:
            raise SettingsError(f"-o takes one, and the answer has several: {', '.join(map(str, names))}")
    raise SettingsError("-o is for bytes or an array, and the answer has none at its top")


def _shortened(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.size > MOST_ELEMENTS:
        return {"array": f"{value.dtype} {list(value.shape)}", **_extent(value)}
    if isinstance(value, bytes) and len(value) > MOST_BYTES:
        return {"bytes": len(value)}
    if isinstance(value, dict):
        return {key: _shortened(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    return value


def _extent(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    if array.dtype.kind not in "iuf":
        return {}
    return {"min": array.min().item(), "max": array.max().item(), "mean": float(array.mean(dtype=np.float64))}
