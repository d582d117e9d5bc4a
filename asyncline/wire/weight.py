"""What decoding makes of a body.

A byte of JSON or msgpack becomes up to 72 bytes of Python objects: 1 MiB of empty maps is 72 MB. So what is longer is
weighed: JSON beforehand, by its braces, brackets, commas, colons and quotes, those inside of strings too; msgpack
while it is decoded, list by list and map by map. The figures are those of CPython 3.11, rounded up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np

from asyncline.errors import TooLarge
from asyncline.wire import heads

LEAST_NBYTES = 16 * 1024
"""What is shorter is not weighed: the requests in flight are counted anyhow."""
Array = np.ndarray[Any, Any]

_PIECE_NBYTES = 64 * 1024
_WIDE = 4
"""Times that a text becomes longer at most: with one emoji in it, each character takes 4 bytes."""

_MARKS = tuple(zip(b'{[,:"', (88, 72, 40, 40, 40), strict=True))
"""Of JSON: what each stands for, together with what else there has to be."""
_NUMBER, _STRING = 40, 64
_MAP, _ENTRY, _LIST, _ELEMENT = 64, 160, 64, 80
"""Of msgpack."""


class Scale:
    """Weighs what one request becomes.

    :param most: bytes.
    """

    __slots__ = ("most", "nbytes")

    def __init__(self, most: int) -> None:
        self.most = most
        #: So far.
        self.nbytes = 0

    def add(self, nbytes: int) -> None:
        """:raises TooLarge: that is too much."""
        self.nbytes += nbytes
        if self.nbytes > self.most:
            raise self._too_large()

    def add_json(self, text: bytes | memoryview) -> None:
        """:raises TooLarge: what JSON becomes is too much."""
        if len(text) <= LEAST_NBYTES:
            return
        data = bytes(text)
        self.add(len(data) * (1 if data.isascii() and b"\\u" not in data else _WIDE))
        octets = np.frombuffer(data, np.uint8)
        for place in range(0, octets.size, _PIECE_NBYTES):  # between two of which other threads get their turn
            piece = octets[place : place + _PIECE_NBYTES]
            self.add(sum(int(np.count_nonzero(piece == mark)) * nbytes for mark, nbytes in _MARKS))

    def add_strings(self, nbytes: int, most: int) -> None:
        """:raises TooLarge: what raw BYTES become is too much.

        :param nbytes: of all of them, each behind its length.
        :param most: so many there may be.
        """
        self.add(nbytes + _STRING * min(most, nbytes // 4))

    def add_text(self, text: bytes) -> None:
        """:raises TooLarge: what UTF-8 becomes is too much."""
        self.add(len(text) * (1 if text.isascii() else _WIDE))

    def add_array(self, array: Array) -> None:
        """:raises TooLarge: what an array of numbers becomes as lists is too much."""
        self.add(array.size * _NUMBER)

    def unpack(self, data: bytes | memoryview, hook: Callable[[int, bytes], Any]) -> Any:
        """Msgpack of a request.

        :param hook: for extensions.
        :raises TooLarge: what it becomes is too much.
        """
        heads.check(data)
        if len(data) <= LEAST_NBYTES:
            return msgpack.unpackb(data, raw=False, ext_hook=hook)
        add = self.add
        add(_LIST + _ELEMENT + len(data) * _WIDE)

        def weigh_map(found: dict[Any, Any]) -> dict[Any, Any]:
            add(_MAP + _ENTRY * len(found))
            return found

        def weigh_list(found: list[Any]) -> list[Any]:
            add(_LIST + _ELEMENT * len(found))
            return found

        # A list or a map is weighed when it is whole.
        longest, largest = self.most // _ELEMENT, self.most // _ENTRY
        try:
            return msgpack.unpackb(
                data, raw=False, ext_hook=hook, object_hook=weigh_map, list_hook=weigh_list,
                max_array_len=longest, max_map_len=largest,
            )  # fmt: skip
        except ValueError as error:
            if "exceeds max_" in str(error):
                raise self._too_large() from None
            raise

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"decoded, the lists, objects and texts are over the limit of {self.most} bytes: send tensors, or less"
        )
