"""What an origin may send before its answer."""

from __future__ import annotations

from typing import Any

from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError

MOST_INTERIM = 16
"""Interim answers (1xx) before the answer."""
_PIECE_NBYTES = 4096
"""A read may hold 256 kB, ten thousand interim answers: they took the loop 190 ms, and 100 MB."""


class OneAnswer(ResponseHandler):
    """A connection of aiohttp's to an origin, which ends where interim answers do not."""

    _answered = False
    _interim = 0

    def set_response_params(self, **params: Any) -> None:
        self._answered, self._interim = False, 0
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        place = 0
        while not self._answered and len(data) - place > _PIECE_NBYTES:
            super().data_received(data[place : place + _PIECE_NBYTES])
            if self._interim > MOST_INTERIM:
                return
            place += _PIECE_NBYTES
        super().data_received(data[place:] if place else data)

    def feed_data(self, data: Any, size: int = 0) -> None:
        interim = data[0].code < 200
        self._answered = not interim
        self._interim += interim
        if self._interim <= MOST_INTERIM:
            super().feed_data(data, size)
        elif self.exception() is None:
            self.close()
            self.set_exception(HttpProcessingError(message="interim answers without end"))
