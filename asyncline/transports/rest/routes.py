"""Routes: the seam for protocols that have routes of their own beside the native ones.

The transport asks its own table first, then each of them in turn whether a path is its own; who owns it answers, and
writes the errors too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from aiohttp import web

from asyncline.errors import RequestError
from asyncline.transports.rest.answer import Answer


class MethodNotAllowed(RequestError):
    """The client's: a route that exists, with another method."""

    code = "method_not_allowed"

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class Routes(ABC):
    """The routes of one protocol."""

    for_operators = False
    """Whether they are answered on connections over the limit, too."""

    @abstractmethod
    def owns(self, path: str) -> bool:
        """Whether a request for `path` is one of this protocol."""

    @abstractmethod
    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request for a path that it owns.

        :raises RequestError: what is wrong; `error` writes it.
        """

    @abstractmethod
    def error(self, error: RequestError, request_id: int | str, headers: str = "", *, close: bool = False) -> Answer:
        """An error as the protocol has it.

        :param headers: lines to add.
        """

    def close(self) -> None:  # noqa: B027  # most have no answers that go on
        """The server stops: end what would go on by itself."""
