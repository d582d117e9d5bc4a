"""The tagging pipeline names what its pictures show, from any kind of image."""

from __future__ import annotations

import asyncio
import base64
import io
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from asyncline import BadImage, BadRequest, Engine, Graph, RequestError, UrlForbidden
from asyncline.backends import OnnxSession
from asyncline.images import UrlPolicy, decode, resize
from asyncline.settings import from_file, merge
from ops import tagging
from ops.tagging_colours import CLUSTERS, dominant_colours, k_means, to_lab
from ops.tagging_pictures import CATEGORIES, PATTERNS, picture
from tests.images.origins import answer, answers, origin
from tests.serving import ROOT

pytest.importorskip("onnxruntime")

FRESH = range(3_000_000, 3_000_300)
"""Seeds that the model was neither trained nor judged on."""


SETTINGS = from_file(ROOT / "config" / "tagging.yml")


def engine(graph: Graph) -> Engine:
    """With the settings of the pipeline."""
    return Engine(graph, merge(graph.name, {op.name: op.code_settings for op in graph.ops}, SETTINGS))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


# -- the classifier


def test_the_model_is_as_good_as_the_module_says_on_pictures_it_has_never_seen() -> None:
    drawn = [picture(seed, side=220) for seed in FRESH]
    seen = [resize(decode(one.jpeg()), tagging.SIDE, tagging.SIDE) for one in drawn]
    found = tagging.classify(OnnxSession(tagging.MODEL), seen)
    stated = re.findall(r"([\d.]+) %", tagging.__doc__ or "")
    for question, percent in zip(("category", "pattern"), stated, strict=True):
        right = [getattr(one, question) == labels[question]["label"] for one, labels in zip(drawn, found, strict=True)]
        # Within three standard errors of 300 pictures.
        assert np.mean(right) == pytest.approx(float(percent) / 100, abs=0.024)


def test_the_file_knows_its_labels() -> None:
    session = OnnxSession(tagging.MODEL)
    assert session.metadata["category"].split() == list(CATEGORIES)
    assert session.metadata["pattern"].split() == list(PATTERNS)


def test_a_picture_is_the_same_for_the_same_seed_at_any_size() -> None:
    assert picture(7, 100).jpeg() == picture(7, 100).jpeg()
    small, large = picture(7, 100), picture(7, 200)
    assert (small.category, small.pattern) == (large.category, large.pattern)
    difference = np.asarray(large.image.resize(small.image.size)).astype(int) - np.asarray(small.image)
    assert np.abs(difference).mean() < 12


# -- colours


def blocks(backdrop: str, *areas: tuple[str, tuple[int, int, int, int]]) -> np.ndarray[Any, Any]:
    """A picture of 200 x 200 pixels: rectangles before a backdrop."""
    image = Image.new("RGB", (200, 200), backdrop)
    for colour, (left, top, right, bottom) in areas:
        ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), fill=colour)
    return np.asarray(image)


def test_lab_is_that_of_the_standard() -> None:
    # Values as Lindbloom's calculator gives them for sRGB and D65.
    rgb = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255], [5, 5, 5]], dtype=np.uint8)
    lab = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86], [1.37, 0, 0]]
    assert to_lab(rgb) == pytest.approx(np.array(lab), abs=0.06)


def test_colours_are_named_and_have_their_shares_largest_first() -> None:
    picture = blocks("white", ("#e01010", (50, 50, 150, 80)), ("#000060", (50, 80, 150, 150)))
    first, second = dominant_colours(picture)
    assert (first.hex, first.name) == ("#000060", "navy")
    assert (second.hex, second.name) == ("#e01010", "red")
    assert first.share == pytest.approx(0.7, abs=0.03)
    assert first.share + second.share == pytest.approx(1, abs=0.002)


def test_the_backdrop_is_no_colour_of_the_product_though_unevenly_lit() -> None:
    light = np.linspace(150, 250, 200).astype(np.uint8)
    picture = np.broadcast_to(light[:, None], (200, 200, 3)).copy()
    picture[60:140, 60:140] = (16, 128, 48)
    assert [colour.name for colour in dominant_colours(picture)] == ["green"]


def test_a_product_that_touches_the_border_is_still_the_product() -> None:
    picture = blocks("white", ("#1858e0", (90, 0, 105, 200)))
    assert [colour.name for colour in dominant_colours(picture)] == ["blue"]


def test_a_picture_that_is_all_backdrop_has_its_colour() -> None:
    (colour,) = dominant_colours(blocks("#ffe000"))
    assert (colour.hex, colour.name, colour.share) == ("#ffe000", "yellow", 1.0)


def test_folds_of_one_cloth_are_one_colour() -> None:
    picture = blocks("white", *((f"#{160 + 4 * i:02x}1010", (40 + 20 * i, 40, 60 + 20 * i, 160)) for i in range(6)))
    assert [colour.share for colour in dominant_colours(picture)] == [1.0]


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_any_picture_has_one_to_five_colours_and_always_the_same(image: np.ndarray[Any, Any]) -> None:
    found = dominant_colours(image)
    assert found == dominant_colours(np.asfortranarray(image))
    assert 1 <= len(found) <= CLUSTERS
    assert 0 < sum(colour.share for colour in found) <= 1.0025  # each is rounded to 0.001
    assert all(re.fullmatch("#[0-9a-f]{6}", colour.hex) for colour in found)


def test_k_means_finds_clusters_that_lie_apart() -> None:
    rng = np.random.default_rng(5)
    centres = np.array([[0, 0, 0], [60, 0, 0], [0, 60, 0]], dtype=np.float32)
    truth = rng.integers(3, size=600)
    labels = k_means(centres[truth] + rng.normal(0, 3, (600, 3)).astype(np.float32), 3, rng)
    assert len(set(zip(truth.tolist(), labels.tolist(), strict=True))) == 3


def test_k_means_of_fewer_points_than_clusters_has_fewer() -> None:
    points = np.array([[1, 2, 3], [4, 5, 6], [1, 2, 3]], dtype=np.float32)
    first, second, third = k_means(points, 5, np.random.default_rng(0))
    assert first == third != second


# -- the graph

SHIRT = picture(12, 400)
PICTURES = {
    "a JPEG": SHIRT.jpeg(),
    "base64": base64.b64encode(SHIRT.jpeg()).decode(),
    "a gray PNG": encoded(SHIRT.image.convert("L")),
    "a CMYK JPEG": encoded(SHIRT.image.convert("CMYK"), "JPEG"),
    "a GIF": encoded(SHIRT.image, "GIF"),
    "transparent": encoded(Image.new("RGBA", (50, 50), (255, 0, 0, 0))),
    "one pixel": encoded(Image.new("RGB", (1, 1), "red")),
    "a thread": encoded(Image.new("RGB", (5000, 1), "red")),
}
BAD: dict[str, tuple[Any, type[RequestError], str]] = {
    "no image": (b"these are no pixels", BadImage, "op 'decode' preprocess: "),
    "half a JPEG": (SHIRT.jpeg()[:3000], BadImage, "op 'decode' preprocess: "),
    "nothing": (b"", BadRequest, "field 'image': "),
    "a number": (5, BadRequest, "field 'image': "),
    "a private URL": ("http://127.0.0.1/shirt.jpg", UrlForbidden, "op 'fetch' preprocess: "),
}


@pytest.fixture(scope="module")
def tags() -> dict[str, Any]:
    """What the pipeline says of all of these, which are in flight together."""

    async def main() -> list[Any]:
        images = [*PICTURES.values(), *(image for image, _, _ in BAD.values())]
        async with engine(tagging.graph) as running:
            return await asyncio.gather(*(running.submit({"image": image}) for image in images), return_exceptions=True)

    return dict(zip([*PICTURES, *BAD], asyncio.run(main()), strict=True))


@pytest.mark.parametrize("name", ["a JPEG", "base64", "a CMYK JPEG", "a GIF"])
def test_a_product_has_its_category_its_pattern_and_its_colours(name: str, tags: dict[str, Any]) -> None:
    assert tags[name]["category"]["label"] == SHIRT.category
    assert tags[name]["pattern"]["label"] == SHIRT.pattern
    assert tags[name]["colours"][0]["name"] == tags["a JPEG"]["colours"][0]["name"]


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_image_is_answered_in_one_form(name: str, tags: dict[str, Any]) -> None:
    answer = tags[name]
    assert not isinstance(answer, BaseException), answer
    assert set(answer) == {"category", "pattern", "colours"}
    assert answer["category"]["label"] in CATEGORIES and 0 < answer["category"]["score"] <= 1
    assert answer["pattern"]["label"] in PATTERNS and 0 < answer["pattern"]["score"] <= 1
    assert answer["colours"] and all(set(colour) == {"hex", "name", "share"} for colour in answer["colours"])


def test_what_has_one_colour_has_that(tags: dict[str, Any]) -> None:
    assert tags["one pixel"]["colours"] == [{"hex": "#ff0000", "name": "red", "share": 1.0}]
    assert tags["a thread"]["colours"] == tags["one pixel"]["colours"]
    assert tags["transparent"]["colours"] == [{"hex": "#ffffff", "name": "white", "share": 1.0}]
    assert {colour["name"] for colour in tags["a gray PNG"]["colours"]} <= {
        "black", "dark gray", "gray", "light gray", "white"
    }  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_tagged_is_the_clients_fault(name: str, tags: dict[str, Any]) -> None:
    _, kind, message = BAD[name]
    assert isinstance(tags[name], kind)
    assert str(tags[name]).startswith(message)


async def test_a_url_inside_the_own_network_is_fetched_where_it_is_allowed() -> None:
    graph = tagging.tagging(UrlPolicy(allow_cidrs=["127.0.0.0/8"]))
    async with origin(answers(answer(SHIRT.jpeg()))) as shop, engine(graph) as running:
        tags = await running.submit({"image": shop.url("/shirt.jpg")})
        assert tags == await running.submit({"image": SHIRT.jpeg()})
        assert shop.requests == ["/shirt.jpg"]
