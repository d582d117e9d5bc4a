"""What the functions of images take."""

from __future__ import annotations

from typing import Any

import numpy as np


def check_pixels(image: Any) -> None:
    """:raises ValueError: `image` is no uint8 array `[height, width, 3]` or `[height, width]` with pixels."""
    expected = "expected an image: a uint8 array [height, width, 3] or [height, width]"
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{expected}; got {type(image).__name__}")
    if image.dtype != np.uint8:
        raise ValueError(f"{expected}; got {image.dtype.name}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"{expected}; got {list(image.shape)}")
    if not image.size:
        raise ValueError(f"{expected}; got one without pixels, {list(image.shape)}")


def check_size(width: Any, height: Any) -> None:
    """:raises ValueError: not both are whole numbers of pixels."""
    for name, value in (("width", width), ("height", height)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={value!r}: expected a whole number of pixels, 1 or more")
