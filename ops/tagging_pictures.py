"""Pictures of products, drawn: the same picture for the same seed, nothing on disk.

A silhouette of varied proportions, its cloth plain or with a pattern, turned, lit from somewhere, with folds, a
shadow and noise, in front of a plain or a cluttered ground. What `tagging_train.py` learns from, and what the
tests and the benchmark send.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ops.tagging_silhouettes import SILHOUETTES

Array = np.ndarray[Any, Any]
Rng = np.random.Generator

CATEGORIES = tuple(SILHOUETTES)
PATTERNS = ("plain", "striped", "checked", "dotted")

_NEUTRAL = 0.35
"""Share of white, gray and black among the colours."""
_APART = 110.0
"""Least distance in RGB between the two colours of a pattern, and half of it between product and ground."""


@dataclass(frozen=True)
class Picture:
    image: Image.Image
    """RGB."""
    category: str
    """One of CATEGORIES."""
    pattern: str
    """One of PATTERNS."""

    def jpeg(self, quality: int = 88) -> bytes:
        out = io.BytesIO()
        self.image.save(out, "JPEG", quality=quality)
        return out.getvalue()


def picture(seed: int, side: int = 256) -> Picture:
    """Draw the product of `seed`, which looks the same at any size.

    :param side: pixels of the longer side; the other is up to a quarter shorter.
    """
    rng = np.random.default_rng(seed)
    category = CATEGORIES[rng.integers(len(CATEGORIES))]
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    short = rng.uniform(0.75, 1)
    width, height = (side, round(side * short)) if rng.random() < 0.5 else (round(side * short), side)
    back = _colour(rng)
    base = _colour(rng, back, _APART / 2)
    second = _colour(rng, base, _APART)
    trim = base * rng.uniform(0.45, 0.8) if rng.random() < 0.5 else _colour(rng, back, _APART / 2)
    ground = _ground(rng, width, height, back)
    place = _Place(rng, width, height)
    parts = [(place.pixels(points), is_trim) for points, is_trim in SILHOUETTES[category](rng)]
    cloth = _mask([points for points, is_trim in parts if not is_trim], width, height)
    edge = _mask([points for points, is_trim in parts if is_trim], width, height)
    second_share = _pattern(rng, pattern, place, width, height)[:, :, None]
    product = base * (1 - second_share) + second * second_share
    light = _light(rng, place, width, height)[:, :, None]
    shadow = 1 - rng.uniform(0, 0.5) * _shadow(rng, np.maximum(cloth, edge), side)[:, :, None]
    pixels = ground * shadow
    pixels += cloth[:, :, None] * (product * light - pixels)
    pixels += edge[:, :, None] * (trim * light - pixels)
    pixels *= rng.uniform(0.85, 1.1) * rng.uniform(0.95, 1.05, 3)  # exposure and white balance
    pixels += rng.normal(0, rng.uniform(0, 9), (height, width, 1))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return Picture(image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.004) * side)), category, pattern)


class _Place:
    """Where the product lies in the picture: turned, perhaps mirrored, of some size."""

    def __init__(self, rng: Rng, width: int, height: int) -> None:
        self.scale = min(width, height) * rng.uniform(0.6, 1.0)
        angle = np.radians(rng.normal(0, 9))
        self.turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.mirror = rng.random() < 0.5
        spare = np.maximum(np.array([width, height]) - self.scale, 0)
        self.centre = np.array([width, height]) / 2 + rng.uniform(-0.4, 0.4, 2) * spare

    def pixels(self, points: Array) -> Array:
        """From the unit square to pixels."""
        centred = points - 0.5
        if self.mirror:
            centred = centred * [-1, 1]
        placed: Array = centred @ self.turn.T * self.scale + self.centre
        return placed

    def units(self, width: int, height: int) -> tuple[Array, Array]:
        """x and y of every pixel in the unit square, [height, width] each."""
        y, x = np.mgrid[:height, :width]
        x, y = (x - self.centre[0]) / self.scale, (y - self.centre[1]) / self.scale
        return self.turn[0, 0] * x + self.turn[1, 0] * y + 0.5, self.turn[0, 1] * x + self.turn[1, 1] * y + 0.5


def _mask(polygons: list[Array], width: int, height: int) -> Array:
    """How much of each pixel is inside of one of them: float [height, width], 0 to 1."""
    mask = Image.new("L", (2 * width, 2 * height))
    draw = ImageDraw.Draw(mask)
    for points in polygons:
        draw.polygon([(float(x), float(y)) for x, y in 2 * points], fill=255)
    return np.asarray(mask.reduce(2), dtype=np.float64) / 255


def _pattern(rng: Rng, pattern: str, place: _Place, width: int, height: int) -> Array:
    """How much of each pixel has the second colour: float [height, width], 0 to 1."""
    x, y = place.units(width, height)
    angle = rng.choice([0, np.pi / 2, np.pi / 4, -np.pi / 4]) + rng.normal(0, 0.08)
    count = rng.uniform(5, 11)
    u = (x * np.cos(angle) + y * np.sin(angle)) * count
    v = (y * np.cos(angle) - x * np.sin(angle)) * count
    wide = rng.uniform(0.3, 0.6)
    share: Array = np.zeros((height, width))
    if pattern == "striped":
        share = u % 1 < wide
    elif pattern == "checked":
        share = ((u % 1 < wide) * 0.5 + (v % 1 < wide) * 0.5) ** rng.choice([0.5, 1, 2])
    elif pattern == "dotted":
        u = u + 0.5 * (np.floor(v) % 2) * rng.integers(2)
        share = (u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < rng.uniform(0.24, 0.36) ** 2
    return share.astype(float)


def _light(rng: Rng, place: _Place, width: int, height: int) -> Array:
    """Brightness of every pixel of the product, about 1: a side in the shade, and folds."""
    x, y = place.units(width, height)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0, 0.35) * (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5))
    folds = np.sin(rng.uniform(10, 30) * (x + rng.uniform(-0.5, 0.5) * y**2) + rng.uniform(0, 6))
    folded: Array = light * (1 + rng.uniform(0, 0.07) * folds)
    return folded


def _shadow(rng: Rng, mask: Array, side: int) -> Array:
    shift = (rng.uniform(0, 0.04, 2) * side).astype(int)
    moved = np.zeros_like(mask)
    moved[shift[0] :, shift[1] :] = mask[: mask.shape[0] - shift[0], : mask.shape[1] - shift[1]]
    blurred = Image.fromarray((moved * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(0.03 * side))
    return np.asarray(blurred, dtype=np.float64) / 255


def _ground(rng: Rng, width: int, height: int, colour: Array) -> Array:
    """What is behind the product: uneven light, and on half of the pictures other things. Float [height, width, 3]."""
    corners = (colour + rng.normal(0, 14, (2, 2, 3))).clip(0, 255).astype(np.uint8)
    ground = Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        draw = ImageDraw.Draw(ground)
        for _ in range(rng.integers(1, 7)):
            fill = tuple(int(value) for value in colour * 0.5 + _colour(rng) * 0.5)
            centre, size = rng.uniform(0, 1, 2), rng.uniform(0.04, 0.3, 2)
            (left, top), (right, bottom) = centre - size / 2, centre + size / 2
            box = (left * width, top * height, right * width, bottom * height)
            (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(box, fill=fill)
        ground = ground.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.012) * max(width, height)))
    return np.asarray(ground, dtype=np.float64)


def _colour(rng: Rng, other: Array | None = None, apart: float = 0) -> Array:
    """RGB, float [3], 0 to 255; not within `apart` of `other`."""
    while True:
        if rng.random() < _NEUTRAL:
            colour = np.full(3, rng.choice([15, 60, 128, 200, 245])) + rng.normal(0, 8, 3)
        else:
            hue, saturation, value = rng.uniform(0, 6), rng.uniform(0.35, 1), rng.uniform(0.3, 1)
            wheel = (np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1).clip(0, 1)
            colour = 255 * value * (1 - saturation + saturation * wheel)
        if other is None or np.linalg.norm(colour - other) >= apart:
            return colour.clip(0, 255)
