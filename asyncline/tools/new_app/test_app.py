"""Runs the graph in process: no socket, no server."""

import asyncio

import pytest
from app import graph

from asyncline import BadRequest, Engine


def run(payload: dict[str, object]) -> object:
    async def submit() -> object:
        async with Engine(graph) as engine:
            return await engine.submit(payload, timeout=5)

    return asyncio.run(submit())


def test_every_word_gets_its_score_in_order() -> None:
    assert run({"text": "ab c"}) == [{"word": "ab", "score": 3}, {"word": "c", "score": 3}]


def test_an_empty_text_has_no_words() -> None:
    assert run({"text": ""}) == []


def test_a_missing_field_is_named() -> None:
    with pytest.raises(BadRequest, match="field 'text' is missing"):
        run({})
