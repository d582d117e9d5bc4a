"""Server-sent events: the stream of bytes to events."""

from __future__ import annotations

from asyncline.errors import BadRequest

Event = tuple[str, bytes]
"""Its kind, `message` where it does not say, and its data."""


class EventDecoder:
    """Takes the bytes as they come.

    :param max_nbytes: of one event.
    """

    def __init__(self, max_nbytes: int) -> None:
        self._max_nbytes = max_nbytes
        self._pieces: list[bytes] = []
        self._nbytes = 0
        self._kind = "message"
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete with `data`.

        :raises BadRequest: one is longer than `max_nbytes`.
        """
        found: list[Event] = []
        *lines, rest = data.split(b"\n")
        for line in lines:
            if self._pieces:
                line = b"".join([*self._pieces, line])
                self._pieces.clear()
            self._line(line.removesuffix(b"\r"), found)
        if rest:
            self._pieces.append(rest)
        self._nbytes = len(rest) if lines else self._nbytes + len(rest)
        if self._nbytes + sum(map(len, self._data)) > self._max_nbytes:
            raise BadRequest(f"an event is over the limit of {self._max_nbytes} bytes")
        return found

    def _line(self, line: bytes, found: list[Event]) -> None:
        if not line:
            if self._data:
                found.append((self._kind, b"\n".join(self._data)))
            self._kind, self._data = "message", []
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._kind = value.decode(errors="replace")
        # A comment has no name; others there are not.
