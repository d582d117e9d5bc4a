"""Parts of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncline import BadImage, Engine, Graph, Request
from asyncline.images import Crop, crop, crop_centre

IMAGE: Any = np.arange(6 * 10 * 3, dtype=np.uint8).reshape(6, 10, 3)


def test_a_box_is_cut_out() -> None:
    assert np.array_equal(crop(IMAGE, (2, 1, 5, 6)), IMAGE[1:6, 2:5])
    assert np.array_equal(crop(IMAGE, (0, 0, 10, 6)), IMAGE)
    assert np.array_equal(crop(IMAGE[..., 0], (9, 5, 10, 6)), IMAGE[5:, 9:, 0])


def test_the_result_does_not_keep_the_image() -> None:
    result = crop(IMAGE, (2, 1, 5, 6))
    assert result.base is None and result.flags.c_contiguous


@pytest.mark.parametrize(("size", "rows", "columns"), [((4, 2), (2, 4), (3, 7)), ((3, 3), (1, 4), (3, 6))])
def test_the_centre_has_as_much_around_it_on_both_sides(size: Any, rows: Any, columns: Any) -> None:
    assert np.array_equal(crop_centre(IMAGE, *size), IMAGE[slice(*rows), slice(*columns)])


@pytest.mark.parametrize("box", [(0, 0, 11, 6), (0, 0, 10, 7), (10, 0, 12, 6)])
def test_a_box_outside_of_the_image_is_the_images_fault(box: Any) -> None:
    with pytest.raises(BadImage, match="an image of 10 x 6 pixels has no box"):
        crop(IMAGE, box)


def test_an_image_smaller_than_the_centre_is_the_images_fault() -> None:
    with pytest.raises(BadImage, match="an image of 10 x 6 pixels is smaller than 10 x 7"):
        crop_centre(IMAGE, 10, 7)


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (5, 0, 5, 5), (0, 5, 5, 4), (0, 0, 5), 7, (0, 0, 2.5, 2), "abcd"])
def test_a_box_that_is_none_is_the_callers_fault(box: Any) -> None:
    with pytest.raises(ValueError, match="box="):
        crop(IMAGE, box)
    with pytest.raises(ValueError, match="box="):
        Crop(Request(), box=box)


async def test_the_op_takes_a_box_or_the_centre() -> None:
    request = Request()
    graph = Graph("parts", a=Crop(request, box=(1, 2, 3, 4), name="a"), b=Crop(request, width=2, height=4, name="b"))
    async with Engine(graph) as engine:
        parts = await engine.submit(IMAGE)
        assert (parts["a"].shape, parts["b"].shape) == ((2, 2, 3), (4, 2, 3))
        with pytest.raises(BadImage, match=r"^op '[ab]' preprocess: an image of 1 x 1"):
            await engine.submit(IMAGE[:1, :1])


@pytest.mark.parametrize("settings", [{}, {"box": (0, 0, 1, 1), "width": 3}, {"width": 3}, {"height": 3}])
def test_the_op_wants_one_of_both(settings: Any) -> None:
    with pytest.raises(ValueError, match=r"either box|width=None|height=None"):
        Crop(Request(), **settings)
