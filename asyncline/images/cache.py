"""Cache: downloads kept for a while, bounded by their bytes."""

from __future__ import annotations

from collections import OrderedDict


class Cache:
    """What was used least recently goes first. It has no clock: callers say what time it is.

    :param max_nbytes: 0 keeps nothing.
    :param kept_s: seconds after which an entry is too old.
    """

    def __init__(self, max_nbytes: int, kept_s: float) -> None:
        self.max_nbytes = max_nbytes
        self.kept_s = kept_s
        self.nbytes = 0
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    def get(self, key: str, now: float) -> bytes | None:
        """What was put under `key`, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now >= entry[0]:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def put(self, key: str, data: bytes, now: float) -> None:
        """Keep `data`, unless it is larger than the whole cache."""
        if len(data) > self.max_nbytes:
            return
        if key in self._entries:
            self._remove(key)
        self._entries[key] = now + self.kept_s, data
        self.nbytes += len(data)
        while self.nbytes > self.max_nbytes:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: str) -> None:
        self.nbytes -= len(self._entries.pop(key)[1])

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Cache {len(self)} entries, {self.nbytes} of {self.max_nbytes} bytes>"
