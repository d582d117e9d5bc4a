"""Times: how long Items took, at each Op and in all."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import chain, count, islice
from typing import TYPE_CHECKING

import numpy as np

from asyncline.engine.item import TOTAL, Item

if TYPE_CHECKING:
    from asyncline.engine.engine import Engine

PAGE = 64
"""Lists that are made together: more where more Items are in flight."""
MOST_NUMBERS = 8192
"""As soon as there are so many they are handed to observers, as 64 kB."""
MOST_NOTED = 128
"""Items of which there is more to tell, likewise: that may be some kB of each."""

_NOT_YET = -1.0
"""In place of the total of an Item that has no outcome."""


class Times:
    """Makes the lists that Items write their times into, and hands numbers of those that have ended to observers.

    Each list stays here until its Item has ended and the next page is made. So an Item that ends does nothing for those
    who watch: to append to a list and look at its length takes 25 ns in a loop, but half a microsecond of a request of
    a busy server. What is done for a page at once is done as in a loop.

    :param size: of a list: see `Item.times`.
    """

    def __init__(self, engine: Engine, size: int) -> None:
        self._engine = engine
        self._size = size
        #: A data_id for the answer to what becomes no Item.
        self.ids = count(1)
        #: The next list, in which only the data_id is set.
        self.lists: Iterator[list[float]] = chain.from_iterable(iter(self._next_page, []))
        #: Lists of Items that are in flight, or were not long ago, or are still to come.
        self._open: list[list[float]] = []
        self._ended = array("d")
        self._noted = 0

    def _next_page(self) -> list[list[float]]:
        self._sort()
        # Those in flight are gone through for each page: for each Item of it, that is one at most.
        ids = islice(self.ids, max(PAGE, len(self._open)))
        zeros = [0.0] * (self._size - 3)
        page = [[*zeros, _NOT_YET, 0.0, data_id] for data_id in ids]
        self._open += page
        return page

    def _sort(self) -> None:
        """Turn the times of Items that have ended into numbers, if somebody watches."""
        is_watched = bool(self._engine.hooks.items_done)
        lists, self._open = self._open, []
        for times in lists:
            if times[TOTAL] < 0:
                self._open.append(times)
            elif is_watched:
                self._ended.fromlist(times)
                if len(self._ended) >= MOST_NUMBERS:
                    self._emit()

    def note(self, item: Item) -> None:
        """There is more to tell of an Item that ends just now, with these times."""
        hooks = self._engine.hooks
        if hooks.items_done:
            self._noted += 1
            hooks.emit(hooks.item_noted, item)
            if self._noted >= MOST_NOTED:
                self.hand_over()

    def hand_over(self) -> None:
        """Let observers have the times of all Items that have ended."""
        self._noted = 0
        self._sort()
        self._emit()

    def _emit(self) -> None:
        if self._ended:
            ended, self._ended = self._ended, array("d")
            hooks = self._engine.hooks
            hooks.emit(hooks.items_done, np.frombuffer(ended).reshape(-1, self._size))
