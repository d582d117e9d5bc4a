"""Feeds laid together and results taken apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncline.paddle.feeds import join, signature, split


def test_feeds_of_one_signature_are_laid_one_after_the_other() -> None:
    feeds = [{"x": np.ones((1, 3)), "y": np.zeros(1)}, {"x": np.zeros((2, 3)), "y": np.ones(2)}]
    assert signature(feeds[0]) == signature(feeds[1]) is not None
    joined, rows = join(feeds)
    assert rows == [1, 2]
    assert (joined["x"].shape, joined["y"].tolist()) == ((3, 3), [0, 1, 1])


@pytest.mark.parametrize(
    "other",
    [
        {"x": np.ones((1, 4))},
        {"x": np.ones((1, 3), np.float32)},
        {"z": np.ones((1, 3))},
        {"x": np.ones((1, 3)), "y": np.ones(1)},
    ],
)
def test_feeds_that_differ_have_other_signatures(other: dict[str, Any]) -> None:
    assert signature(other) != signature({"x": np.ones((1, 3))})


@pytest.mark.parametrize(
    "feed",
    [
        {},
        "text",
        {"x": "text"},
        {"x": np.ones(2), "x.lod": np.array([0, 2])},
        {"x": np.ones(2), "y": np.ones(3)},
        {"x": np.float64(1)},
        {"x": np.array(["a"], object)},
        {"x": np.ones((0, 3))},
    ],
)
def test_other_feeds_run_alone(feed: Any) -> None:
    assert signature(feed) is None


def test_every_request_gets_its_rows_of_every_value() -> None:
    first, second = split({"y": np.arange(3), "names": ["a", "b", "c"]}, [1, 2]) or ()
    assert (first["y"].tolist(), first["names"]) == ([0], ["a"])
    assert (second["y"].tolist(), second["names"]) == ([1, 2], ["b", "c"])


def test_every_request_gets_its_sequences_where_there_are_offsets() -> None:
    result = {"y": np.arange(6), "y.lod": np.array([0, 1, 3, 6])}
    first, second = split(result, [1, 2]) or ()
    assert (first["y"].tolist(), first["y.lod"].tolist()) == ([0], [0, 1])
    assert (second["y"].tolist(), second["y.lod"].tolist()) == ([1, 2, 3, 4, 5], [0, 2, 5])


@pytest.mark.parametrize("value", [np.ones(4), ["a"], 5, np.float64(1), "abc"])
def test_values_with_other_rows_are_nobodys(value: Any) -> None:
    assert split({"y": np.ones(3), "z": value}, [1, 2]) is None
