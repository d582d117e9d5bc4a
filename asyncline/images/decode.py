"""Encoded images to arrays: simplejpeg for JPEG, Pillow for the rest.

What a header tells is checked before anything is decoded: format, sides, pixels, and the number of scans
of a progressive JPEG, each of which costs a pass over the whole image.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from asyncline.errors import BadImage
from asyncline.graph.op import Op
from asyncline.graph.request import Input

Colour = Literal["RGB", "BGR", "GRAY"]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_JPEG = b"\xff\xd8\xff"
_START_OF_SCAN = b"\xff\xda"
# Those with a segment. In the data of a scan 0xFF is followed by 0, a restart marker, or itself as padding.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
_MOST_MARKERS = 4096
_ORIENTATION = 0x0112
_MAY_HAVE_KEY = frozenset({"1", "L", "RGB", "P"})
"""Modes in which one colour, or some of a palette, may be transparent."""
_HAS_ALPHA = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})
_filters = threading.Lock()


@dataclass(frozen=True)
class ImageLimits:
    """What an image may be before it is refused."""

    pixels: int = 33_500_000
    side: int = 16_384
    scans: int = 64
    """Scans of a progressive JPEG; an ordinary one has about ten."""

    def check(self, width: int, height: int) -> None:
        """:raises BadImage: the image has too many pixels, or none."""
        if width < 1 or height < 1:
            raise BadImage("the image has no pixels")
        if max(width, height) > self.side:
            raise BadImage(f"an image of {width} x {height} pixels is over the limit of {self.side} a side")
        if width * height > self.pixels:
            raise BadImage(f"an image of {width} x {height} pixels is over the limit of {self.pixels}")


LIMITS = ImageLimits()


def decode(data: bytes, colour: Colour = "RGB", limits: ImageLimits = LIMITS) -> Pixels:
    """Decode an image, upright as its EXIF orientation says, the first frame of an animation.

    :param colour: order of the channels; `GRAY` has none.
    :returns: uint8, `[height, width, 3]`, or `[height, width]` for `GRAY`; C-contiguous.
    :raises BadImage: no image, of another format, damaged, or over `limits`.
    """
    return _decode(data, colour, limits, _on_white)


def _decode(data: bytes, colour: Colour, limits: ImageLimits, flatten: Any) -> Pixels:
    image = _open(data)
    limits.check(*image.size)
    if data.startswith(_JPEG):
        if _too_many_scans(data, limits.scans):
            raise BadImage(f"a JPEG of more than {limits.scans} scans is refused")
        if image.mode in ("RGB", "L"):
            return _turn(_decode_jpeg(data, colour), _orientation(image))
    try:
        # Some metadata of a TIFF is read only here.
        with _no_warnings() if image.format == "TIFF" else nullcontext():
            image.load()
    except Exception as error:  # Pillow's decoders raise nearly anything, too
        raise BadImage(f"the image is damaged: {error}") from None
    # Upright last: a damaged EXIF must not spoil the image.
    return _turn(_to_colour(_to_rgb(image, flatten), colour), _orientation(image))


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Silence Pillow about sizes, which `limits` judges, and odd metadata.

    The filters belong to the whole process, hence the lock: threads that leave in another order than they
    came in would leave them changed. What runs inside is Python, which has the GIL anyway; only TIFFs are
    decoded one at a time for it.
    """
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _orientation(image: Image.Image) -> int:
    """EXIF's, 1 to 8; upright where the EXIF is damaged."""
    try:
        with _no_warnings():
            return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def _too_many_scans(data: bytes, most: int) -> bool:
    if data.count(_START_OF_SCAN) <= most:
        return False
    # Those bytes also occur by chance in metadata, and behind the image, where phones put a film: walk the markers.
    scans, end = 0, 2
    for _ in range(_MOST_MARKERS):
        found = _MARKER.search(data, end)
        if found is None or found[1] == b"\xd9":
            return False
        scans += found[1] == _START_OF_SCAN[1:]
        if scans > most:
            return True
        end = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return True


def _open(data: bytes) -> Image.Image:
    try:
        with _no_warnings():
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImage(f"these bytes are no image (known: {', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise BadImage("the image has too many pixels") from None
    except Exception as error:  # a damaged header makes Pillow raise nearly anything
        raise BadImage(f"the image's header is damaged: {type(error).__name__}") from None


def _decode_jpeg(data: bytes, colour: Colour) -> Pixels:
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colour)
    except ValueError as error:
        raise BadImage(f"the JPEG is damaged: {error}") from None
    return pixels[:, :, 0] if colour == "GRAY" else pixels


def _turn(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation, 1 to 8 (CIPA DC-008, tag 0x0112)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _to_rgb(image: Image.Image, flatten: Any) -> Pixels:
    if image.mode.startswith("I"):
        # 16 bits a pixel: the upper eight. Pillow's own conversion clips instead.
        gray = np.asarray(image).astype(np.int64).clip(0, 0xFFFF) >> 8
        return np.repeat(gray.astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode in _MAY_HAVE_KEY and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in _HAS_ALPHA:
        flat: Pixels = flatten(image)
        return flat
    return np.asarray(image.convert("RGB"))


def _on_white(image: Image.Image) -> Pixels:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))


def _to_colour(rgb: Pixels, colour: Colour) -> Pixels:
    if colour == "BGR":
        return np.ascontiguousarray(rgb[:, :, ::-1])
    if colour == "GRAY":
        return np.asarray(Image.fromarray(rgb).convert("L"))
    return np.ascontiguousarray(rgb)


class Decode(Op):
    """Decodes an encoded image; see `decode` for what it takes and gives.

    Runs in threads: the decoders release the GIL, and nothing has to be copied.
    """

    cpu = "thread"

    def __init__(
        self, *inputs: Input, colour: Colour = "RGB", limits: ImageLimits = LIMITS, name: str | None = None,
        **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(*inputs, name=name, **settings)
        self.colour: Colour = colour
        self.limits = limits

    def preprocess(self, data: bytes) -> Any:
        return _decode(data, self.colour, self.limits, self.flatten)

    def flatten(self, image: Image.Image) -> Pixels:
        """What stands behind a transparent image: white. Override it for another ground.

        :param image: of a mode with alpha.
        :returns: RGB, uint8, `[height, width, 3]`.
        """
        return _on_white(image)
