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


class Channel(deque[Item]):
    """The bounded queue of Items in front of an Op: `put` at one end, `popleft` at the other.

    Nobody waits at either end, as Runners are called when there is something for them: so it is no
    `asyncio.Queue`, whose accounts of those who do took half a microsecond of each Item at each Op.

    Items that are dead (expired, cancelled) lie here until they are taken or room is needed. The token at
    the door keeps the living at or below `size`, so `put` always finds room for one.
    """

    __slots__ = ("depth_max", "size")

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.depth_max = 0

    def put(self, item: Item) -> None:
        """Append; drops dead Items where the Channel is full.

        :raises asyncio.QueueFull: full of living Items, which admission does not let happen.
        """
        depth = len(self)
        if depth >= self.size:
            living = [waiting for waiting in self if not waiting.done]
            self.clear()
            self.extend(living)
            depth = len(self)
            if depth >= self.size:
                raise asyncio.QueueFull
        self.append(item)
        if depth >= self.depth_max:
            self.depth_max = depth + 1

    def statistics(self) -> ChannelStatistics:
        return ChannelStatistics(len(self), self.depth_max, self.size)

    def __repr__(self) -> str:
        return f"<Channel {len(self)} of {self.size}>"
