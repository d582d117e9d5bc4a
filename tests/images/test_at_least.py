"""Decoding less than all: a JPEG at a half, a quarter or an eighth, never less than asked for."""

from __future__ import annotations

from math import ceil
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from asyncline import BadImage, Engine, Graph, Request
from asyncline.images import Decode, ImageLimits, decode
from asyncline.images.decode import Colour, Pixels
from tests.images.pictures import encode, gradient, opened, oriented

COLOURS: tuple[Colour, ...] = get_args(Colour)


def picture(width: int, height: int) -> Image.Image:
    return gradient().resize((width, height), Image.Resampling.BICUBIC)


def jpeg(width: int = 160, height: int = 80, mode: str = "RGB", **options: Any) -> bytes:
    return encode(picture(width, height).convert(mode), "JPEG", **options)


def drafted(data: bytes, colour: Colour, shrink: int) -> Pixels:
    """The same by Pillow."""
    image = opened(data)
    image.draft("", (image.width // shrink, image.height // shrink))
    pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    return pixels[:, :, ::-1] if colour == "BGR" else pixels


# -- how large


@pytest.mark.parametrize(
    ("at_least", "shape"),
    [
        ((160, 80), (80, 160, 3)),
        ((81, 1), (80, 160, 3)),
        ((1, 41), (80, 160, 3)),
        ((80, 40), (40, 80, 3)),
        ((41, 20), (40, 80, 3)),
        ((40, 20), (20, 40, 3)),
        ((1, 11), (20, 40, 3)),
        ((20, 10), (10, 20, 3)),
        ((1, 1), (10, 20, 3)),
        ((500, 1), (80, 160, 3)),
        ((500, 500), (80, 160, 3)),
    ],
)
def test_the_smallest_that_will_do_is_decoded(at_least: tuple[int, int], shape: tuple[int, ...]) -> None:
    assert decode(jpeg(), at_least=at_least).shape == shape


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_width_and_height_are_those_of_the_upright_image(orientation: int, mode: str) -> None:
    stored = (80, 160) if orientation > 4 else (160, 80)
    data = jpeg(*stored, mode, exif=oriented(orientation))
    assert decode(data, at_least=(80, 40)).shape == (40, 80, 3)
    assert decode(data, at_least=(80, 41)).shape == (80, 160, 3)


SIDES = st.integers(1, 200)


@settings(deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(COLOURS), st.sampled_from([1, 3, 6, 8]))
def test_no_side_is_less_than_asked_for_or_more_than_there_is(
    have_width: int, have_height: int, width: int, height: int, colour: Colour, orientation: int
) -> None:
    data = encode(Image.new("RGB", (have_width, have_height), (90,) * 3), "JPEG", exif=oriented(orientation))
    if orientation in (6, 8):
        have_width, have_height = have_height, have_width
    pixels = decode(data, colour, at_least=(width, height))
    shapes = [(ceil(have_height / shrink), ceil(have_width / shrink)) for shrink in (1, 2, 4, 8)]
    enough = [shape for shape in shapes if shape[0] >= height and shape[1] >= width]
    assert pixels.shape[:2] == (enough[-1] if enough else shapes[0])
    assert np.abs(pixels.astype(int) - 90).max() <= 2


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_other_formats_come_at_full_size(format: str) -> None:
    data = encode(picture(160, 80), format)
    np.testing.assert_array_equal(decode(data, at_least=(1, 1)), decode(data))


def test_a_jpeg_that_is_not_twice_as_large_is_decoded_as_ever() -> None:
    for width, height in ((5, 5), (160, 80)):
        data = jpeg(width, height)
        for at_least in (None, (width, height)):
            np.testing.assert_array_equal(decode(data, at_least=at_least), drafted(data, "RGB", 1))


# -- the pixels


@pytest.mark.parametrize("shrink", [2, 4, 8])
@pytest.mark.parametrize("colour", ["RGB", "BGR"])
@pytest.mark.parametrize("orientation", [1, 2, 6])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"mode": "L"}, {"mode": "CMYK"}])
def test_the_pixels_are_pillows(options: dict[str, Any], orientation: int, colour: Colour, shrink: int) -> None:
    data = jpeg(163, 85, exif=oriented(orientation), **options)
    least = (163 // shrink, 85 // shrink)
    pixels = decode(data, colour, at_least=least[::-1] if orientation == 6 else least)
    np.testing.assert_array_equal(pixels, drafted(data, colour, shrink))


def test_gray_is_shrunk_too() -> None:
    small = decode(jpeg(), "GRAY", at_least=(20, 10))
    assert small.shape == (10, 20)
    blocks = decode(jpeg(), "GRAY").reshape(10, 8, 20, 8).mean((1, 3))
    assert np.abs(small - blocks).max() < 3


# -- what stays


def test_limits_are_those_of_the_full_size() -> None:
    with pytest.raises(BadImage, match="160 x 80 pixels is over the limit of 100 a side"):
        decode(jpeg(), limits=ImageLimits(side=100), at_least=(10, 10))


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_truncated_jpeg_is_refused_at_any_size(mode: str) -> None:
    data = jpeg(mode=mode)
    with pytest.raises(BadImage, match="damaged"):
        decode(data[: len(data) // 2], at_least=(10, 10))


@pytest.mark.parametrize(
    ("at_least", "message"),
    [
        (100, "at_least=100: expected width and height"),
        ((1, 2, 3), "expected width and height"),
        ((0, 5), "width=0: expected a whole number of pixels"),
        ((5, 2.5), "height=2.5"),
    ],
)
def test_a_size_that_is_none_is_told(at_least: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(jpeg(), at_least=at_least)
    with pytest.raises(ValueError, match=message):
        Decode(Request(), at_least=at_least)


async def test_the_op_takes_it_too() -> None:
    async with Engine(Graph("small", Decode(Request(), at_least=(30, 20), colour="GRAY"))) as engine:
        assert (await engine.submit(jpeg())).shape == (20, 40)
