"""Long lists of numbers in JSON: cut out, and read piece by piece to what a parser makes of them in one go."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncline.errors import BadRequest
from asyncline.wire.oip import rest, spans

COUNT = 100_000


def body(data: str, *, count: int = COUNT, datatype: str = "FP32", more: str = "") -> bytes:
    return f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[{count}],"data" : {data}{more}}}]}}'.encode()


def listed(*numbers: Any) -> str:
    return "[" + ", ".join([str(number) for number in numbers] * (COUNT // len(numbers))) + "]"


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT64", "UINT8"])
def test_a_long_list_becomes_the_same_array(datatype: str) -> None:
    numbers = (1, 2, 250, 4) if datatype in ("INT64", "UINT8") else (1, -2.5, 3e4, 0)
    text = body(listed(*numbers), datatype=datatype)
    assert len(spans.cut(text)[1]) == 1
    (tensor,) = rest.decode_request(text).inputs
    assert tensor.array.tolist() == np.tile(np.array(numbers, tensor.array.dtype), COUNT // 4).tolist()
    assert tensor.array.flags.writeable


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("[" + "1," * COUNT + "]", "a part of the data is no JSON"),
        ("[" + "1," * 50_000 + " " * 40_000 + "," + " " * 40_000 + "1]", "a number is missing"),
        ("[" + "1," * 50_000 + "," + "1," * 49_999 + "1]", "input 'x': a part of the data is no JSON"),
        ("[" + "1-," * COUNT + "1]", "is no JSON"),
        ("[" + "1" * 2 * COUNT + "]", "a number is too long"),
        ("[" + " " * 3 * COUNT + "]", "a number is too long"),
        ("[" + "1," * COUNT + "1]", "is 100000 elements, got more"),
        ("[" + "1," * (COUNT - 2) + "1]", "is 100000 elements, got 99999"),
        ("[" + "1," * COUNT, "is no JSON"),
        ("[" + "1," * COUNT + '"a"]', "got 100001"),  # no numbers only: read in one go
        ("[" + "[1]," * (COUNT - 1) + "[1]]", "the nested lists do not have the shape [100000]"),
        ("[" + "1," * (COUNT - 1) + "1],[1]", "the nested lists do not have the shape [100000]"),
    ],
)
def test_what_is_no_list_of_that_many_numbers_is_refused(data: str, says: str) -> None:
    with pytest.raises(BadRequest) as refused:
        rest.decode_request(body(data, more=" " * spans.PIECE_NBYTES * 2))
    assert says in refused.value.message


def nested(data: str, *shape: int) -> bytes:
    return body(data, more=" " * 2**18).replace(f"[{COUNT}]".encode(), json.dumps(shape).encode(), 1)


def test_a_long_nested_list_becomes_the_same_array() -> None:
    numbers = np.arange(60_000).reshape(100, 200, 3)
    for text in (json.dumps(numbers.tolist()), json.dumps(numbers.tolist(), indent=1)):
        sent = nested(text, 100, 200, 3)
        assert len(spans.cut(sent)[1]) == 1
        assert (rest.decode_request(sent).inputs[0].array == numbers).all()


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ("[[1,2]" + ",[1,2]" * 30_000 + "]", (30_000, 2)),
        ("[[1,2]" + ",[1,2]" * 29_999 + "]", (2, 30_000)),
        ("[[1,2]" + ",[1,2]" * 29_998 + ",[1],2]", (30_000, 2)),
        ("[[1,2]" + ",[1,2]" * 29_998 + ",1[,2]]", (30_000, 2)),
        ("[[1,2]" + ",[1,2]" * 29_998 + ",[1,]2]", (30_000, 2)),
        ("[[1,2]" + ",[1,2]" * 29_998 + " [1,2],]", (30_000, 2)),
        ("[[1,2]" + ",[1,2]" * 29_998 + ",[,2]]", (30_000, 2)),
        ("[[1,2]" + ",[1,2]" * 29_998 + ",[1 1,2]]", (30_000, 2)),
        ("[[1,2]" + ",[1,2]" * 29_999 + "]", (30_000, 2, 0)),
        ("[[1,2]" + ",[1,2]" * 29_999 + "]", (30_000, 2, *[1] * 30)),
        ("[[1,2]" + ",[1,2]" * 29_999 + "]", (2**40, 0)),
        ("[[1,2]" + ",[1,2]" * 29_999 + "]", ()),
    ],
)
def test_lists_that_are_nested_otherwise_are_refused(data: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadRequest, match=r"do not have the shape|no JSON|is too large"):
        rest.decode_request(nested(data, *shape))


def test_integers_are_not_made_floats_of_and_have_a_range() -> None:
    with pytest.raises(BadRequest, match=r"input 'x': expected integers, got a number"):
        rest.decode_request(body(listed(1, 2.0), datatype="INT64", more=" " * 10**5))
    with pytest.raises(BadRequest, match=r"input 'x': a number is out of the range of UINT8"):
        rest.decode_request(body(listed(1, 256), datatype="UINT8", more=" " * 10**5))


def test_what_stands_for_a_list_cannot_be_said_by_others() -> None:
    text, found = spans.cut(body(listed(1)))
    (name,) = found
    assert name.encode() in text and spans.cut(body(listed(1)))[1].keys().isdisjoint(found)


@given(st.lists(st.sampled_from(['"data"', ":", "[", "]", '\\"', '"', "1", "1,", " ", "\\", "{", "}", "data"])))
def test_a_text_is_whole_again_when_its_lists_are_put_back(parts: list[str]) -> None:
    text = "".join(parts).replace("1,", "1," * 70_000).encode()
    left, found = spans.cut(text)
    for name, span in found.items():
        left = left.replace(f'"{name}"'.encode(), b"[" + span + b"]")
    assert left == text


def test_a_key_that_ends_like_data_is_none() -> None:
    numbers = [1] * COUNT
    text = json.dumps({'x"data': numbers, "inputs": []}).encode()
    assert not spans.cut(text)[1]
