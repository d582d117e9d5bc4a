"""What the header of an encoded image tells, and what is refused by it, before anything is decoded.

Format, sides, pixels, and the number of scans of a progressive JPEG, each of which costs a pass over the whole image.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from asyncline.errors import BadImage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
JPEG = b"\xff\xd8\xff"
_START_OF_SCAN, _END = b"\xff\xda", b"\xff\xd9"
# Those with a segment. In the data of a scan 0xFF is followed by 0, a restart marker, or itself as padding.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
_MOST_SEGMENTS = 4096
_MOST_LOOSE_BYTES = 65_536
"""Between the segments before the first scan. Pillow goes through segments and loose bytes in Python: 10 MB of
them took 2.7 s, with the GIL held. 16 MB of metadata in large segments take 30 ms."""
_ORIENTATION = 0x0112
_PIECES = ((273, 279), (324, 325))
"""Tags of a TIFF: where its strips and its tiles begin, and their bytes."""
_filters = threading.Lock()


@dataclass(frozen=True)
class ImageLimits:
    """What an image may be before it is refused."""

    pixels: int = 33_500_000
    side: int = 16_384
    scans: int = 64
    """Scans of a progressive JPEG, also of one in a TIFF; an ordinary one has about ten."""

    def check(self, width: int, height: int) -> None:
        """:raises BadImage: the image has too many pixels, or none."""
        if width < 1 or height < 1:
            raise BadImage("the image has no pixels")
        if max(width, height) > self.side:
            raise BadImage(f"an image of {width} x {height} pixels is over the limit of {self.side} a side")
        if width * height > self.pixels:
            raise BadImage(f"an image of {width} x {height} pixels is over the limit of {self.pixels}")


LIMITS = ImageLimits()


def open_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """The image, with its header read and its pixels not.

    :raises BadImage: no image, of another format, or over `limits`.
    """
    if data.startswith(JPEG):
        _check_segments(data, limits.scans)
    try:
        with _no_warnings():
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImage(f"these bytes are no image (known: {', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise BadImage("the image has too many pixels") from None
    except Exception as error:  # a damaged header makes Pillow raise nearly anything
        raise BadImage(f"the image's header is damaged: {type(error).__name__}") from None
    limits.check(*image.size)
    if isinstance(image, TiffImageFile):
        image.__class__ = _QuietTiff
        if image.info.get("compression") == "jpeg":
            _check_pieces(data, image, limits.scans)
    return image


def orientation(image: Image.Image) -> int:
    """EXIF's, 1 to 8 (CIPA DC-008, tag 0x0112); 1, which is upright, where the EXIF is damaged."""
    try:
        with _no_warnings():
            found = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1
    return found if 1 <= found <= 8 else 1


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Silence Pillow about sizes, which `ImageLimits` judges, and odd metadata.

    The filters belong to the whole process, hence the lock: threads that leave in another order than they
    came in would leave them changed. What runs inside is Python, which has the GIL anyway; pixels are decoded outside.
    """
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _QuietTiff(TiffImageFile):
    """Some metadata of a TIFF are read only before and after its pixels."""

    def load_prepare(self) -> None:
        with _no_warnings():
            super().load_prepare()

    def load_end(self) -> None:
        with _no_warnings():
            super().load_end()


def _check_segments(data: bytes, most_scans: int) -> None:
    """Go through the segments of a JPEG, as far as there can be anything to refuse."""
    # Those bytes also occur by chance in metadata, and behind the image, where phones put a film.
    few_scans = np.count_nonzero(_starts_of_scans(data)) <= most_scans
    scans = loose_bytes = 0
    end = 2
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(data, end)
        if found is None or found[0] == _END:
            return
        if not scans:
            loose_bytes += found.start() - end
        scans += found[0] == _START_OF_SCAN
        if scans > most_scans:
            raise BadImage(f"a JPEG of more than {most_scans} scans is refused")
        if scans and few_scans:
            return
        if loose_bytes > _MOST_LOOSE_BYTES:
            break
        end = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    raise BadImage(f"a JPEG of more than {_MOST_SEGMENTS} segments, or with bytes between them, is refused")


def _check_pieces(data: bytes, image: TiffImageFile, most_scans: int) -> None:
    """Count the scans of each strip or tile of a TIFF, which is a JPEG of its own.

    Such a JPEG has no metadata in which those bytes could occur by chance. The pieces may overlap: a file of 10 MB
    may claim to hold 16,384 times 10 MB. So it is gone through once.
    """
    scans = np.flatnonzero(_starts_of_scans(data))
    if len(scans) <= most_scans:
        return
    for where, length in _PIECES:
        begins, given = (_tag(image, number).clip(0, len(data)) for number in (where, length))
        nbytes = np.zeros_like(begins)
        nbytes[: len(given)] = given[: len(begins)]
        # Without a length, a piece may reach to the end; one that begins at 0 is left out of the file.
        ends = np.where(nbytes > 0, begins + nbytes, len(data))
        found = np.searchsorted(scans, ends) - np.searchsorted(scans, begins)
        if np.any(found[begins > 0] > most_scans):
            raise BadImage(f"a TIFF with a JPEG of more than {most_scans} scans is refused")


def _starts_of_scans(data: bytes) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether those bytes stand at a place. `bytes.count` takes ten times as long, with the GIL."""
    octets = np.frombuffer(data, np.uint8)
    found: np.ndarray[Any, np.dtype[np.bool_]] = (octets[:-1] == _START_OF_SCAN[0]) & (octets[1:] == _START_OF_SCAN[1])
    return found


def _tag(image: TiffImageFile, number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The whole numbers of a TIFF's tag."""
    try:
        with _no_warnings():
            return np.array(image.tag_v2.get(number, ()), np.int64).reshape(-1)
    except Exception:  # they are taken apart only here
        raise BadImage("the image's header is damaged: it does not tell where its parts are") from None
