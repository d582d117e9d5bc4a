"""The typed fields of a Request: each kind parses what a client sent and describes itself.

A kind is one class with `parse` (the wire's value to the hook's value) and `schema` (JSON schema for the
OpenAPI page). Field values arrive already decoded from JSON, msgpack, a multipart form or a raw body.
"""

from __future__ import annotations

import binascii
import re
from abc import ABC, abstractmethod
from base64 import b64decode
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from asyncline.errors import BadRequest, TooLarge

REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "REQUIRED"})()
"""Default of a field that a client has to send."""

DTYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
"""Names of the Open Inference Protocol, and numpy's types for them. BYTES is strings: an array of `str`."""

_URL = re.compile(r"https?://", re.IGNORECASE)


class Field(ABC):
    """One field of a Request.

    :param default: makes the field optional.
    :param description: for `/docs` and `/openapi.json`.
    :param example: a value as a client writes it in JSON; of an Image, the path of a file to send.
    """

    media_type = "application/json"

    def __init__(self, *, default: Any = REQUIRED, description: str = "", example: Any = None) -> None:
        self.default = default
        self.description = description
        self.example = example

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    @abstractmethod
    def parse(self, value: Any) -> Any:
        """Turn what a client sent into what a hook gets.

        :raises BadRequest: it does not fit; the message does not name the field, the caller adds it.
        :raises TooLarge: it has more bytes than its limit; likewise.
        """

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """JSON schema of the field as it stands in a JSON body."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Image(Field):
    """An encoded image: a hook gets its `bytes`. Clients send a raw body, a form file, or base64 in JSON.

    :param max_mb: largest encoded size in MB (10⁶ bytes).
    :param url: clients may send the URL of an image instead; a hook gets it as a `str`, for a `Fetch` Op to download.
    """

    media_type = "image/*"

    def __init__(
        self,
        *,
        max_mb: float = 10,
        url: bool = False,
        default: Any = REQUIRED,
        description: str = "",
        example: str | None = None,
    ) -> None:
        super().__init__(default=default, description=description, example=example)
        self.max_mb = max_mb
        self.url = url

    def parse(self, value: Any) -> bytes | str:
        if self.url and isinstance(value, str) and _URL.match(value):
            return value
        data = self._decode(value)
        if not data:
            raise BadRequest("the image is empty")
        if len(data) > self.max_mb * 1e6:
            raise TooLarge(f"an image of {len(data)} bytes is over the limit of {self.max_mb:g} MB")
        return data

    @staticmethod
    def _decode(value: Any) -> bytes:
        if isinstance(value, bytes):
            return value
        if isinstance(value, (bytearray, memoryview)):
            return bytes(value)
        if not isinstance(value, str):
            raise BadRequest(f"expected the bytes of an image or base64, got {_kind(value)}")
        if _URL.match(value):
            raise BadRequest("expected an image, got a URL: this graph downloads nothing")
        if value.startswith("data:"):
            value = value.partition(",")[2]
        try:
            return b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise BadRequest("expected base64 of an image") from None

    def schema(self) -> dict[str, Any]:
        encoded = {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/*"}
        return {"anyOf": [encoded, {"type": "string", "format": "uri"}]} if self.url else encoded


class Text(Field):
    """A string.

    :param max_length: most characters.
    """

    media_type = "text/plain"

    def __init__(
        self, *, max_length: int = 100_000, default: Any = REQUIRED, description: str = "", example: str | None = None
    ) -> None:
        super().__init__(default=default, description=description, example=example)
        self.max_length = max_length

    def parse(self, value: Any) -> str:
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError:
                raise BadRequest("the text is not UTF-8") from None
        if not isinstance(value, str):
            raise BadRequest(f"expected a string, got {_kind(value)}")
        if len(value) > self.max_length:
            raise BadRequest(f"a text of {len(value)} characters is over the limit of {self.max_length}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": self.max_length}


class Json(Field):
    """Any JSON value, or one that fits `type`: whatever pydantic validates (a model, `list[int]`, ...)."""

    def __init__(self, type: Any = Any, *, default: Any = REQUIRED, description: str = "", example: Any = None) -> None:
        super().__init__(default=default, description=description, example=example)
        self.type = type
        self._adapter: TypeAdapter[Any] | None = None if type is Any else TypeAdapter(type)

    def parse(self, value: Any) -> Any:
        if self._adapter is None:
            return value
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            where = "".join(f"[{part!r}]" for part in first["loc"])
            raise BadRequest(f"{where + ': ' if where else ''}{first['msg']}") from None

    def schema(self) -> dict[str, Any]:
        return {} if self._adapter is None else self._adapter.json_schema(ref_template="#/components/schemas/{model}")


class Tensor(Field):
    """An array: nested lists in JSON, or a flat list where at most one length is open.

    :param dtype: a name of the Open Inference Protocol: `FP32`, `INT64`, ...
    :param shape: the lengths; -1 is any length.
    """

    def __init__(
        self,
        dtype: str = "FP32",
        shape: tuple[int, ...] | list[int] = (-1,),
        *,
        default: Any = REQUIRED,
        description: str = "",
        example: Any = None,
    ) -> None:
        super().__init__(default=default, description=description, example=example)
        if dtype not in DTYPES:
            raise ValueError(f"no dtype {dtype!r}: use one of {', '.join(DTYPES)}")
        if any(not isinstance(length, int) or length < -1 for length in shape):
            raise ValueError(f"no shape {shape!r}: write lengths, and -1 for any length")
        self.dtype = dtype
        self.shape = tuple(shape)

    def parse(self, value: Any) -> np.ndarray[Any, Any]:
        if self.dtype == "BYTES":
            return self._shaped(self._strings(value))
        target = np.dtype(DTYPES[self.dtype])
        array = value if isinstance(value, np.ndarray) else self._from_lists(value, target)
        if array.dtype != target:
            array = self._cast(array, target)
        return self._shaped(array)

    def _from_lists(self, value: Any, target: np.dtype[Any]) -> np.ndarray[Any, Any]:
        if not isinstance(value, (list, tuple, int, float)):
            raise BadRequest(f"expected nested lists of numbers, got {_kind(value)}")
        _check_numbers(value)
        try:
            array = np.asarray(value)
        except (ValueError, OverflowError):
            raise BadRequest("the nested lists are ragged or too deep") from None
        if array.dtype.kind not in "biuf":
            if array.size == 0:
                return array.astype(np.float64)
            raise BadRequest("expected numbers only")
        if array.dtype.kind == "f" and target.kind in "iu":
            # numpy makes floats of integers that no one type holds, as in [-1, 2**63], and of [0, 2**63] too.
            whole = np.asarray(value, object)
            if all(type(number) is int for number in whole.flat):
                try:
                    return whole.astype(target)
                except OverflowError:
                    raise BadRequest(f"a number is out of the range of {self.dtype}") from None
        return array

    def _strings(self, value: Any) -> np.ndarray[Any, Any]:
        if not isinstance(value, (list, tuple, str, bytes, np.ndarray)):
            raise BadRequest(f"expected nested lists of strings, got {_kind(value)}")
        array = np.asarray(value, object)
        try:
            texts = [each.decode() if isinstance(each, bytes) else each for each in array.flat]
        except UnicodeDecodeError:
            raise BadRequest("a string is not UTF-8") from None
        if not all(isinstance(text, str) for text in texts):
            raise BadRequest("expected strings only, in lists of equal length")
        return np.array(texts, object).reshape(array.shape)

    def _cast(self, array: np.ndarray[Any, Any], target: np.dtype[Any]) -> np.ndarray[Any, Any]:
        if array.size:
            # JSON has one kind of number: integers that all fit the target's range are welcome.
            if array.dtype.kind in "iu" and target.kind in "iu":
                limits = np.iinfo(target)
                if array.min() < limits.min or array.max() > limits.max:
                    raise BadRequest(f"a number is out of the range of {self.dtype}")
            elif not np.can_cast(array.dtype, target, "same_kind"):
                raise BadRequest(f"expected {self.dtype}, got {array.dtype.name}")
        try:
            with np.errstate(over="raise"):
                return array.astype(target)
        except FloatingPointError:
            raise BadRequest(f"a number is out of the range of {self.dtype}") from None

    def _shaped(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        expected = self.shape
        if array.shape == expected:
            return array
        if array.ndim == len(expected) and all(e in (-1, n) for e, n in zip(expected, array.shape, strict=True)):
            return array
        if array.ndim == 1 and expected.count(-1) <= 1 and len(expected) > 1:
            try:
                return array.reshape(expected)
            except ValueError:
                pass
        raise BadRequest(f"expected shape {list(expected)}, got {list(array.shape)}")

    def schema(self) -> dict[str, Any]:
        kinds = {"BOOL": "boolean", "BYTES": "string", "FP16": "number", "FP32": "number", "FP64": "number"}
        kind = kinds.get(self.dtype, "integer")
        schema: dict[str, Any] = {"type": kind}
        for length in reversed(self.shape):
            schema = {"type": "array", "items": schema}
            if length != -1:
                schema |= {"minItems": length, "maxItems": length}
        return schema

    def __repr__(self) -> str:
        return f"Tensor({self.dtype!r}, {list(self.shape)})"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)


def _check_numbers(value: Any) -> None:
    """Refuse anything but numbers before numpy sees it: of a long string and many short ones it would make an
    array of many long ones.

    :raises BadRequest: there is something else in the nested lists.
    """
    level = [value] if isinstance(value, list | tuple) else []
    while level:
        deeper = []
        for part in level:
            kinds = set(map(type, part))
            if not kinds <= _NUMBERS:
                if any(not issubclass(kind, _NUMERIC) for kind in kinds - _NUMBERS):
                    raise BadRequest("expected numbers only")
            if not kinds.isdisjoint(_LISTS):
                deeper += [each for each in part if type(each) in _LISTS]
        level = deeper


_LISTS = frozenset({list, tuple})
_NUMBERS = _LISTS | {int, float, bool}
_NUMERIC = (int, float, np.generic, np.ndarray)
