"""Encoded images to arrays: simplejpeg for JPEG, Pillow for the rest, once `header.py` has not refused them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import simplejpeg
from PIL import Image

from asyncline.engine.memory import empty
from asyncline.errors import BadImage
from asyncline.graph.op import Op
from asyncline.graph.request import Input
from asyncline.images.header import JPEG, LIMITS, ImageLimits, open_image, orientation
from asyncline.images.pixels import check_size

Colour = Literal["RGB", "BGR", "GRAY"]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Size = tuple[int, int]
"""Width and height in pixels."""
Room = Callable[[tuple[int, ...]], Pixels]
"""Gives the array of a shape into which an image is decoded."""

_COLOURS = get_args(Colour)
_SHRINKS = (8, 4, 2)
"""libjpeg-turbo also has 3/8, 5/8, 6/8 and 7/8, but not in SIMD: 7/8 takes twice as long as all of the image."""
_UPRIGHT, _SIDEWAYS = 1, (5, 6, 7, 8)
_MAY_HAVE_KEY = frozenset({"1", "L", "RGB", "P"})
"""Modes in which one colour, or some of a palette, may be transparent."""
_HAS_ALPHA = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})


def decode(
    data: bytes, colour: Colour = "RGB", limits: ImageLimits = LIMITS, *,
    at_least: Size | None = None, out: Pixels | None = None,
) -> Pixels:  # fmt: skip
    """Decode an image, upright as its EXIF orientation says, the first frame of an animation.

    :param colour: order of the channels; `GRAY` has none.
    :param limits: hold for the image as it is stored, whatever is asked for.
    :param at_least: width and height that will do. A JPEG then comes at 1/2, 1/4 or 1/8, the least of them
        at which it still is as wide and as high (as it lies upright; fractions are rounded up), in up to half the
        time. Other formats, and a JPEG that has not twice the size, come at full size: nothing is ever enlarged.
    :param out: the result is written here, and this is returned: uint8, writable, C-contiguous, of the result's
        shape. A JPEG without an EXIF turn is decoded into it; whatever else is copied into it once. What it
        holds after an error is undefined.
    :returns: uint8, `[height, width, 3]`, or `[height, width]` for `GRAY`; C-contiguous and writable.
    :raises BadImage: no image, of another format, damaged, or over `limits`.
    :raises ValueError: `data` are no bytes, `out` does not fit, or another argument makes no sense.
    """
    _check(colour, at_least)
    if out is not None:
        _check_out(out)
    return _decode(
        data, colour, limits, at_least, _on_white,
        lambda shape: np.empty(shape, np.uint8) if out is None else _fitting(out, shape),
    )  # fmt: skip


def _decode(
    data: bytes, colour: Colour, limits: ImageLimits, at_least: Size | None, flatten: Any, room: Room
) -> Pixels:  # fmt: skip
    _check_data(data)
    image = open_image(data, limits)
    if data.startswith(JPEG) and image.mode in ("RGB", "L"):
        return _decode_jpeg(data, image, colour, at_least, room)
    if data.startswith(JPEG) and (shrink := _shrink(image.size, at_least, orientation(image))) > 1:
        image.draft(None, (max(1, image.width // shrink), max(1, image.height // shrink)))
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise nearly anything, too
        raise BadImage(f"the image is damaged: {error}") from None
    # Upright last: the EXIF of a PNG may stand behind its pixels.
    upright = _turn(_to_colour(_to_rgb(image, flatten), colour), orientation(image))
    pixels = room(upright.shape)
    np.copyto(pixels, upright)
    return pixels


def _decode_jpeg(data: bytes, image: Image.Image, colour: Colour, at_least: Size | None, room: Room) -> Pixels:
    turn = orientation(image)
    shrink = _shrink(image.size, at_least, turn)
    height, width = -(-image.height // shrink), -(-image.width // shrink)
    stored = (height, width) if colour == "GRAY" else (height, width, 3)
    pixels = room((width, height, *stored[2:]) if turn in _SIDEWAYS else stored)
    buffer = pixels if turn == _UPRIGHT else np.empty(stored, np.uint8)
    try:
        # The buffer also is a limit: this decoder has read the size by itself.
        decoded = simplejpeg.decode_jpeg(data, colour, min_height=height, min_width=width, buffer=buffer)
    except ValueError as error:
        raise BadImage(f"the JPEG is damaged: {error}") from None
    if decoded.shape[:2] != (height, width):
        raise BadImage("the JPEG is damaged: it has two sizes")
    if turn != _UPRIGHT:
        np.copyto(pixels, _turn(buffer, turn))
    return pixels


def _shrink(size: Size, at_least: Size | None, turn: int) -> int:
    """By how much an image of `size` may be shrunk: 8, 4, 2 or, not at all, 1."""
    if at_least is None:
        return 1
    least = at_least[::-1] if turn in _SIDEWAYS else at_least
    for shrink in _SHRINKS:
        if all(-(-side // shrink) >= enough for side, enough in zip(size, least, strict=True)):
            return shrink
    return 1


def _turn(pixels: Pixels, turn: int) -> Pixels:
    """A view of `pixels` as an EXIF orientation says."""
    if turn in _SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


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
        return rgb[:, :, ::-1]
    if colour == "GRAY":
        return np.asarray(Image.fromarray(rgb).convert("L"))
    return rgb


def _check(colour: Any, at_least: Any) -> None:
    if colour not in _COLOURS:
        raise ValueError(f"colour={colour!r}: use one of {', '.join(_COLOURS)}")
    if at_least is not None:
        try:
            width, height = at_least
        except (TypeError, ValueError):
            raise ValueError(f"at_least={at_least!r}: expected width and height") from None
        check_size(width, height)


def _check_data(data: Any) -> None:
    if isinstance(data, str):
        raise ValueError(
            "expected the bytes of an image, got a str: where clients may send a URL, "
            "a Fetch comes first: Decode(Fetch(request.image))"
        )
    if not isinstance(data, bytes | bytearray):
        raise ValueError(f"expected the bytes of an image, got {type(data).__name__}")


def _check_out(out: Any) -> None:
    expected = "out: expected a uint8 array, writable and C-contiguous"
    if not isinstance(out, np.ndarray):
        raise ValueError(f"{expected}; got {type(out).__name__}")
    if out.dtype != np.uint8:
        raise ValueError(f"{expected}; got {out.dtype.name}")
    if not out.flags.writeable:
        raise ValueError(f"{expected}; this one is read-only")
    if not out.flags.c_contiguous:
        raise ValueError(f"{expected}; this one is not contiguous")


def _fitting(out: Pixels, shape: tuple[int, ...]) -> Pixels:
    if out.shape != shape:
        raise ValueError(f"out: the image has the shape {list(shape)}, got {list(out.shape)}")
    return out


class Decode(Op):
    """Decodes an encoded image; see `decode` for what it takes and gives.

    Runs in threads: the decoders release the GIL, and nothing has to be copied. Two threads decoded 1.9 times as many
    images as one, of each format (JPEGs of 1 MP: 920 a second, one thread 476, two processes 857). In the CPU pool it
    decodes into the memory that the server reads.
    """

    cpu = "thread"

    def __init__(
        self, *inputs: Input, colour: Colour = "RGB", limits: ImageLimits = LIMITS, at_least: Size | None = None,
        name: str | None = None, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(*inputs, name=name, **settings)
        _check(colour, at_least)
        self.colour: Colour = colour
        self.limits = limits
        self.at_least = at_least

    def preprocess(self, data: bytes) -> Any:
        return _decode(data, self.colour, self.limits, self.at_least, self.flatten, empty)

    def flatten(self, image: Image.Image) -> Pixels:
        """What stands behind a transparent image: white. Override it for another ground.

        :param image: of a mode with alpha.
        :returns: RGB, uint8, `[height, width, 3]`.
        """
        return _on_white(image)
