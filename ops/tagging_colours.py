"""Dominant colours of a picture: k-means in CIELAB, where distances are about what an eye sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

CLUSTERS = 5
"""Looked for; those that look alike are joined."""
PIXELS = 10_000
"""Most that are looked at, drawn at random: a share is then right to half a percent (one standard error)."""
ROUNDS = 20
"""Most of k-means; the median picture needs nine."""
BORDER_PIXELS, BORDER_CLUSTERS = 500, 8
BORDER_SHARE = 0.06
"""A colour that has less of the border is that of a product which touches it."""
BACKDROP = 12.0
"""What is within this distance of one of the border's other colours is backdrop."""
ALIKE = 14.0
"""Clusters closer than this are one colour: folds and shades of one cloth."""
LEAST_SHARE = 0.03
"""Of the picture, to be a product; of the product, to be one of its colours."""

_NAMES = {
    "black": "#000000", "dark gray": "#404040", "gray": "#808080", "light gray": "#c0c0c0", "white": "#ffffff",
    "dark red": "#800000", "red": "#e01010", "pink": "#ffb0c0", "orange": "#ff8000", "brown": "#6b3e1e",
    "beige": "#e8dcc0", "yellow": "#ffe000", "olive": "#808000", "lime": "#70e020", "green": "#108030",
    "dark green": "#104020", "mint": "#a0e8c8", "teal": "#008080", "turquoise": "#30d5c8", "light blue": "#90c8f0",
    "blue": "#1858e0", "navy": "#000060", "lilac": "#b8a0e8", "purple": "#702090", "magenta": "#e020d0",
}  # fmt: skip
"""Colour words of shops, and a typical sRGB value of each."""

# sRGB to linear light (IEC 61966-2-1), for each of the 256 values.
_VALUES = np.arange(256) / 255
_LINEAR = np.where(_VALUES <= 0.04045, _VALUES / 12.92, ((_VALUES + 0.055) / 1.055) ** 2.4).astype(np.float32)
# Linear light to XYZ relative to the white of D65, so that white is (1, 1, 1); also IEC 61966-2-1.
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_TO_XYZ = (_XYZ / _XYZ.sum(axis=1, keepdims=True)).T.astype(np.float32)
# XYZ to L*, a*, b* (CIE 15:2004, 8.2.1.1).
_TO_LAB = np.array([[0, 116, 0], [500, -500, 0], [0, 200, -200]], dtype=np.float32).T


@dataclass(frozen=True)
class Colour:
    """One dominant colour."""

    hex: str
    """sRGB, `#rrggbb`."""
    name: str
    """The nearest of a few words."""
    share: float
    """Of the product, 0 to 1."""


def to_lab(rgb: Array) -> Array:
    """sRGB, uint8 `[..., 3]`, to CIELAB for D65, float32 `[..., 3]`: L* 0 to 100, a* and b* about ±100.

    Formulas: IEC 61966-2-1 (sRGB), CIE 15:2004 8.2.1.1 (L*a*b*).
    """
    xyz = _LINEAR[rgb] @ _TO_XYZ
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * ((29 / 6) ** 2 / 3) + 4 / 29)
    lab: Array = f @ _TO_LAB
    lab[..., 0] -= 16
    return lab


def dominant_colours(image: Array) -> list[Colour]:
    """The colours of what stands before the backdrop, largest share first: one to CLUSTERS of them.

    Backdrop is what looks like the border of the picture; where all of it does, the backdrop's own colours are
    given. Equal pictures get equal answers.

    :param image: RGB, uint8 `[height, width, 3]`.
    """
    # Always the same numbers, and no grid: one would meet the stripes of a cloth at every same place.
    rng = np.random.default_rng(0)
    rgb = image.reshape(-1, 3)
    if len(rgb) > PIXELS:
        rgb = rgb[rng.integers(len(rgb), size=PIXELS)]
    lab = to_lab(rgb)
    product = ~_is_backdrop(lab, image, rng)
    if product.mean() > LEAST_SHARE:
        rgb, lab = rgb[product], lab[product]
    labels = join_alike(lab, k_means(lab, CLUSTERS, rng))
    shares = np.bincount(labels) / len(labels)
    return [
        colour(rgb[labels == label].mean(axis=0), float(shares[label]))
        for label in np.argsort(-shares, kind="stable")
        if shares[label] > LEAST_SHARE
    ]


def colour(rgb: Array, share: float) -> Colour:
    """Describe a colour by its sRGB values, `[3]`, 0 to 255."""
    whole = rgb.round().astype(np.uint8)
    nearest = _squares(_NAMES_LAB - to_lab(whole)).argmin()
    return Colour(f"#{whole.tobytes().hex()}", tuple(_NAMES)[nearest], round(share, 3))


def k_means(points: Array, count: int, rng: np.random.Generator) -> Array:
    """Lloyd's k-means from seeds of k-means++ (Arthur and Vassilvitskii, 2007).

    :param points: float `[n, dimensions]`.
    :returns: the cluster of each point, int `[n]`, below `count`; fewer clusters where fewer points differ.
    """
    centres = _seeds(points, count, rng)
    labels = _nearest(points, centres)
    for _ in range(ROUNDS):
        sizes, sums = _totals(points, labels, len(centres))
        # A cluster that has lost all its points stays where it was.
        centres = np.where(sizes > 0, sums / np.maximum(sizes, 1), centres).astype(points.dtype)
        before, labels = labels, _nearest(points, centres)
        if np.array_equal(labels, before):
            break
    return labels


def join_alike(points: Array, labels: Array) -> Array:
    """Labels in which clusters whose centres are less than ALIKE apart are one: each joins the largest such."""
    sizes, sums = _totals(points, labels, labels.max() + 1)
    centres = sums / np.maximum(sizes, 1)
    joined = np.arange(len(centres))
    kept: list[int] = []
    for label in np.argsort(-sizes[:, 0], kind="stable"):
        near = [other for other in kept if np.linalg.norm(centres[label] - centres[other]) < ALIKE]
        if near:
            joined[label] = near[0]
        else:
            kept.append(label)
    return joined[labels]


def _is_backdrop(lab: Array, image: Array, rng: np.random.Generator) -> Array:
    """Whether each pixel of `lab`, `[n, 3]`, has a colour of the border: bool `[n]`."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    border = to_lab(border[rng.integers(len(border), size=BORDER_PIXELS)])
    labels = k_means(border, BORDER_CLUSTERS, rng)
    sizes, sums = _totals(border, labels, BORDER_CLUSTERS)
    often = sizes[:, 0] > BORDER_SHARE * len(border)
    centres = (sums[often] / sizes[often]).astype(lab.dtype)
    near: Array = _squares(lab - centres[_nearest(lab, centres)]) < BACKDROP**2
    return near


def _seeds(points: Array, count: int, rng: np.random.Generator) -> Array:
    """Points far from each other: each drawn by its squared distance to those before."""
    seeds = [points[rng.integers(len(points))]]
    distances = _squares(points - seeds[0])
    while len(seeds) < count and distances.any():
        odds = distances.cumsum(dtype=np.float64)
        seeds.append(points[np.searchsorted(odds, rng.random() * odds[-1], side="right")])
        distances = np.minimum(distances, _squares(points - seeds[-1]))
    return np.stack(seeds)


def _nearest(points: Array, centres: Array) -> Array:
    # |p - c|² without |p|², which is the same for all centres.
    nearest: Array = (_squares(centres) - 2 * points @ centres.T).argmin(axis=1)
    return nearest


def _squares(vectors: Array) -> Array:
    """Squared length of each: `[n, dimensions]` → `[n]`. Twice as fast as `(vectors**2).sum(axis=1)`."""
    squares: Array = np.einsum("ij,ij->i", vectors, vectors)
    return squares


def _totals(points: Array, labels: Array, count: int) -> tuple[Array, Array]:
    """Of each cluster: how many points, `[count, 1]`, and their sum, `[count, dimensions]`."""
    sums = [np.bincount(labels, weights=values, minlength=count) for values in points.T]
    return np.bincount(labels, minlength=count)[:, None], np.stack(sums, axis=1)


_NAMES_LAB = to_lab(np.array([list(bytes.fromhex(value[1:])) for value in _NAMES.values()], dtype=np.uint8))
