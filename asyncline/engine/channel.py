"""Channel: the bounded queue in front of an Op."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from asyncline.engine.item import Item


@dataclass(frozen=True)
class ChannelStatistics:
    depth: int
    """Items waiting now."""
    depth_max: int
    """Most Items that waited at once so far."""
    size: int


class Channel(asyncio.Queue[Item]):
    """The bounded queue of Items in front of an Op.

    Items that are dead (expired, cancelled) lie here until they are taken or room is needed. The token at
    the door keeps the living at or below `maxsize`, so `put_nowait` always finds room for one.
    """

    def _init(self, maxsize: int) -> None:
        self._queue: deque[Item] = deque()
        self.depth_max = 0

    def _put(self, item: Item) -> None:
        self._queue.append(item)
        if len(self._queue) > self.depth_max:
            self.depth_max = len(self._queue)

    def put_nowait(self, item: Item) -> None:
        """Append; drops dead Items where the Channel is full.

        :raises asyncio.QueueFull: full of living Items, which admission does not let happen.
        """
        if len(self._queue) >= self.maxsize:
            living = [waiting for waiting in self._queue if not waiting.done]
            self._queue.clear()
            self._queue.extend(living)
        super().put_nowait(item)

    def statistics(self) -> ChannelStatistics:
        return ChannelStatistics(len(self._queue), self.depth_max, self.maxsize)

    def __repr__(self) -> str:
        return f"<Channel {len(self._queue)} of {self.maxsize}>"
