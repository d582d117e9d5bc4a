"""Stream: the parts of one answer, for a caller in this process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncline.engine.engine import Engine
    from asyncline.engine.item import Item

AHEAD = 8
"""Most parts that lie ready for a caller who does not take them yet."""


async def stream(engine: Engine, payload: Any, timeout_s: float | None, log_id: str) -> AsyncGenerator[Any, None]:
    """The parts of the answer to one request; closing it cancels the request."""
    ready: deque[Any] = deque()
    news = asyncio.Event()

    def on_part(item: Item, part: Any) -> None:
        ready.append(part)
        if len(ready) >= AHEAD:
            item.hold()
        news.set()

    item = engine.begin(payload, timeout_s=timeout_s, log_id=log_id, on_part=on_part, on_done=lambda item: news.set())
    try:
        while True:
            while ready:
                part = ready.popleft()
                item.go_on()
                yield part
            if item.done:
                break
            news.clear()
            await news.wait()
        item.result()
    finally:
        item.cancel()
        del item, payload  # an error knows this frame: see `Item.result`
