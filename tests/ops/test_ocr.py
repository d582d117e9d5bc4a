"""The OCR pipeline reads what `RapidOCR()(image)` reads."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from asyncline import BadImage, Engine, RequestError, UrlForbidden
from asyncline.settings import from_file, merge
from loadtest.pages import page
from tests.serving import ROOT

pytest.importorskip("rapidocr")
pytestmark = [pytest.mark.ocr, pytest.mark.timeout(240)]


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def transparent(ink: tuple[int, int, int, int]) -> bytes:
    image = Image.new("RGBA", (600, 120), (0, 0, 0, 0))
    ImageDraw.Draw(image).text((20, 30), "Total amount 1,234.56", fill=ink, font=ImageFont.load_default(40))
    return encoded(image)


def rotated(data: bytes) -> bytes:
    return encoded(Image.open(io.BytesIO(data)).rotate(180), "JPEG")


PAGES = {
    "no line": page(0, 1),
    "one line": page(1, 2),
    "sixty lines": page(60, 3),
    "a photo": page(12, 4, photo=True),
    "upside down": rotated(page(8, 5)),
    "gray": encoded(Image.open(io.BytesIO(page(5, 6))).convert("L")),
    "dark on transparent": transparent((20, 20, 20, 255)),
    "light on transparent": transparent((240, 240, 240, 255)),
    "one pixel": encoded(Image.new("RGB", (1, 1))),
    "a wide strip": encoded(Image.open(io.BytesIO(page(3, 7))).crop((0, 40, 1000, 110))),
    "a small clip": encoded(Image.open(io.BytesIO(page(20, 8))).crop((40, 40, 300, 200))),
}
"""Encoded images by what is particular about them."""

UNREADABLE = {
    "a tall thread": (encoded(Image.new("RGB", (20, 2000))), "too thin to read"),
    "a flat thread": (encoded(Image.new("RGB", (2000, 1))), "too thin to read"),
    "a hair": (encoded(Image.new("RGB", (1, 5000))), "too thin to read"),
    "no image": (b"these are no pixels", "no image"),
    "half a JPEG": (page(3, 1)[:4000], "damaged"),
}

URLS = ["http://127.0.0.1/page.png", "http://10.0.0.1/", "http://169.254.169.254/latest/meta-data/"]


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    """What the pipeline, with its own settings, says of all pages, which are in flight together."""
    from ops.ocr import graph

    async def main() -> list[Any]:
        source = from_file(ROOT / "config" / "ocr.yml")
        settings = merge(graph.name, {op.name: op.code_settings for op in graph.ops}, source)
        images = [*PAGES.values(), *(data for data, _ in UNREADABLE.values()), *URLS]
        async with Engine(graph, settings) as engine:
            return await asyncio.gather(*(engine.submit({"image": image}) for image in images), return_exceptions=True)

    return dict(zip([*PAGES, *UNREADABLE, *URLS], asyncio.run(main()), strict=True))


@pytest.fixture(scope="module")
def rapid() -> Any:
    from rapidocr import RapidOCR

    return RapidOCR(params={"Global.log_level": "error"})


@pytest.mark.parametrize("name", PAGES)
def test_the_text_is_rapidocrs_in_its_order(name: str, answers: dict[str, Any], rapid: Any) -> None:
    answer = answers[name]
    assert not isinstance(answer, RequestError), answer
    expected = rapid(PAGES[name])
    assert [line["text"] for line in answer["lines"]] == list(expected.txts or ())
    if expected.txts:
        assert np.allclose([line["score"] for line in answer["lines"]], expected.scores, atol=1e-3)
        assert np.allclose([line["box"] for line in answer["lines"]], expected.boxes, atol=1e-3)
    assert (answer["width"], answer["height"]) == Image.open(io.BytesIO(PAGES[name])).size


def test_the_pages_have_the_lines_they_should(answers: dict[str, Any]) -> None:
    assert len(answers["no line"]["lines"]) == 0
    assert len(answers["one line"]["lines"]) == 1
    assert len(answers["sixty lines"]["lines"]) >= 60
    assert len(answers["upside down"]["lines"]) == 8
    for name in ("dark on transparent", "light on transparent"):
        assert answers[name]["lines"][0]["text"].startswith("Total")


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_the_clients_fault(name: str, answers: dict[str, Any]) -> None:
    assert isinstance(answers[name], BadImage)
    assert UNREADABLE[name][1] in str(answers[name])
    assert str(answers[name]).startswith("op 'decode' preprocess: ")


@pytest.mark.parametrize("url", URLS)
def test_a_page_may_be_a_url_but_not_of_our_own_network(url: str, answers: dict[str, Any]) -> None:
    assert isinstance(answers[url], UrlForbidden)
    assert str(answers[url]).startswith("op 'fetch' preprocess: ")
