"""Images: plain functions, and Ops around them.

fetch.py     a URL to bytes: the Op; bytes pass through
├── download.py   the downloads themselves; the only one that imports aiohttp, with names.py
├── url.py        a URL taken apart and judged
├── address.py    which addresses are public, and the policy
├── names.py      names to addresses, and every one judged
├── one_answer.py what an origin may send before its answer
├── flights.py    one download for all who ask for the same at once
├── slots.py      bounds per host and in all
├── limits.py     what a download may cost
└── cache.py      downloads kept for a while
header.py    what a header tells, and the limits that refuse an image by it
decode.py    bytes to a uint8 array: all of it, or a JPEG at a half, a quarter or an eighth
resize.py    to another size: exact, within, or covering and cropped
crop.py      a part of an image
encode.py    a uint8 array to JPEG, PNG or WebP
pixels.py    what these take
"""

from asyncline.images.address import UrlPolicy
from asyncline.images.crop import Crop, crop, crop_centre
from asyncline.images.decode import Decode, decode
from asyncline.images.encode import Encode, encode
from asyncline.images.fetch import Fetch
from asyncline.images.header import ImageLimits
from asyncline.images.resize import Resize, resize

__all__ = [
    "Crop",
    "Decode",
    "Encode",
    "Fetch",
    "ImageLimits",
    "Resize",
    "UrlPolicy",
    "crop",
    "crop_centre",
    "decode",
    "encode",
    "resize",
]
