"""Long lists of numbers in a JSON text, flat or nested, read piece by piece.

A JSON parser makes an object of every number, all of them at once, and lets nothing else run meanwhile: for 10 MB most
of a second, and ten times the memory. So long lists under the key `data` are first cut out of the text, and what is
left is parsed as usual. Of each list it is checked that its brackets are those of its shape; without them it is then
parsed in pieces, which become the array that they are part of. Between two pieces other threads get their turn.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from asyncline.errors import BadRequest
from asyncline.wire import json
from asyncline.wire.oip import datatypes
from asyncline.wire.oip.datatypes import Array
from asyncline.wire.weight import Scale

Spans = Mapping[str, bytes]
"""Lists that were cut out, without their outer brackets, by what stands in the text for them."""

PIECE_NBYTES = 64 * 1024
_DATA = b'"data"'
_BEGIN = re.compile(rb"\s*:\s*\[")
_SPACE = b" \t\r\n"
_NUMBER = b"0123456789eE+-."
_NO_LIST = re.compile(rb"[^0-9eE+\-.,\[\] \t\r\n]")
_MISPLACED = re.compile(rb"[^,\[]\[|\][^,\]]")


def cut(text: bytes) -> tuple[bytes, Spans]:
    """A text without its long lists, and these."""
    # Not to be guessed: what stands for a list is nothing that the text may contain by itself.
    token = secrets.token_hex(16)
    spans: dict[str, bytes] = {}
    kept, place = [], 0
    for start, end in _lists(text):
        name = f"{token}:{len(spans)}"
        spans[name] = text[start:end]
        kept += [text[place : start - 1], b'"', name.encode(), b'"']
        place = end + 1
    return b"".join([*kept, text[place:]]), spans


def _lists(text: bytes) -> Iterator[tuple[int, int]]:
    """Where long lists of numbers are, without their outer brackets."""
    place = 0
    while (found := text.find(_DATA, place)) >= 0:
        place = found + len(_DATA)
        begin = _BEGIN.match(text, place)
        if begin is None or text[found - 1 : found] == b"\\":  # the end of a string that has a quote in it
            continue
        start = place = begin.end()
        end = _end(text, start)
        if end - start > PIECE_NBYTES:
            yield start, end
            place = end


def _end(text: bytes, start: int) -> int:
    """Where the list of numbers that begins at `start` ends; at `start`, where it is no such list."""
    for place in range(start, len(text), PIECE_NBYTES):
        if (found := _NO_LIST.search(text, place, place + PIECE_NBYTES)) is not None:
            # It is the end of the object, or the next key behind a comma.
            end = _before_space(text, found.start())
            if text[end - 1 : end] == b",":
                end = _before_space(text, end - 1)
            return end - 1 if end > start and text[end - 1 : end] == b"]" else start
    return start


def _before_space(text: bytes, end: int) -> int:
    while end and text[end - 1] in _SPACE:
        end -= 1
    return end


def array(span: bytes, datatype: str, shape: Sequence[int], scale: Scale | None = None) -> Array:
    """The array that a list is.

    :param scale: weighs it.
    :raises BadRequest: as of `datatypes.from_json`, or it is no list.
    :raises TooLarge: it weighs too much.
    """
    size = datatypes.count(shape)
    if b"[" in span or b"]" in span:
        _check_brackets(span, shape)
        span = _without(span, b"[]")
    parts: list[Array] = []
    found = place = 0
    while place <= len(span):
        end = len(span) if len(span) - place <= PIECE_NBYTES else span.rfind(b",", place, place + PIECE_NBYTES)
        if end < 0:
            raise BadRequest("the data are no JSON: a number is too long")
        numbers: list[Any] = json.decode(b"[%b]" % span[place:end], "a part of the data")
        if not numbers:
            raise BadRequest("the data are no JSON: a number is missing")
        found += len(numbers)
        if found > size:
            break
        part = datatypes.from_json(numbers, datatype, (len(numbers),))
        if scale is not None:
            scale.add(2 * part.nbytes)  # until it is joined with the others
        parts.append(part)
        place = end + 1
    if found != size:
        raise BadRequest(f"shape {list(shape)} is {size} elements, got {'more' if found > size else found}")
    return np.concatenate(parts).reshape(shape)


def _check_brackets(span: bytes, shape: Sequence[int]) -> None:
    """:raises BadRequest: the lists are nested in another way than the shape says."""
    tight = _without(span, _SPACE)
    misplaced = any(
        _MISPLACED.search(tight, place, place + PIECE_NBYTES + 1) for place in range(0, len(tight), PIECE_NBYTES)
    )
    found = _without(tight, _NUMBER)
    # Its length first: that of the one of a hostile shape may be anything.
    if misplaced or len(found) != _brackets_nbytes(shape) or found != _brackets(shape):
        raise BadRequest(f"the nested lists do not have the shape {list(shape)}")


def _brackets_nbytes(shape: Sequence[int]) -> int:
    """How long `_brackets` is; -1 where there is no such thing."""
    if not shape or not math.prod(shape):
        return -1
    nbytes = shape[-1] - 1
    for length in reversed(shape[:-1]):
        nbytes = length * (nbytes + 3) - 1
    return nbytes


def _brackets(shape: Sequence[int]) -> bytes:
    """What is left of nested lists of that shape without their numbers and the outer brackets."""
    text = b"," * (shape[-1] - 1)
    for length in reversed(shape[:-1]):
        text = b",".join([b"[%b]" % text] * length)
    return text


def _without(text: bytes, characters: bytes) -> bytes:
    pieces = range(0, len(text), PIECE_NBYTES)
    return b"".join([text[place : place + PIECE_NBYTES].translate(None, characters) for place in pieces])
