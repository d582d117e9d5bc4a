"""Arrays as the text that Python prints: `array([[1., 2.]], dtype=float32)`. Nothing in it is evaluated.

Paddle's client sends arrays so by default, and evaluates such answers. What is written here has all digits, where
numpy prints eight.
"""

from __future__ import annotations

import json
import re
from ast import literal_eval
from typing import Any

import numpy as np
import orjson

from asyncline.errors import BadRequest, OpError
from asyncline.wire.oip.datatypes import MOST_STRINGS, count, from_strings

Array = np.ndarray[Any, Any]

DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
          "float64")  # fmt: skip
_UNSAID = ("bool", "int64", "float64")
"""Those that numpy does not print."""

_TAIL = re.compile(r"(?:, ?shape=\(([\d, ]*)\))?(?:,\s{0,80}dtype=(\w{1,12}|object|'[<>|=]?[SU]\d{1,9}'))?\)")
_TAIL_LENGTH = 200
_STRING = re.compile(
    r"""'(?:[^'\\\n]|\\(?:[\\'"nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}))*'|"(?:[^"\\\n]|\\(?:[\\'"nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}))*\""""
)
_POINTS = ((".,", ".0,"), (".]", ".0]"), (". ", ".0 "), (".\n", ".0\n"), (".e", ".0e"), ("True", "true"),
           ("False", "false"))  # fmt: skip
"""From Python's numbers to JSON's."""
_NON_FINITE = (("nan", "NaN"), ("inf", "Infinity"))


def parse(text: str) -> Array:
    """The array that was printed. Nested lists, and numbers with commas between them, are as good.

    :raises BadRequest: it is no array of numbers or strings, or one of unequal rows.
    """
    text, dtype, shape = _unwrap(text.strip())
    if "'" in text or '"' in text:
        return _strings(text)
    try:
        array = np.asarray(_load(text))
    except (ValueError, OverflowError, RecursionError):
        raise BadRequest("expected an array as Python prints it, or nested lists") from None
    if array.size == 0:
        if shape is not None and 0 not in shape:
            raise BadRequest(f"shape {list(shape)} is that of no empty array")
        array = np.zeros(array.shape if shape is None else shape, np.float64)
    if array.dtype.kind not in "biuf":
        raise BadRequest("expected numbers only")
    return array if dtype is None else _cast(array, dtype)


def write(array: Array) -> str:
    """The array as it is printed, in one line and with all elements.

    :raises OpError: it holds neither numbers nor strings.
    """
    name, kind = array.dtype.name, array.dtype.kind
    if kind not in "biufSUO" or (kind == "O" and not all(isinstance(each, str | bytes) for each in array.flat)):
        raise OpError(f"an array of {name} with something other than numbers and strings has no text")
    if name in DTYPES and array.ndim and (kind != "f" or np.isfinite(array).all()):
        text = orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY).decode()
        text = text.replace(",", ", ")
        if name == "bool":
            text = text.replace("true", "True").replace("false", "False")
    else:
        text = str(array.tolist())
    if array.size == 0 and array.ndim != 1:
        text = f"[], shape={array.shape}"
    if kind in "SUO":
        name = "object" if kind == "O" else repr(array.dtype.str)
    return f"array({text})" if name in _UNSAID and array.size else f"array({text}, dtype={name})"


def _unwrap(text: str) -> tuple[str, str | None, tuple[int, ...] | None]:
    """What stands in `array(...)`, and the dtype and shape that are said behind it."""
    if not text.startswith("array("):
        return (text if text.startswith("[") else f"[{text}]"), None, None
    # Behind the last bracket or number; not sought in all of a long text.
    start = max(len("array("), len(text) - _TAIL_LENGTH)
    start = max(start, text.rfind("]") + 1)
    found = _TAIL.search(text, start)
    if found is None or found.end() != len(text):
        raise BadRequest("expected an array as Python prints it")
    shape = found[1] and tuple(int(length) for length in found[1].split(",") if length.strip().isdigit())
    if shape:
        count(shape)
    return text[len("array(") : found.start()], found[2], shape or None


def _load(text: str) -> Any:
    for python, other in _POINTS:
        text = text.replace(python, other)
    if text.endswith("."):
        text += "0"
    if "n" in text.replace("null", "?"):
        for python, other in _NON_FINITE:
            text = text.replace(python, other)
        return json.loads(text)  # orjson knows no NaN
    return orjson.loads(text)


def _cast(array: Array, name: str) -> Array:
    if name not in DTYPES:
        raise BadRequest(f"dtype {name} is not one of {', '.join(DTYPES)}")
    target = np.dtype(name)
    if array.size and not np.can_cast(array.dtype, target, "same_kind") and target.kind not in "iu":
        raise BadRequest(f"expected elements of {name}")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(target)
    if target.kind in "iu" and not np.array_equal(cast, array):
        raise BadRequest(f"a number is out of the range of {name}")
    return cast


def _strings(text: str) -> Array:
    """Strings in nested lists, whichever quotes they are in."""
    if text.count(",") >= MOST_STRINGS:
        raise BadRequest(f"more than {MOST_STRINGS} strings")
    try:
        values = orjson.loads(_STRING.sub(_as_json, text))
    except ValueError:
        raise BadRequest("expected strings as Python prints them, in lists") from None
    if not isinstance(values, list):
        raise BadRequest("expected strings as Python prints them, in lists")
    shape = [len(values)]
    while values and isinstance(values[0], list):
        shape.append(len(values[0]))
        if any(not isinstance(row, list) or len(row) != shape[-1] for row in values):
            raise BadRequest("the nested lists are ragged")
        values = [each for row in values for each in row]
    if not all(isinstance(value, str) for value in values):
        raise BadRequest("expected strings only")
    return from_strings(values, shape)


def _as_json(found: re.Match[str]) -> str:
    return orjson.dumps(literal_eval(found[0])).decode()
