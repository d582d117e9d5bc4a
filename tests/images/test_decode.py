"""Decoding: the pixels are Pillow's, and nothing but BadImage comes of bytes that are no image."""

from __future__ import annotations

import io
import sys
import threading
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from asyncline import BadImage, Engine, Graph, OpError, Request
from asyncline import Image as ImageField
from asyncline.images import Decode, ImageLimits, decode
from asyncline.images.decode import Colour, Pixels
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
    chunk,
    encode,
    gradient,
    opened,
    oriented,
    png,
    tiff,
)

COLOURS: tuple[Colour, ...] = get_args(Colour)


def expected(image: Image.Image, colour: Colour) -> Pixels:
    if colour == "GRAY":
        return np.asarray(image.convert("L"))
    rgb = np.asarray(image.convert("RGB"))
    return rgb if colour == "RGB" else rgb[:, :, ::-1]


def on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


# -- JPEG


@pytest.mark.parametrize("options", [{}, {"quality": 50, "subsampling": 0}, {"progressive": True}, {"keep_rgb": True}])
@pytest.mark.parametrize("colour", ["RGB", "BGR"])
def test_the_colours_of_a_jpeg_are_pillows(colour: Colour, options: dict[str, Any]) -> None:
    data = encode(gradient(), "JPEG", **options)
    np.testing.assert_array_equal(decode(data, colour), expected(opened(data), colour))


def test_the_gray_of_a_jpeg_is_its_luma_as_pillow_drafts_it() -> None:
    data = encode(gradient(), "JPEG")
    draft = opened(data)
    draft.draft("L", draft.size)
    np.testing.assert_array_equal(decode(data, "GRAY"), np.asarray(draft))


@pytest.mark.parametrize("colour", COLOURS)
def test_a_gray_jpeg_is_pillows(colour: Colour) -> None:
    data = encode(gradient().convert("L"), "JPEG")
    np.testing.assert_array_equal(decode(data, colour), expected(opened(data), colour))


@pytest.mark.parametrize("colour", COLOURS)
def test_a_cmyk_jpeg_is_pillows(colour: Colour) -> None:
    data = encode(gradient().convert("CMYK"), "JPEG")
    np.testing.assert_array_equal(decode(data, colour), expected(opened(data), colour))


# -- EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_is_turned_upright_as_pillow_does(format: str, orientation: int) -> None:
    data = encode(gradient(), format, exif=oriented(orientation))
    upright = ImageOps.exif_transpose(opened(data))
    for colour in ("RGB", "BGR"):
        np.testing.assert_array_equal(decode(data, colour), expected(upright, colour))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_cmyk_jpeg_is_turned_upright(orientation: int) -> None:
    data = encode(gradient().convert("CMYK"), "JPEG", exif=oriented(orientation))
    np.testing.assert_array_equal(decode(data), expected(ImageOps.exif_transpose(opened(data)), "RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_gray_image_is_turned_upright(orientation: int) -> None:
    data = encode(gradient().convert("L"), "JPEG", exif=oriented(orientation))
    np.testing.assert_array_equal(decode(data, "GRAY"), np.asarray(ImageOps.exif_transpose(opened(data))))


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_is_none_leaves_the_image_as_it_is(orientation: int) -> None:
    data = encode(gradient(), "JPEG", exif=oriented(orientation))
    np.testing.assert_array_equal(decode(data), expected(opened(data), "RGB"))


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_damaged_exif_does_not_spoil_the_image(format: str, exif: bytes) -> None:
    data = encode(gradient(), format, exif=exif)
    assert decode(data).shape == (HEIGHT, WIDTH, 3)


def test_the_exif_of_a_png_may_stand_behind_its_pixels() -> None:
    end = chunk(b"IEND", b"")
    data = encode(gradient(), "PNG")[: -len(end)] + chunk(b"eXIf", oriented(6).tobytes()[6:]) + end
    np.testing.assert_array_equal(decode(data), decode(PNG))


# -- other formats


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_a_png_without_transparency_is_pillows(mode: str, colour: Colour) -> None:
    data = encode(gradient().convert(mode), "PNG")
    np.testing.assert_array_equal(decode(data, colour), expected(opened(data).convert("RGB"), colour))


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_lies_on_white(mode: str, colour: Colour) -> None:
    image = gradient().convert(mode)
    image.putalpha(Image.fromarray(np.mgrid[:HEIGHT, :WIDTH][1].astype(np.uint8) * 6))
    data = encode(image, "PNG")
    np.testing.assert_array_equal(decode(data, colour), expected(on_white(image), colour))
    assert decode(data, "RGB")[0, 0].tolist() == [255, 255, 255]


def test_a_palette_with_transparency_lies_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    assert decode(encode(image, "PNG", transparency=0)).tolist() == [[[255, 255, 255], [0, 0, 255]]]
    assert decode(encode(image, "PNG", transparency=b"\x80\xff")).tolist() == [[[255, 127, 127], [0, 0, 255]]]


@pytest.mark.parametrize(("mode", "pixels", "key"), [("RGB", [(9, 9, 9), (5, 6, 7)], (9, 9, 9)), ("L", [9, 5], 9)])
def test_a_transparent_colour_lies_on_white(mode: str, pixels: list[Any], key: Any) -> None:
    image = Image.new(mode, (2, 1))
    image.putdata(pixels)
    shown = decode(encode(image, "PNG", transparency=key))
    assert shown[0, 0].tolist() == [255, 255, 255]
    assert shown[0, 1].tolist() == list(image.convert("RGB").getpixel((1, 0)))


@pytest.mark.parametrize("colour", COLOURS)
def test_of_sixteen_bits_the_upper_eight_stay(colour: Colour) -> None:
    eight = np.asarray(gradient().convert("L"))
    data = encode(Image.fromarray(eight.astype(np.uint16) * 256 + 17), "PNG")
    assert opened(data).mode.startswith("I")
    np.testing.assert_array_equal(decode(data, colour), expected(Image.fromarray(eight), colour))


@pytest.mark.parametrize(("colours", "channels"), [(0, 1), (2, 3), (6, 4)])
def test_of_sixteen_bits_a_channel_the_upper_eight_stay(colours: int, channels: int) -> None:
    samples = np.random.default_rng(0).integers(0, 1 << 16, (5, 7, channels)).astype(">u2")
    if channels == 4:
        samples[..., 3] = 0xFFFF
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    upper = np.broadcast_to((samples >> 8)[..., :3], (5, 7, 3))
    np.testing.assert_array_equal(decode(png(7, 5, 16, colours, rows)), upper)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize(("format", "options"), [("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}),
                                                 ("WEBP", {"lossless": True}), ("WEBP", {"quality": 60})])  # fmt: skip
def test_other_formats_are_pillows(format: str, options: dict[str, Any], colour: Colour) -> None:
    data = encode(gradient(), format, **options)
    np.testing.assert_array_equal(decode(data, colour), expected(opened(data), colour))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_shown(format: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert opened(data).n_frames == 2
    assert (decode(data) == [255, 0, 0]).all()


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("source", [JPEG, PROGRESSIVE, CMYK, PNG, TIFF, WEBP, GIF, BMP], ids=len)
def test_a_result_is_contiguous_bytes_to_be_written_to(source: bytes, colour: Colour) -> None:
    pixels = decode(source, colour)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous and pixels.flags.writeable
    assert pixels.ndim == (2 if colour == "GRAY" else 3)
    assert pixels.shape[2:] in ((), (3,))


# -- what is no whole image


SOURCES = {
    "jpeg": JPEG, "cmyk": CMYK, "progressive": PROGRESSIVE, "png": PNG, "tiff": TIFF, "webp": WEBP, "gif": GIF,
    "bmp": BMP, "tiff jpeg": tiff(WIDTH, HEIGHT, [JPEG]),
}  # fmt: skip


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("source", SOURCES)
def test_a_truncated_image_is_refused(source: str, kept: float) -> None:
    data = SOURCES[source]
    with pytest.raises(BadImage):
        decode(data[: int(len(data) * kept)])


def test_a_jpeg_that_lacks_its_last_byte_is_refused() -> None:
    with pytest.raises(BadImage, match="the JPEG is damaged: Premature end"):
        decode(JPEG[:-1])


def test_a_png_that_lacks_only_its_end_has_all_its_pixels() -> None:
    np.testing.assert_array_equal(decode(PNG[:-12]), decode(PNG))


@pytest.mark.parametrize("size", [(WIDTH - 1, HEIGHT), (WIDTH + 1, HEIGHT), (HEIGHT, WIDTH)])
def test_a_jpeg_that_has_another_size_for_another_decoder_is_refused(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both decoders read the header by themselves; what one of them finds must not get past the other's limits.
    real = Image.open

    def lying(file: io.BytesIO, formats: Any) -> Image.Image:
        image = real(file, formats=formats)
        image._size = size
        return image

    monkeypatch.setattr(Image, "open", lying)
    with pytest.raises(BadImage, match="the JPEG is damaged"):
        decode(JPEG)


# -- what is an image, and something else as well


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("index.html", "<script>alert(1)</script>")
    return out.getvalue()


@pytest.mark.parametrize("behind", [zipped(), b"<script>alert(1)</script>", b"#!/bin/sh\n", PNG, JPEG, bytes(100_000)])
@pytest.mark.parametrize("source", [name for name in SOURCES if name != "tiff jpeg"])
def test_what_stands_behind_an_image_is_not_looked_at(source: str, behind: bytes) -> None:
    data = SOURCES[source]
    np.testing.assert_array_equal(decode(data + behind), decode(data))


def test_a_gif_that_is_a_script_too_is_pixels_only() -> None:
    # GIF89a/*...*/=1;alert(1): the sign of a comment is read as the width of its screen.
    width = int.from_bytes(b"/*", "little")
    assert width == 10_799
    data = GIF[:6] + b"/*" + GIF[8:] + b"*/=1;alert(1)"
    pixels = decode(data)
    assert pixels.shape == (HEIGHT, width, 3)
    np.testing.assert_array_equal(pixels[:, :WIDTH], decode(GIF))


def test_a_jpeg_that_holds_a_script_is_pixels_only() -> None:
    plain = encode(gradient(), "JPEG")
    script = encode(gradient(), "JPEG", comment=b"*/=alert(1);/*")
    np.testing.assert_array_equal(decode(script), decode(plain))


# -- nothing else escapes


PLACES = st.floats(0, 1, exclude_max=True)
EDITS = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "insert"]), PLACES, st.binary(min_size=1, max_size=4)),
    min_size=1,
    max_size=8,
)


def edited(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    changed = bytearray(data)
    for what, where, new in edits:
        place = int(where * len(changed))
        if what == "set":
            changed[place : place + len(new)] = new
        elif what == "cut":
            del changed[place : place + len(new) * 4]
        else:
            changed[place:place] = new
    return bytes(changed)


@pytest.mark.parametrize("source", SOURCES)
@settings(max_examples=150, deadline=None)
@given(edits=EDITS, at_least=st.none() | st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_a_damaged_image_is_decoded_or_refused_and_never_warns(
    source: str, edits: list[tuple[str, float, bytes]], at_least: tuple[int, int] | None
) -> None:
    try:
        pixels = decode(edited(SOURCES[source], edits), at_least=at_least)
    except BadImage as error:
        assert error.message
    else:
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous


@settings(deadline=None)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBP"]),
    st.binary(),
)
def test_any_bytes_behind_a_signature_are_refused(signature: bytes, rest: bytes) -> None:
    with pytest.raises(BadImage):
        decode(signature + rest)


@pytest.fixture
def threads_take_turns_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("threads_take_turns_often")
def test_threads_that_decode_leave_the_filters_of_warnings_alone() -> None:
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [decode(JPEG) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


@pytest.mark.parametrize("source", ["tiff", "tiff jpeg"])
def test_while_a_tiff_is_decoded_others_are_too(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[threading.Thread] = []
    real = Image._getdecoder

    def watched(*args: Any) -> Any:
        if not others:
            others.append(threading.Thread(target=decode, args=(TIFF,), daemon=True))
            others[0].start()
            others[0].join(10)
        return real(*args)

    monkeypatch.setattr(Image, "_getdecoder", watched)
    decode(SOURCES[source])
    assert not others[0].is_alive()


# -- the Op


def test_the_op_decodes_as_the_function_does() -> None:
    request = Request(image=ImageField())
    op = Decode(request.image, colour="BGR", name="page", limits=ImageLimits(side=100))
    assert Graph("g", op)["page"].settings.cpu == "thread"
    np.testing.assert_array_equal(op.preprocess(JPEG), decode(JPEG, "BGR"))
    with pytest.raises(BadImage, match="over the limit of 100 a side"):
        op.preprocess(png(101, 1))


def test_a_subclass_may_put_another_ground_behind_a_transparent_image() -> None:
    class OnBlack(Decode):
        def flatten(self, image: Image.Image) -> Pixels:
            return np.asarray(image.convert("RGBa").convert("RGB")) * 0

    transparent = encode(Image.new("RGBA", (2, 2), (255, 255, 255, 0)), "PNG")
    assert not OnBlack(Request()).preprocess(transparent).any()
    assert OnBlack(Request()).preprocess(JPEG).any()


def test_an_error_in_a_ground_of_ones_own_is_not_the_clients() -> None:
    class Broken(Decode):
        def flatten(self, image: Image.Image) -> Pixels:
            raise ValueError("the author's")

    with pytest.raises(ValueError, match="the author's"):
        Broken(Request()).preprocess(encode(Image.new("RGBA", (2, 2)), "PNG"))


# -- what is no bytes


def test_a_url_that_was_not_fetched_is_told_the_cure() -> None:
    with pytest.raises(ValueError, match=r"got a str: .* a Fetch comes first: Decode\(Fetch\(request\.image\)\)$"):
        decode("https://example.com/image.jpg")  # type: ignore[arg-type]


async def test_a_graph_that_forgot_to_fetch_says_so() -> None:
    async with Engine(Graph("g", Decode(Request(image=ImageField(url=True)).image))) as engine:
        with pytest.raises(OpError, match=r"^op 'decode' preprocess: ValueError: .* a Fetch comes first"):
            await engine.submit({"image": "https://example.com/image.jpg"})


@pytest.mark.parametrize("data", [None, 7, [JPEG], np.zeros(9, np.uint8), memoryview(JPEG)])
def test_what_is_no_bytes_is_the_callers_fault(data: Any) -> None:
    with pytest.raises(ValueError, match=f"expected the bytes of an image, got {type(data).__name__}$"):
        decode(data)


def test_a_bytearray_will_do() -> None:
    for data in (JPEG, PNG):
        np.testing.assert_array_equal(decode(bytearray(data)), decode(data))


def test_a_colour_that_is_none_is_told() -> None:
    with pytest.raises(ValueError, match="colour='rgb': use one of RGB, BGR, GRAY"):
        decode(JPEG, "rgb")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="colour='RGBA'"):
        Decode(Request(), colour="RGBA")  # type: ignore[arg-type]
