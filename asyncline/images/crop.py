"""A part of an image."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncline.engine.memory import empty
from asyncline.errors import BadImage
from asyncline.graph.op import Op
from asyncline.graph.request import Input
from asyncline.images.decode import Pixels
from asyncline.images.pixels import check_pixels, check_size

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are just outside."""


def crop(image: Pixels, box: Box) -> Pixels:
    """Cut a box out of an image.

    :param image: uint8, `[height, width, 3]` or `[height, width]`.
    :returns: a copy: a view would keep the whole image.
    :raises BadImage: the box reaches outside of the image.
    :raises ValueError: `image` is of another form, or `box` is none.
    """
    return _part(image, box).copy()


def crop_centre(image: Pixels, width: int, height: int) -> Pixels:
    """Cut the middle out of an image.

    :raises BadImage: the image is smaller.
    :raises ValueError: `image` is of another form, or the size makes no sense.
    """
    return _centre(image, width, height).copy()


def _part(image: Pixels, box: Box) -> Pixels:
    left, top, right, bottom = _checked(box)
    check_pixels(image)
    height, width = image.shape[:2]
    if right > width or bottom > height:
        raise BadImage(f"an image of {width} x {height} pixels has no box {left}, {top}, {right}, {bottom}")
    return image[top:bottom, left:right]


def _centre(image: Pixels, width: int, height: int) -> Pixels:
    check_size(width, height)
    check_pixels(image)
    have_height, have_width = image.shape[:2]
    if width > have_width or height > have_height:
        raise BadImage(f"an image of {have_width} x {have_height} pixels is smaller than {width} x {height}")
    left, top = (have_width - width) // 2, (have_height - height) // 2
    return _part(image, (left, top, left + width, top + height))


def _checked(box: Any) -> Box:
    try:
        left, top, right, bottom = box
    except (TypeError, ValueError):
        raise ValueError(f"box={box!r}: expected left, top, right, bottom") from None
    if not all(isinstance(edge, int | np.integer) for edge in (left, top, right, bottom)):
        raise ValueError(f"box={box!r}: expected whole pixels")
    if not (0 <= left < right and 0 <= top < bottom):
        raise ValueError(f"box={box!r}: expected 0 <= left < right and 0 <= top < bottom")
    return left, top, right, bottom


class Crop(Op):
    """Cuts a part out of an image: `box`, or the middle of `width` x `height`.

    Runs in threads: a part of 512 x 512 takes 20 µs, as much as the way to a thread and back, but one of 32 MP would
    hold up the loop for 10 ms and more. `cpu="inline"` is for parts that are known to be small.
    """

    cpu = "thread"

    def __init__(
        self, *inputs: Input, box: Box | None = None, width: int | None = None, height: int | None = None,
        name: str | None = None, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(*inputs, name=name, **settings)
        if (box is None) == (width is None and height is None):
            raise ValueError(f"op {self.name!r}: give either box=(left, top, right, bottom), or width and height")
        if box is None:
            check_size(width, height)
        self.box = None if box is None else _checked(box)
        self.width = width or 0
        self.height = height or 0

    def preprocess(self, image: Pixels) -> Pixels:
        part = _centre(image, self.width, self.height) if self.box is None else _part(image, self.box)
        kept = empty(part.shape)
        np.copyto(kept, part)
        return kept
