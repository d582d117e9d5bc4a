"""Images to another size: the right one, the right part, and antialiased."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncline import Engine, Graph, OpError, Request
from asyncline.images import Resize, resize


def ramp(height: int, width: int) -> Any:
    """Red grows to the right, green downwards."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)
    image[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    return image


@pytest.mark.parametrize(
    ("how", "shape"), [("exact", (50, 80, 3)), ("within", (40, 80, 3)), ("cover", (50, 80, 3))]
)  # fmt: skip
def test_the_size_is_what_was_asked_for(how: Any, shape: tuple[int, ...]) -> None:
    result = resize(ramp(100, 200), 80, 50, how)
    assert (result.shape, result.dtype) == (shape, np.uint8)
    assert result.flags.c_contiguous


def test_a_gray_image_stays_gray() -> None:
    assert resize(ramp(100, 200)[..., 0], 20, 10).shape == (10, 20)


def test_exact_keeps_all_of_the_image() -> None:
    result = resize(ramp(100, 200), 50, 50)
    assert result[0, 0, 0] < 5 and result[0, -1, 0] > 250 and result[-1, 0, 1] > 250


def test_within_enlarges_too() -> None:
    assert resize(ramp(10, 20), 100, 100, "within").shape == (50, 100, 3)


def test_cover_takes_the_middle() -> None:
    result = resize(ramp(100, 300), 100, 100, "cover")
    assert abs(int(result[50, 0, 0]) - 85) <= 2 and abs(int(result[50, -1, 0]) - 170) <= 2
    assert result[0, 0, 1] < 5 and result[-1, 0, 1] > 250


def test_shrinking_averages() -> None:
    board = np.indices((400, 400)).sum(0) % 2 * 255
    result = resize(board.astype(np.uint8), 40, 40)
    assert abs(int(result.min()) - 127) <= 2 and abs(int(result.max()) - 127) <= 2


def test_the_same_size_is_the_same_image() -> None:
    image = ramp(20, 30)
    for how in ("exact", "within", "cover"):
        assert np.array_equal(resize(image, 30, 20, how), image)


def test_a_view_is_taken_as_it_looks() -> None:
    image = ramp(40, 60)
    assert np.array_equal(resize(image[::-1, ::2], 10, 10), resize(image[::-1, ::2].copy(), 10, 10))


@settings(deadline=None)
@given(*(st.integers(1, 300) for _ in range(4)), st.sampled_from(["exact", "within", "cover"]))
def test_any_size_becomes_any_other(have_height: int, have_width: int, height: int, width: int, how: Any) -> None:
    result = resize(np.full((have_height, have_width, 3), 77, np.uint8), width, height, how)
    assert result.shape[0] <= height and result.shape[1] <= width and result.min() == result.max() == 77
    if how == "within":
        assert result.shape[0] == height or result.shape[1] == width
    else:
        assert result.shape == (height, width, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ramp(2, 2), 0, 5), "width=0: expected a whole number of pixels"),
        ((ramp(2, 2), 5, 2.5), "height=2.5: expected a whole number of pixels"),
        ((ramp(2, 2), 5, 5, "fill"), "how='fill': use one of exact, within, cover"),
        ((ramp(2, 2).astype(np.float32), 5, 5), r"a uint8 array .*; got float32"),
        ((np.zeros((2, 2, 4), np.uint8), 5, 5), r"; got \[2, 2, 4\]"),
        ((np.zeros((0, 2, 3), np.uint8), 5, 5), "without pixels"),
        (([[1, 2]], 5, 5), "; got list"),
    ],
)
def test_an_error_names_what_is_wrong(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resize(*arguments)


async def test_the_op_resizes_in_a_thread() -> None:
    op = Resize(Request(), width=8, height=4, how="within")
    assert op.settings.cpu == "thread"
    async with Engine(Graph("small", op)) as engine:
        assert (await engine.submit(ramp(100, 100))).shape == (4, 4, 3)
        with pytest.raises(OpError, match=r"op 'resize' preprocess: .* got str"):
            await engine.submit("no image")


def test_the_op_refuses_a_wrong_size_at_import() -> None:
    with pytest.raises(ValueError, match="width=0"):
        Resize(Request(), width=0, height=4)
