"""What a header tells is refused by it: no decoder sees the image."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageFile

from asyncline import BadImage
from asyncline.images import ImageLimits, decode
from asyncline.images.header import FORMATS
from tests.images.pictures import (
    BMP,
    CMYK,
    GIF,
    HEIGHT,
    JPEG,
    PNG,
    PROGRESSIVE,
    TIFF,
    WEBP,
    WIDTH,
    behind_the_start,
    bmp_header,
    encode,
    gif_frame,
    gif_header,
    gradient,
    jpeg_header,
    png,
    segment,
    tiff,
    webp_header,
    with_scans,
)


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The decoders that were called; a raising one would be taken for a damaged image."""
    called: list[str] = []

    def watch(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            called.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    watch(simplejpeg, "decode_jpeg")
    # All of Pillow's formats come to one of these before the first pixel.
    Image.preinit()
    Image.init()
    for kind in {ImageFile.ImageFile, *(Image.OPEN[name][0] for name in FORMATS)}:
        if "load" in vars(kind):
            watch(kind, "load")
    yield called


def in_tiff(data: bytes) -> bytes:
    return tiff(WIDTH, HEIGHT, [data])


@pytest.mark.parametrize(
    "data", [JPEG, CMYK, PROGRESSIVE, PNG, WEBP, GIF, BMP, TIFF, in_tiff(JPEG)], ids=lambda data: str(data[:4])
)
def test_a_good_image_comes_to_a_decoder(data: bytes, decoders: list[str]) -> None:
    decode(data)
    assert decoders


# -- sides and pixels

HEADERS: dict[str, Any] = {
    "png": png,
    "jpeg": jpeg_header,
    "gif": gif_header,
    "gif frame": gif_frame,
    "bmp": bmp_header,
    "tiff": lambda width, height: tiff(width, height, [b"\0"], compression=1),
    "tiff lzw": lambda width, height: tiff(width, height, [b"\0"], compression=5),
    "tiff jpeg": lambda width, height: tiff(width, height, [JPEG]),
}


@pytest.mark.parametrize("format", HEADERS)
@pytest.mark.parametrize(
    ("width", "height", "over"), [(16_385, 1, "16384 a side"), (1, 16_385, "16384 a side"), (6000, 6000, "33500000")]
)
def test_a_huge_image_is_refused(format: str, width: int, height: int, over: str, decoders: list[str]) -> None:
    if format.startswith("gif"):
        width, height = max(width, WIDTH), max(height, HEIGHT)  # the larger of screen and frame counts
    with pytest.raises(BadImage, match=rf"^an image of {width} x {height} pixels is over the limit of {over}$"):
        decode(HEADERS[format](width, height))
    assert not decoders


def test_a_huge_webp_is_refused(decoders: list[str]) -> None:
    with pytest.raises(BadImage, match="an image of 6000 x 6000 pixels is over the limit"):
        decode(webp_header(6000, 6000))
    assert not decoders


@pytest.mark.parametrize("format", HEADERS)
def test_a_dimension_bomb_is_refused_whatever_the_limits(format: str, decoders: list[str]) -> None:
    with pytest.raises(BadImage, match="the image has too many pixels"):
        decode(HEADERS[format](50_000, 50_000), limits=ImageLimits(pixels=10**12, side=10**7))
    assert not decoders


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("format", ["png", "jpeg", "gif frame", "bmp", "tiff", "tiff lzw", "tiff jpeg"])
def test_an_image_without_pixels_is_refused(format: str, size: tuple[int, int]) -> None:
    with pytest.raises(BadImage):
        decode(HEADERS[format](*size))


def test_a_limit_names_an_image_without_pixels() -> None:
    with pytest.raises(BadImage, match="the image has no pixels"):
        ImageLimits().check(0, 5)


@pytest.mark.parametrize("size", [(1, 1), (1, 16_384), (16_384, 1)])
@pytest.mark.parametrize("format", FORMATS)
def test_the_smallest_and_the_thinnest_are_images(format: str, size: tuple[int, int]) -> None:
    width, height = (min(side, 16_383) for side in size) if format == "WEBP" else size
    data = encode(Image.new("RGB", (width, height), "white"), format)
    pixels = decode(data)
    assert pixels.shape == (height, width, 3)
    assert pixels.min() >= 250


def test_limits_may_be_tightened(decoders: list[str]) -> None:
    size = WIDTH * HEIGHT
    data = encode(gradient(), "PNG")
    with pytest.raises(BadImage, match=f"over the limit of {size - 1}$"):
        decode(data, limits=ImageLimits(pixels=size - 1))
    with pytest.raises(BadImage, match=f"over the limit of {WIDTH - 1} a side$"):
        decode(data, limits=ImageLimits(side=WIDTH - 1))
    assert not decoders
    assert decode(data, limits=ImageLimits(pixels=size)).shape == (HEIGHT, WIDTH, 3)


def test_a_limit_holds_for_the_image_as_it_is_stored() -> None:
    with pytest.raises(BadImage, match=f"{WIDTH} x {HEIGHT}"):
        decode(JPEG, limits=ImageLimits(side=30))


# -- scans of a JPEG


@pytest.mark.parametrize("scans", [65, 1000, 80_000])
def test_a_jpeg_of_too_many_scans_is_refused(scans: int, decoders: list[str]) -> None:
    with pytest.raises(BadImage, match="a JPEG of more than 64 scans is refused"):
        decode(with_scans(scans))
    assert not decoders


def test_a_cmyk_jpeg_of_too_many_scans_is_refused(decoders: list[str]) -> None:
    progressive = encode(gradient().convert("CMYK"), "JPEG", progressive=True)
    with pytest.raises(BadImage, match="a JPEG of more than 64 scans is refused"):
        decode(with_scans(65, progressive))
    assert not decoders


def test_the_number_of_scans_may_be_set() -> None:
    scans = PROGRESSIVE.count(b"\xff\xda")
    assert decode(PROGRESSIVE, limits=ImageLimits(scans=scans)).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(BadImage, match=f"a JPEG of more than {scans - 1} scans is refused"):
        decode(PROGRESSIVE, limits=ImageLimits(scans=scans - 1))


def test_scans_hidden_behind_a_marker_without_segment_are_counted() -> None:
    # 0xFF01 has no length: what follows is no part of it, though it looks like one of 65,535 bytes.
    data = with_scans(100)
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    with pytest.raises(BadImage, match="more than 64 scans"):
        decode(data[:second] + b"\xff\x01" + data[second:])


def test_the_bytes_of_a_scan_marker_in_metadata_are_no_scans() -> None:
    assert decode(behind_the_start(JPEG, segment(0xED, b"\xff\xda" * 200))).shape == (WIDTH, HEIGHT, 3)


def test_a_film_behind_a_photo_holds_no_scans() -> None:
    # Phones put a film of some MB behind a photo, where the two bytes come by chance once in 65,536.
    film = np.random.default_rng(0).integers(0, 256, 8_000_000, np.uint8).tobytes()
    assert film.count(b"\xff\xda") > 64
    np.testing.assert_array_equal(decode(JPEG + film), decode(JPEG))


# -- segments of a JPEG


@pytest.mark.parametrize("content", [b"\0" * 65_533, b"\xff\xda" * 32_766, b"Exif\0\0" + b"\0" * 65_527])
@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xED, 0xFE])
def test_sixteen_mb_of_metadata_are_skipped(marker: int, content: bytes) -> None:
    large, plain = segment(marker, content), encode(gradient(), "JPEG")
    data = behind_the_start(plain, large * (16_000_000 // len(large) + 1))
    assert len(data) > 16_000_000
    np.testing.assert_array_equal(decode(data), decode(plain))


@pytest.mark.parametrize(
    "small", [segment(0xFE, b""), segment(0xE2, b"MPF\0"), b"\xff", b"\xff\0", b"\xff\xd0"], ids=lambda data: data.hex()
)
def test_ten_mb_of_small_segments_are_refused_at_once(small: bytes, decoders: list[str]) -> None:
    data = behind_the_start(JPEG, small * (10_000_000 // len(small)))
    before = time.thread_time()
    with pytest.raises(BadImage, match="a JPEG of more than 4096 segments, or with bytes between them, is refused"):
        decode(data)
    assert time.thread_time() - before < 0.5  # Pillow would take seconds
    assert not decoders


def test_small_segments_between_scans_are_refused(decoders: list[str]) -> None:
    with pytest.raises(BadImage, match="4096 segments"):
        decode(with_scans(64)[:-2] + segment(0xFE, b"") * 100_000 + b"\xff\xda" * 65)
    assert not decoders


def test_a_few_bytes_between_segments_are_borne() -> None:
    np.testing.assert_array_equal(decode(behind_the_start(JPEG, b"\xff" * 1000)), decode(JPEG))


# -- JPEGs in a TIFF


def strips(count: int, **options: Any) -> list[bytes]:
    """Strips of eight rows."""
    return [encode(gradient().crop((0, 0, WIDTH, 8)), "JPEG", **options) for _ in range(count)]


@pytest.mark.parametrize("lengths", [None, []], ids=["with lengths", "without"])
def test_a_jpeg_of_too_many_scans_in_a_tiff_is_refused(lengths: Any, decoders: list[str]) -> None:
    for scans in (65, 99, 1000):
        data = tiff(WIDTH, HEIGHT, [with_scans(scans)], lengths=lengths)
        with pytest.raises(BadImage, match="a TIFF with a JPEG of more than 64 scans is refused"):
            decode(data)
    assert not decoders


def test_any_strip_may_hold_too_many_scans(decoders: list[str]) -> None:
    good, bad = strips(1)[0], with_scans(65, strips(1, progressive=True)[0])
    for place in range(3):
        with pytest.raises(BadImage, match="more than 64 scans"):
            decode(tiff(WIDTH, 24, [bad if number == place else good for number in range(3)]))
    assert not decoders


def test_tiles_are_strips_too(decoders: list[str]) -> None:
    made = bytearray(in_tiff(with_scans(65)))
    for strip, tile in ((273, 324), (279, 325)):
        at = made.rindex(struct.pack("<HH", strip, 4))
        made[at : at + 2] = struct.pack("<H", tile)
    with pytest.raises(BadImage, match="more than 64 scans"):
        decode(bytes(made))
    assert not decoders


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_tiff_may_have_many_scans_in_all(options: dict[str, Any]) -> None:
    data = tiff(WIDTH, 8 * 100, strips(100, **options))
    assert data.count(b"\xff\xda") >= 100
    assert decode(data).shape == (800, WIDTH, 3)


def test_a_progressive_jpeg_in_a_tiff_is_decoded() -> None:
    np.testing.assert_array_equal(decode(in_tiff(PROGRESSIVE)), decode(PROGRESSIVE))
    assert decode(in_tiff(with_scans(64))).shape == (HEIGHT, WIDTH, 3)


def test_strips_that_overlap_are_gone_through_once(decoders: list[str]) -> None:
    # Each of 2,000 strips claims the 10 MB before it: 20 GB in all.
    large = with_scans(64, strips(1, progressive=True)[0])
    pieces = [large + bytes(10_000_000), *strips(2000)]
    data = tiff(WIDTH, 8 * 2001, pieces, overlapping=10_000_000)
    before = time.thread_time()
    with pytest.raises(BadImage, match="more than 64 scans"):
        decode(data)
    assert time.thread_time() - before < 2.0
    assert not decoders


def test_the_bytes_of_a_scan_marker_in_another_tiff_are_pixels() -> None:
    pixels = np.tile(np.array([0xFF, 0xDA], np.uint8), 30 * 3 * 10).reshape(20, 30, 3)
    data = encode(Image.fromarray(pixels), "TIFF")
    assert data.count(b"\xff\xda") > 64
    np.testing.assert_array_equal(decode(data), pixels)


def test_a_tiff_that_does_not_tell_where_its_strips_are_is_refused() -> None:
    made = bytearray(in_tiff(with_scans(65)))
    at = made.rindex(struct.pack("<HH", 273, 4))
    made[at + 2 : at + 4] = struct.pack("<H", 2)  # letters
    with pytest.raises(BadImage):
        decode(bytes(made))


# -- the first bytes decide


@pytest.mark.parametrize("magic", [b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF\0\1\0\0WEBP"])
def test_a_jpeg_behind_the_first_bytes_of_another_format_is_refused(magic: bytes, decoders: list[str]) -> None:
    for data in (magic + JPEG, magic + JPEG[len(magic) :]):
        with pytest.raises(BadImage):
            decode(data)
    assert "decode_jpeg" not in decoders


@pytest.mark.parametrize("format", ["PPM", "ICO", "TGA", "JPEG2000", "PCX", "EPS"])
def test_another_format_is_no_image_here(format: str, decoders: list[str]) -> None:
    with pytest.raises(BadImage, match="these bytes are no image"):
        decode(encode(gradient(), format))
    assert not decoders


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"garbage", b"<html><body>404</body></html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(5000)],
)
def test_bytes_that_are_no_image_are_refused(data: bytes, decoders: list[str]) -> None:
    with pytest.raises(BadImage):
        decode(data)
    assert not decoders


def test_what_is_no_image_says_which_formats_are() -> None:
    with pytest.raises(BadImage, match=r"^these bytes are no image \(known: JPEG, PNG, WEBP, GIF, BMP, TIFF\)$"):
        decode(b"<html>")


def test_pillow_is_asked_for_the_known_formats_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = Image.open

    def watched(file: io.BytesIO, formats: Any) -> Any:
        asked.append(formats)
        return real(file, formats=formats)

    monkeypatch.setattr(Image, "open", watched)
    decode(PNG)
    assert asked == [FORMATS]
