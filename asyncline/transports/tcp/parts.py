"""PartsOut: the answer to one CALL in parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncline.engine.item import Item
from asyncline.wire.frame import messages
from asyncline.wire.frame.decoder import Buffer
from asyncline.wire.frame.values import Encoder


class PartsOut:
    """Says one PART after the other: as many as the client has asked for, and none while its connection is full.

    :param wanted: how many it has asked for with its CALL.
    :param say: takes a frame and its length.
    """

    __slots__ = ("_encoder", "_is_paused", "_item", "_said", "_say", "_stream", "_wanted")

    def __init__(self, stream: int, wanted: int, encoder: Encoder, say: Callable[[list[Buffer], int], None]) -> None:
        self._stream = stream
        self._wanted = wanted
        self._encoder = encoder
        self._say = say
        self._said = 0
        self._is_paused = False
        self._item: Item | None = None

    def begin(self, item: Item, *, is_paused: bool) -> None:
        self._item = item
        if is_paused:
            self.pause()

    def on_part(self, item: Item, part: Any) -> None:
        """:raises OpError: `part` has no msgpack form."""
        frame, nbytes = messages.encode_part(self._encoder, self._stream, self._said, part)
        self._said += 1
        if self._said >= self._wanted:
            item.hold()
        self._say(frame, nbytes)

    def more(self, count: int) -> None:
        """So many more may come."""
        self._wanted += count
        self._go_on()

    def pause(self) -> None:
        """The connection is full."""
        self._is_paused = True
        if self._item is not None:
            self._item.hold()

    def resume(self) -> None:
        self._is_paused = False
        self._go_on()

    def _go_on(self) -> None:
        if self._item is not None and not self._is_paused and self._said < self._wanted:
            self._item.go_on()
