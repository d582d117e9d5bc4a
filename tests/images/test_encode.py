"""Arrays to encoded images, and back."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asyncline import Engine, Graph, Request
from asyncline.images import Encode, decode, encode

RED: Any = np.zeros((40, 60, 3), np.uint8)
RED[..., 0] = 200
rows, columns = np.indices((40, 60))
PHOTO: Any = np.stack([rows * 5, columns * 4, (rows + columns) * 2], axis=2).astype(np.uint8)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_what_is_encoded_decodes_to_nearly_the_same(format: Any) -> None:
    data = encode(PHOTO, format, quality=95)
    assert Image.open(io.BytesIO(data)).format == format
    difference = np.abs(decode(data).astype(int) - PHOTO)
    assert difference.mean() < (0.001 if format == "PNG" else 4)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_gray_images_are_encoded(format: Any) -> None:
    data = encode(PHOTO[..., 0], format, quality=95)
    assert np.abs(decode(data, "GRAY").astype(int) - PHOTO[..., 0]).mean() < 3
    assert Image.open(io.BytesIO(data)).mode == ("RGB" if format == "WEBP" else "L")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_the_order_of_the_channels_is_as_told(format: Any) -> None:
    blue, red = decode(encode(RED, format, colour="BGR")), decode(encode(RED, format))
    assert blue[20, 30, 2] > 190 and blue[20, 30, 0] < 10
    assert red[20, 30, 0] > 190 and red[20, 30, 2] < 10


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_less_quality_is_fewer_bytes(format: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3)).astype(np.uint8)
    assert len(encode(noise, format, quality=20)) < len(encode(noise, format, quality=90)) / 2


@pytest.mark.parametrize(("subsampling", "sampling"), [("444", (1, 1)), ("422", (2, 1)), ("420", (2, 2))])
def test_the_subsampling_of_a_jpeg_is_as_told(subsampling: Any, sampling: tuple[int, int]) -> None:
    image: Any = Image.open(io.BytesIO(encode(PHOTO, subsampling=subsampling)))
    assert image.layer[0][1:3] == sampling


def test_views_are_encoded_as_they_look() -> None:
    view = PHOTO[::-1, ::2]
    assert np.array_equal(decode(encode(view, "PNG")), view)
    assert encode(view) == encode(view.copy())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "GIF"}, "format='GIF': use one of JPEG, PNG, WEBP"),
        ({"quality": 0}, "quality=0: expected 1 to 100"),
        ({"quality": 101}, "quality=101"),
        ({"subsampling": "410"}, "subsampling='410': use one of 444"),
        ({"colour": "RGBA"}, "colour='RGBA': use one of RGB, BGR"),
    ],
)
def test_an_error_names_what_is_wrong(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(RED, **arguments)
    with pytest.raises(ValueError, match=message):
        Encode(Request(), **arguments)


@pytest.mark.parametrize(("format", "side"), [("JPEG", 65_501), ("WEBP", 16_384)])
def test_a_side_that_the_format_cannot_have_is_told(format: Any, side: int) -> None:
    with pytest.raises(ValueError, match=f"{format} has at most"):
        encode(np.zeros((1, side), np.uint8), format)
    assert encode(np.zeros((1, side - 1), np.uint8), format)


def test_what_is_no_image_is_told() -> None:
    with pytest.raises(ValueError, match="got float64"):
        encode(np.zeros((2, 2)))  # type: ignore[arg-type]


async def test_the_op_encodes() -> None:
    async with Engine(Graph("jpeg", Encode(Request(), quality=90, colour="BGR"))) as engine:
        assert await engine.submit(RED) == encode(RED, quality=90, colour="BGR")
