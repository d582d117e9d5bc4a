"""Arrays to encoded images: simplejpeg for JPEG, Pillow for PNG and WebP."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import simplejpeg
from PIL import Image

from asyncline.graph.op import Op
from asyncline.graph.request import Input
from asyncline.images.decode import Pixels
from asyncline.images.pixels import check_pixels

Format = Literal["JPEG", "PNG", "WEBP"]
Order = Literal["RGB", "BGR"]
Subsampling = Literal["444", "422", "420", "440", "411"]

_MOST_PIXELS_A_SIDE = {"JPEG": 65_500, "PNG": 2**31 - 1, "WEBP": 16_383}
_ORDERS = ("RGB", "BGR")
_SUBSAMPLINGS = ("444", "422", "420", "440", "411")


def encode(
    image: Pixels, format: Format = "JPEG", *, quality: int = 85, subsampling: Subsampling = "420",
    colour: Order = "RGB",
) -> bytes:  # fmt: skip
    """Encode an image.

    :param image: uint8, `[height, width, 3]`, or `[height, width]` for gray.
    :param quality: 1 to 100, of JPEG and WebP.
    :param subsampling: of the colours of a JPEG; `420` keeps a quarter of them, `444` all.
    :param colour: order of the channels of `image`.
    :raises ValueError: `image` is of another form or too large for the format, or a setting makes no sense.
    """
    _check(format, quality, subsampling, colour)
    check_pixels(image)
    height, width = image.shape[:2]
    most = _MOST_PIXELS_A_SIDE[format]
    if max(width, height) > most:
        raise ValueError(f"an image of {width} x {height} pixels: {format} has at most {most} a side")
    if format == "JPEG":
        return _encode_jpeg(np.ascontiguousarray(image), quality, subsampling, colour)
    if image.ndim == 3 and colour == "BGR":
        image = image[:, :, ::-1]
    out = io.BytesIO()
    options = {"quality": quality} if format == "WEBP" else {}
    Image.fromarray(np.ascontiguousarray(image)).save(out, format, **options)
    return out.getvalue()


def _encode_jpeg(image: Pixels, quality: int, subsampling: str, colour: str) -> bytes:
    if image.ndim == 2:
        image, colour, subsampling = image[:, :, None], "GRAY", "Gray"
    data: bytes = simplejpeg.encode_jpeg(image, quality, colour, subsampling)
    return data


def _check(format: str, quality: int, subsampling: str, colour: str) -> None:
    for name, value, known in (
        ("format", format, tuple(_MOST_PIXELS_A_SIDE)),
        ("subsampling", subsampling, _SUBSAMPLINGS),
        ("colour", colour, _ORDERS),
    ):
        if value not in known:
            raise ValueError(f"{name}={value!r}: use one of {', '.join(known)}")
    if not isinstance(quality, int) or not 1 <= quality <= 100:
        raise ValueError(f"quality={quality!r}: expected 1 to 100")


class Encode(Op):
    """Encodes an image; see `encode`.

    Runs in threads, as the encoders release the GIL (JPEGs of 1 MP: 1,114 a second in two, 571 in one, 953 in two
    processes).
    """

    cpu = "thread"

    def __init__(
        self, *inputs: Input, format: Format = "JPEG", quality: int = 85, subsampling: Subsampling = "420",
        colour: Order = "RGB", name: str | None = None, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(*inputs, name=name, **settings)
        _check(format, quality, subsampling, colour)
        self.format: Format = format
        self.quality = quality
        self.subsampling: Subsampling = subsampling
        self.colour: Order = colour

    def preprocess(self, image: Pixels) -> bytes:
        return encode(image, self.format, quality=self.quality, subsampling=self.subsampling, colour=self.colour)
