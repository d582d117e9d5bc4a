"""Decoding: the pixels are Pillow's, and nothing but BadImage comes of bytes that are no image."""

from __future__ import annotations

import io
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from asyncline import BadImage, Graph, Request
from asyncline import Image as ImageField
from asyncline.images import Decode, ImageLimits, decode
from asyncline.images.decode import Colour, Pixels

WIDTH, HEIGHT = 37, 23  # odd, so that blocks and subsampled chroma have edges
COLOURS: tuple[Colour, ...] = get_args(Colour)
ORIENTATION = 0x0112


def gradient() -> Image.Image:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([x * 6, y * 11, (x * y) % 256], axis=-1).astype(np.uint8))


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def expected(image: Image.Image, colour: Colour) -> Pixels:
    if colour == "GRAY":
        return np.asarray(image.convert("L"))
    rgb = np.asarray(image.convert("RGB"))
    return rgb if colour == "RGB" else rgb[:, :, ::-1]


def oriented(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return exif


def on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and holds nothing."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"IEND"
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 0) + end + struct.pack(">I", zlib.crc32(end))
    )  # fmt: skip


def jpeg_header(width: int, height: int) -> bytes:
    """A small JPEG that says it is as large as that."""
    data = bytearray(encode(gradient(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


JPEG = encode(gradient(), "JPEG", exif=oriented(6))
PNG = encode(gradient(), "PNG", exif=oriented(6))
CMYK = encode(gradient().convert("CMYK"), "JPEG", exif=oriented(6))
PROGRESSIVE = encode(gradient(), "JPEG", progressive=True)
TIFF = encode(gradient(), "TIFF", exif=oriented(6))
WEBP = encode(gradient(), "WEBP", exif=oriented(6))
GIF = encode(gradient(), "GIF")


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


@pytest.mark.parametrize("format", ["PPM", "ICO", "TGA", "JPEG2000"])
def test_another_format_is_no_image_here(format: str) -> None:
    with pytest.raises(BadImage, match="these bytes are no image"):
        decode(encode(gradient(), format))


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("source", [JPEG, PROGRESSIVE, CMYK, PNG, TIFF, WEBP, GIF], ids=len)
def test_a_result_is_contiguous_bytes(source: bytes, colour: Colour) -> None:
    pixels = decode(source, colour)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.ndim == (2 if colour == "GRAY" else 3)
    assert pixels.shape[2:] in ((), (3,))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_one_pixel_is_an_image(format: str) -> None:
    assert decode(encode(Image.new("RGB", (1, 1)), format)).shape == (1, 1, 3)


# -- what is no image


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"garbage", b"<html><body>404</body></html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(5000)],
)
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    with pytest.raises(BadImage):
        decode(data)


def test_what_is_no_image_says_which_formats_are() -> None:
    with pytest.raises(BadImage, match=r"^these bytes are no image \(known: JPEG, PNG, WEBP, GIF, BMP, TIFF\)$"):
        decode(b"<html>")


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("data", [JPEG, CMYK, PROGRESSIVE, PNG], ids=["jpeg", "cmyk", "progressive", "png"])
def test_a_truncated_image_is_refused(data: bytes, kept: float) -> None:
    with pytest.raises(BadImage):
        decode(data[: int(len(data) * kept)])


def test_a_jpeg_that_lacks_its_last_byte_is_refused() -> None:
    with pytest.raises(BadImage, match="the JPEG is damaged: Premature end"):
        decode(JPEG[:-1])


def test_a_png_that_lacks_only_its_end_has_all_its_pixels() -> None:
    np.testing.assert_array_equal(decode(PNG[:-12]), decode(PNG))


# -- limits


@pytest.mark.parametrize("header", [png_header, jpeg_header])
@pytest.mark.parametrize(
    ("width", "height", "over"), [(16_385, 1, "16384 a side"), (1, 16_385, "16384 a side"), (6000, 6000, "33500000")]
)
def test_a_huge_image_is_refused_by_its_header(header: Any, width: int, height: int, over: str) -> None:
    with pytest.raises(BadImage, match=rf"^an image of {width} x {height} pixels is over the limit of {over}$"):
        decode(header(width, height))


@pytest.mark.parametrize(
    "data", [png_header(2**31 - 1, 2**31 - 1), png_header(60_000, 60_000), jpeg_header(65_500, 65_500)]
)
def test_an_image_that_pillow_itself_calls_a_bomb_is_refused(data: bytes) -> None:
    with pytest.raises(BadImage):
        decode(data, limits=ImageLimits(pixels=10**12, side=10**7))


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(BadImage):
        decode(jpeg_header(0, 5))
    with pytest.raises(BadImage, match="the image has no pixels"):
        ImageLimits().check(0, 5)


def test_limits_may_be_tightened() -> None:
    size = WIDTH * HEIGHT
    data = encode(gradient(), "PNG")
    assert decode(data, limits=ImageLimits(pixels=size)).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(BadImage, match=f"over the limit of {size - 1}$"):
        decode(data, limits=ImageLimits(pixels=size - 1))
    with pytest.raises(BadImage, match=f"over the limit of {WIDTH - 1} a side$"):
        decode(data, limits=ImageLimits(side=WIDTH - 1))


def test_a_limit_holds_for_the_image_as_it_is_stored() -> None:
    with pytest.raises(BadImage, match=f"{WIDTH} x {HEIGHT}"):
        decode(JPEG, limits=ImageLimits(side=30))


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    start = PROGRESSIVE.rindex(b"\xff\xda")
    extra = count - PROGRESSIVE.count(b"\xff\xda")
    return PROGRESSIVE[:-2] + PROGRESSIVE[start:-2] * extra + PROGRESSIVE[-2:]


@pytest.mark.parametrize("scans", [65, 1000, 80_000])
def test_a_jpeg_of_too_many_scans_is_refused(scans: int) -> None:
    with pytest.raises(BadImage, match="a JPEG of more than 64 scans is refused"):
        decode(with_scans(scans))


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
    metadata = b"\xff\xed" + struct.pack(">H", 2 + 400) + b"\xff\xda" * 200
    assert decode(JPEG[:2] + metadata + JPEG[2:]).shape == (WIDTH, HEIGHT, 3)


def test_a_film_behind_a_photo_holds_no_scans() -> None:
    # Phones put a film of some MB behind a photo, where the two bytes come by chance once in 65,536.
    film = np.random.default_rng(0).integers(0, 256, 8_000_000, np.uint8).tobytes()
    assert film.count(b"\xff\xda") > 64
    np.testing.assert_array_equal(decode(JPEG + film), decode(JPEG))


def test_a_jpeg_of_countless_segments_is_refused_soon() -> None:
    comments = b"\xff\xfe\0\x02" * 100_000
    with pytest.raises(BadImage):
        decode(with_scans(64)[:-2] + comments + b"\xff\xda" * 65)


# -- nothing else escapes


PLACES = st.floats(0, 1, exclude_max=True)
EDITS = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "insert"]), PLACES, st.binary(min_size=1, max_size=4)),
    min_size=1,
    max_size=8,
)
SOURCES = {"jpeg": JPEG, "cmyk": CMYK, "progressive": PROGRESSIVE, "png": PNG, "tiff": TIFF, "webp": WEBP, "gif": GIF}


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
@given(edits=EDITS)
def test_a_damaged_image_is_decoded_or_refused_and_never_warns(
    source: str, edits: list[tuple[str, float, bytes]]
) -> None:
    try:
        pixels = decode(edited(SOURCES[source], edits))
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


# -- the Op


def test_the_op_decodes_as_the_function_does() -> None:
    request = Request(image=ImageField())
    op = Decode(request.image, colour="BGR", name="page", limits=ImageLimits(side=100))
    assert Graph("g", op)["page"].settings.cpu == "thread"
    np.testing.assert_array_equal(op.preprocess(JPEG), decode(JPEG, "BGR"))
    with pytest.raises(BadImage, match="over the limit of 100 a side"):
        op.preprocess(png_header(101, 1))


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
