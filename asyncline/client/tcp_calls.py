"""Calls of a TcpConnection that wait for their answers."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, TypeVar

from asyncline.errors import BadRequest


class Call:
    """One that is answered in one piece."""

    __slots__ = ("answer", "expires_at", "timeout_s")

    def __init__(self, answer: asyncio.Future[Any], timeout_s: float | None, expires_at: float | None) -> None:
        self.answer = answer
        self.timeout_s = timeout_s
        self.expires_at = expires_at


C = TypeVar("C", bound=Call)


class PartsCall(Call):
    """One that is answered in parts; `answer` is then how many there were."""

    __slots__ = ("_news", "count", "ready")

    def __init__(self, answer: asyncio.Future[Any], timeout_s: float | None, expires_at: float | None) -> None:
        super().__init__(answer, timeout_s, expires_at)
        #: How many have come.
        self.count = 0
        #: Those that nobody has taken yet: at most as many as were asked for.
        self.ready: deque[Any] = deque()
        self._news = asyncio.Event()
        answer.add_done_callback(lambda _: self._news.set())

    def put(self, number: int, part: Any) -> None:
        """:raises BadRequest: it is not the next."""
        if number != self.count:
            raise BadRequest(f"PART {number} instead of {self.count}")
        self.count += 1
        self.ready.append(part)
        self._news.set()

    async def wait(self) -> None:
        """Until there is a part, or the end."""
        self._news.clear()
        if not self.ready and not self.answer.done():
            await self._news.wait()
