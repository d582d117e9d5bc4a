"""Encoded images for tests, good and bad."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 37, 23  # odd, so that blocks and subsampled chroma have edges
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


def oriented(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return exif


JPEG = encode(gradient(), "JPEG", exif=oriented(6))
PNG = encode(gradient(), "PNG", exif=oriented(6))
CMYK = encode(gradient().convert("CMYK"), "JPEG", exif=oriented(6))
PROGRESSIVE = encode(gradient(), "JPEG", progressive=True)
TIFF = encode(gradient(), "TIFF", exif=oriented(6))
WEBP = encode(gradient(), "WEBP", exif=oriented(6))
GIF = encode(gradient(), "GIF")
BMP = encode(gradient(), "BMP")


# -- JPEG, piece by piece


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def behind_the_start(data: bytes, segments: bytes) -> bytes:
    """A JPEG with more `segments`."""
    return data[:2] + segments + data[2:]


def with_scans(count: int, data: bytes = PROGRESSIVE) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    start = data.rindex(b"\xff\xda")
    extra = count - data.count(b"\xff\xda")
    return data[:-2] + data[start:-2] * extra + data[-2:]


# -- headers that say how large an image is, with little or nothing behind them


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int = 8, colours: int = 2, rows: bytes = b"") -> bytes:
    """A PNG by its parts.

    :param colours: 0 gray, 2 RGB, 6 RGBA.
    :param rows: each a byte for its filter, then its samples.
    """
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(rows)) if rows else b""
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def jpeg_header(width: int, height: int) -> bytes:
    data = bytearray(encode(gradient(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def gif_header(width: int, height: int) -> bytes:
    return GIF[:6] + struct.pack("<HH", width, height) + GIF[10:]


def gif_frame(width: int, height: int) -> bytes:
    """Its screen is small, its frame is not."""
    frame = 13 + 3 * 2 ** ((GIF[10] & 7) + 1)
    assert GIF[frame : frame + 1] == b","
    return GIF[: frame + 5] + struct.pack("<HH", width, height) + GIF[frame + 9 :]


def bmp_header(width: int, height: int) -> bytes:
    return BMP[:18] + struct.pack("<ii", width, height) + BMP[26:]


def webp_header(width: int, height: int) -> bytes:
    data = encode(gradient(), "WEBP")
    size = data.index(b"\x9d\x01\x2a") + 3
    return data[:size] + struct.pack("<HH", width, height) + data[size + 4 :]


def tiff(
    width: int, height: int, strips: list[bytes], compression: int = 7, *, lengths: list[int] | None = None,
    overlapping: int = 0,
) -> bytes:  # fmt: skip
    """A TIFF of YCbCr strips, compressed by JPEG (7), LZW (5) or nothing (1).

    :param lengths: what it says their lengths are; none at all where empty.
    :param overlapping: this many bytes before each strip are part of it, too.
    """
    begins, body = [], bytearray(b"II*\0\0\0\0\0")
    for strip in strips:
        begins.append(len(body) - overlapping * bool(len(body) > 8))
        body += strip + bytes(len(strip) % 2)
    if lengths is None:
        lengths = [len(strip) + overlapping * bool(number) for number, strip in enumerate(strips)]
    tags = {
        256: (width,), 257: (height,), 258: (8, 8, 8), 259: (compression,), 262: (6,), 273: begins, 277: (3,),
        278: (-(-height // len(strips)),), 279: lengths,
    }  # fmt: skip
    tags = {number: values for number, values in tags.items() if values}
    entries, at = b"", len(body) + 2 + 12 * len(tags) + 4
    values_behind = b""
    for number, values in tags.items():
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            packed, values_behind = struct.pack("<I", at + len(values_behind)), values_behind + packed
        entries += struct.pack("<HHI", number, 4, len(values)) + packed
    body[4:8] = struct.pack("<I", len(body))
    return bytes(body) + struct.pack("<H", len(tags)) + entries + bytes(4) + values_behind
