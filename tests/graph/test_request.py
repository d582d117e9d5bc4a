"""Request: fields as inputs, and unpacking of what a client sent."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest

from asyncline import BadRequest, GraphError, Image, Json, Request, RequestError, Response, Tensor, Text
from asyncline.errors import TooLarge

from .ops import Copy


def test_a_bare_request_passes_the_whole_payload() -> None:
    payload = [1, {"a": b"x"}]
    assert Request().unpack(payload) is payload


def test_fields_are_parsed_by_name() -> None:
    request = Request(text=Text(), numbers=Json(list[int]))
    assert request.unpack({"numbers": [1, "2"], "text": b"hello"}) == {"text": "hello", "numbers": [1, 2]}


def test_a_missing_field_is_named() -> None:
    with pytest.raises(BadRequest, match="field 'text' is missing"):
        Request(text=Text()).unpack({})


def test_a_missing_field_takes_its_default_as_it_is() -> None:
    assert Request(text=Text(default=None)).unpack({}) == {"text": None}


def test_an_unknown_field_is_refused_with_the_declared_ones() -> None:
    with pytest.raises(BadRequest, match=r"no field 'txet' \(declared: text, lang\)"):
        Request(text=Text(), lang=Text(default="en")).unpack({"text": "a", "txet": "b"})


def test_a_long_unknown_name_is_cut() -> None:
    with pytest.raises(BadRequest) as caught:
        Request(text=Text(default="")).unpack({"x" * 10_000: 1})
    assert len(str(caught.value)) < 120


def test_an_unknown_name_that_is_no_string_is_refused() -> None:
    with pytest.raises(BadRequest, match="no field '5'"):
        Request(text=Text(default="")).unpack({5: 1})


def test_a_wrong_field_is_named() -> None:
    with pytest.raises(BadRequest, match="field 'text': expected a string, got a number"):
        Request(text=Text()).unpack({"text": 5})


def test_a_field_over_its_limit_is_named() -> None:
    with pytest.raises(TooLarge, match="field 'image': an image of 2000 bytes is over the limit"):
        Request(image=Image(max_mb=0.001)).unpack({"image": bytes(2000)})


def test_null_is_no_missing_field() -> None:
    with pytest.raises(BadRequest, match="field 'text': expected a string, got null"):
        Request(text=Text(default="")).unpack({"text": None})


@pytest.mark.parametrize("payload", [None, [], "text", 5, b"bytes"])
def test_a_payload_that_is_no_object_is_refused(payload: Any) -> None:
    with pytest.raises(BadRequest, match="expected an object with image, text"):
        Request(image=Image(), text=Text()).unpack(payload)


def test_a_subclass_may_unpack_itself() -> None:
    class Halves(Request):
        def unpack(self, payload: Any) -> Any:
            first, _, second = super().unpack(payload)["text"].partition(" ")
            return {"text": first, "rest": second}

    assert Halves(text=Text()).unpack({"text": "a b"}) == {"text": "a", "rest": "b"}


def test_a_field_is_always_the_same_input() -> None:
    request = Request(text=Text())
    assert request.text is request.text
    assert request.text.request is request
    assert repr(request.text) == "request.text"


def test_a_request_without_fields_says_how_to_declare_one() -> None:
    with pytest.raises(GraphError, match=r"the request has no field 'image' \(declared: none: write Request\(image="):
        _ = Request().image


def test_a_field_that_is_no_field_is_refused() -> None:
    with pytest.raises(GraphError, match=r"request field 'image': expected Image\(\), .* got <class"):
        Request(image=Image)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("name", ["request", "fields", "consumers", "unpack", "_inputs"])
def test_a_field_named_like_an_attribute_is_refused(name: str) -> None:
    with pytest.raises(GraphError, match=f"request field '{name}': a Request has an attribute of that name"):
        Request(**{name: Text()})


@pytest.mark.parametrize("name", ["image", "input", "name", "_private", "max-length"])
def test_a_field_may_have_any_other_name(name: str) -> None:
    request = Request(**{name: Text()})
    assert getattr(request, name) in [getattr(request, n) for n in request.fields]


def test_private_names_are_no_fields() -> None:
    with pytest.raises(AttributeError):
        _ = Request(text=Text())._ipython_display_
    assert copy.copy(Request(text=Text())).fields.keys() == {"text"}


def test_consumers_are_held_weakly() -> None:
    request = Request()
    op = Copy(request)
    assert list(request.consumers) == [op]
    del op
    gc.collect()
    assert not request.consumers


def test_a_request_shows_its_fields() -> None:
    assert (
        repr(Request(text=Text(), box=Tensor("FP32", [-1, 4]))) == "Request(text=Text(), box=Tensor('FP32', [-1, 4]))"
    )


def test_every_refusal_is_an_outcome_of_the_client() -> None:
    for payload in ({}, {"text": 5}, {"text": "a", "b": 1}, 5):
        with pytest.raises(RequestError) as caught:
            Request(text=Text()).unpack(payload)
        assert caught.value.code == "bad_request"


def test_a_response_needs_outputs_that_it_can_tell_apart() -> None:
    a = Copy(Request(), name="a")
    with pytest.raises(GraphError, match="name the outputs where there are several"):
        Response(a, other=a)
