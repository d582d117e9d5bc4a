"""Words of a command line to the payload of a request."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asyncline.errors import BadRequest, SettingsError
from asyncline.wire import json

_FIELD = re.compile(r"(?P<name>[^=@:]*)(?P<mark>:=|=@|=)(?P<value>.*)", re.DOTALL)


def read_payload(words: Sequence[str]) -> Any:
    """The fields that `words` give, or the one whole payload.

    `field=text`, `field:=json` and `field=@path` are fields; `@path`, `-` (standard input), `:=json` and `=text` are
    the whole payload of a bare Request. A file is bytes, but of `.json` what it holds, and of `.npy` an array. Standard
    input is JSON if it can be read as such.

    :raises SettingsError: a word is none of these, a file cannot be read, or fields and a whole payload are mixed.
    """
    fields: dict[str, Any] = {}
    for word in words:
        name, value = _read(word)
        if name in fields:
            raise SettingsError(f"{word!r}: {f'field {name!r}' if name else 'the whole payload'} is there twice")
        fields[name] = value
    if "" not in fields:
        return fields
    if len(fields) > 1:
        raise SettingsError("a whole payload (@path, -, :=json, =text) as well as fields: give one")
    return fields[""]


def _read(word: str) -> tuple[str, Any]:
    if word == "-":
        return "", _stdin(sys.stdin.buffer.read())
    if word.startswith("@"):
        return "", _file(word[1:])
    found = _FIELD.fullmatch(word)
    if found is None:
        raise SettingsError(f"{word!r} is no field: write field=text, field:=json, field=@path, or @path or - alone")
    name, mark, value = found["name"], found["mark"], found["value"]
    if mark == "=@":
        return name, _file(value)
    return name, _json(word, value.encode()) if mark == ":=" else value


def _file(path: str) -> Any:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from None
    if path.endswith(".json"):
        return _json(path, data)
    if path.endswith(".npy"):
        try:
            return np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise SettingsError(f"{path}: {error}") from None
    return data


def _json(where: str, data: bytes) -> Any:
    try:
        return json.decode(data)
    except BadRequest as error:
        raise SettingsError(f"{where}: {error}".replace("the body", "it")) from None


def _stdin(data: bytes) -> Any:
    try:
        return json.decode(data)
    except BadRequest:
        return data
