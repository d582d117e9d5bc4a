"""Images: plain functions, and Ops around them.

decode.py   bytes to a uint8 array, guarded
"""

from asyncline.images.decode import Decode, ImageLimits, decode

__all__ = ["Decode", "ImageLimits", "decode"]
