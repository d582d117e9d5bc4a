"""Silhouettes of products, drawn as polygons; each fills most of the unit square."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Rng = np.random.Generator
Parts = list[tuple[Array, bool]]
"""Polygons, float [n, 2] in the unit square with y downwards; True is trim, which has no pattern."""


def _arc(x: float, y: float, wide: float, high: float, start: float = 0, end: float = 360) -> Array:
    """Points of an ellipse around (x, y), from one angle to another in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, end, 40))
    return np.stack([x + wide * np.cos(angles), y + high * np.sin(angles)], axis=1)


def _ring(outer: Array, inner: Array) -> Array:
    return np.concatenate([outer, inner[::-1]])


def _mirrored(*right: tuple[float, float]) -> Array:
    """A polygon from its right half: (distance from the middle, y), top to bottom."""
    points = np.array(right)
    whole: Array = np.concatenate([points, points[::-1] * [-1, 1]]) + np.array([0.5, 0])
    return whole


def _bag(rng: Rng) -> Parts:
    top, wide, narrow = rng.uniform(0.3, 0.5), rng.uniform(0.3, 0.48), rng.uniform(0.75, 1.05)
    grip = wide * rng.uniform(0.35, 0.75)
    thick = rng.uniform(0.02, 0.05)
    high = top - rng.uniform(0.04, 0.15)
    handle = _ring(_arc(0.5, top, grip, high, 180, 360), _arc(0.5, top, grip - thick, high - thick, 180, 360))
    body = _mirrored((wide * narrow, top), (wide, rng.uniform(0.85, 0.97)))
    parts = [(handle, rng.random() < 0.6), (body, False)]
    if rng.random() < 0.4:
        parts.append((_mirrored((wide * narrow, top), (wide * narrow, top + rng.uniform(0.04, 0.1))), True))
    return parts


def _cup(rng: Rng) -> Parts:
    top, bottom = rng.uniform(0.1, 0.25), rng.uniform(0.8, 0.93)
    wide, narrow = rng.uniform(0.26, 0.34), rng.uniform(0.7, 1)
    thick, reach = rng.uniform(0.04, 0.07), rng.uniform(0.13, 0.2)
    middle, high = (top + bottom) / 2 - 0.02, (bottom - top) * rng.uniform(0.24, 0.36)
    x = 0.42 + wide * (1 + narrow) / 2 - 0.03
    handle = _ring(_arc(x, middle, reach, high, -90, 90), _arc(x, middle, reach - thick, high - thick, -90, 90))
    body = np.concatenate([_arc(0.42, top, wide, 0.04, 180, 360), _arc(0.42, bottom, wide * narrow, 0.05, 0, 180)])
    return [(handle, rng.random() < 0.3), (body, False), (_arc(0.42, top, wide * 0.93, 0.035), True)]


def _dress(rng: Rng) -> Parts:
    waist, hem = rng.uniform(0.11, 0.16), rng.uniform(0.26, 0.46)
    chest, high = waist + rng.uniform(0.01, 0.06), rng.uniform(0.38, 0.48)
    strap, neck = rng.uniform(0.3, 0.85) * chest, rng.uniform(0.12, 0.22)
    body = _mirrored(
        (0.0, neck), (strap * 0.6, 0.03), (strap, 0.03), (chest, 0.2), (waist, high), (hem, rng.uniform(0.88, 0.98))
    )
    parts = [(body, False)]
    if rng.random() < 0.5:
        parts.append((_mirrored((waist + 0.005, high - 0.02), (waist + 0.005, high + 0.02)), True))
    return parts


def _hat(rng: Rng) -> Parts:
    crown, brim, top = rng.uniform(0.2, 0.3), rng.uniform(0.4, 0.49), rng.uniform(0.15, 0.35)
    base = rng.uniform(0.62, 0.72)
    flat = rng.uniform(0.05, 0.1)
    dome = np.concatenate(
        [_arc(0.5, base - 0.15, crown, base - 0.15 - top, 180, 360), [[0.5 + crown, base], [0.5 - crown, base]]]
    )
    band = _mirrored((crown, base - rng.uniform(0.06, 0.12)), (crown, base))
    return [(_arc(0.5, base, brim, flat), False), (dome, False), (band, True)]


def _shirt(rng: Rng) -> Parts:
    shoulder, waist, bottom = rng.uniform(0.24, 0.3), rng.uniform(0.21, 0.27), rng.uniform(0.82, 0.95)
    neck, drop = rng.uniform(0.07, 0.12), rng.uniform(0.1, 0.2)
    length, spread = rng.choice([0.16, 0.55]) * rng.uniform(0.9, 1.15), rng.uniform(0.1, 0.2)
    cuff = rng.uniform(0.08, 0.12)
    body = _mirrored(
        (0.0, drop),
        (neck, 0.06),
        (shoulder, 0.11),
        (shoulder + spread, 0.11 + length),
        (shoulder + spread - cuff, 0.14 + length),
        (waist, 0.32),
        (waist, bottom),
    )
    parts = [(body, False)]
    if rng.random() < 0.4:
        inner = _arc(0.5, 0.06, neck, drop - 0.06, 0, 180)
        parts.append((_ring(inner, _arc(0.5, 0.06, neck + 0.03, drop, 0, 180)), True))
    return parts


def _shoe(rng: Rng) -> Parts:
    ankle, sole, toe = rng.uniform(0.22, 0.42), rng.uniform(0.74, 0.78), rng.uniform(0.52, 0.64)
    opening, heel = rng.uniform(0.3, 0.4), rng.uniform(0.02, 0.14)
    upper = np.array(
        [
            (0.06, ankle),
            (opening, ankle + 0.02),
            (opening + 0.14, toe - 0.08),
            (0.78, toe),
            (0.93, toe + 0.08),
            (0.96, sole),
            (0.05, sole),
        ]
    )
    under = np.array(
        [(0.04, sole - 0.02), (0.97, sole - 0.02), (0.96, sole + 0.05), (0.4, sole + 0.05), (0.34, sole + 0.05 + heel),
         (0.05, sole + 0.05 + heel)]
    )  # fmt: skip
    return [(upper, False), (under, True)]


def _skirt(rng: Rng) -> Parts:
    waist, hem = rng.uniform(0.16, 0.24), rng.uniform(0.3, 0.48)
    top, bottom = rng.uniform(0.14, 0.24), rng.uniform(0.75, 0.92)
    band = _mirrored((waist, top - 0.05), (waist, top))
    curve = _arc(0.5, bottom - 0.03, hem, rng.uniform(0.01, 0.05), 0, 180)
    body = np.concatenate([[[0.5 - waist, top], [0.5 + waist, top]], curve])
    return [(body, False), (band, rng.random() < 0.7)]


def _trousers(rng: Rng) -> Parts:
    waist, ankle, spread = rng.uniform(0.15, 0.21), rng.uniform(0.07, 0.14), rng.uniform(0.02, 0.07)
    bottom, crotch = rng.choice([0.62, 0.96]) * rng.uniform(0.94, 1.0), rng.uniform(0.3, 0.38)
    body = _mirrored((waist, 0.05), (waist + 0.03, 0.3), (spread + 2 * ankle, bottom), (spread, bottom), (0.0, crotch))
    return [(body, False), (_mirrored((waist, 0.03), (waist, 0.08)), rng.random() < 0.5)]


SILHOUETTES: dict[str, Callable[[Rng], Parts]] = {
    "bag": _bag,
    "cup": _cup,
    "dress": _dress,
    "hat": _hat,
    "shirt": _shirt,
    "shoe": _shoe,
    "skirt": _skirt,
    "trousers": _trousers,
}
