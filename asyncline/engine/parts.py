"""Parts: an answer that goes out piece by piece, and the generator that makes the pieces.

generator → deliver_part → Response.pack → Item.put → on_part(item, part), or a list of bounded length
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

from asyncline.errors import TooLarge
from asyncline.graph.outcomes import Reply

if TYPE_CHECKING:
    from asyncline.engine.item import Item
    from asyncline.engine.lanes.base import Job

log = logging.getLogger("asyncline.engine")

MOST_PARTS = 65_536
"""Most parts of an answer that is wanted in one piece; one that is taken part by part has no end."""
BURST = 16
"""Most parts in one turn of the loop: a generator need not ever wait for anything."""
CLOSE_S = 5.0
"""Longest time that a generator has for its `finally`."""

OnPart = Callable[["Item", Any], None]


class Parts:
    """How far one Item's answer is out.

    :param on_part: called with every part, on the loop; what it raises fails the Item. None: the parts are `kept`.
    """

    __slots__ = ("_gate", "count", "first_s", "is_held", "kept", "on_part")

    def __init__(self, on_part: OnPart | None) -> None:
        self.on_part = on_part
        self.kept: list[Any] | None = [] if on_part is None else None
        self.count = 0
        #: Seconds from admission to the first part; 0 before.
        self.first_s = 0.0
        self.is_held = False
        self._gate: asyncio.Future[None] | None = None

    def put(self, item: Item, part: Any) -> None:
        """:raises TooLarge: there are too many to be kept."""
        if not self.count:
            self.first_s = item.engine.clock() - item.started_at
        self.count += 1
        if self.on_part is not None:
            self.on_part(item, part)
        elif self.kept is not None:
            if self.count > MOST_PARTS:
                raise TooLarge(f"the answer has more than {MOST_PARTS} parts: ask for it as a stream")
            self.kept.append(part)

    def hold(self) -> None:
        self.is_held = True

    def go_on(self) -> None:
        self.is_held = False
        gate, self._gate = self._gate, None
        if gate is not None and not gate.done():
            gate.set_result(None)

    async def wait(self) -> None:
        """Until the next part is wanted."""
        while self.is_held:
            self._gate = asyncio.get_running_loop().create_future()
            await self._gate

    def __repr__(self) -> str:
        return f"<Parts: {self.count}{', held' if self.is_held else ''}>"


async def run_stream(job: Job) -> None:
    """Hand out what the hook of `job` yields, each part as soon as the one before it is out and more are wanted.

    A Reply among the parts is the last. However it ends, the generator is closed.
    """
    item, parts = job.item, job.item.parts
    assert parts is not None, "the Item of a graph that streams has parts"
    generator = getattr(job.node.op, job.hook)(*job.args)
    try:
        async for part in generator:
            if type(part) is Reply:
                job.value = part
                break
            item.engine.deliver_part(item, job.node, part)
            if item.done:
                break
            if parts.is_held:
                await parts.wait()
            elif not parts.count % BURST:
                await asyncio.sleep(0)
    except Exception:
        if item.done:  # nobody hears of it any more
            _log(job)
        raise
    finally:
        await _close(generator, job)


async def _close(generator: AsyncGenerator[Any, None], job: Job) -> None:
    try:
        async with asyncio.timeout(CLOSE_S):
            await generator.aclose()
    except Exception:  # the outcome of the Item is another
        _log(job)


def _log(job: Job) -> None:
    log.warning(
        "op %r %s: its generator raised when it was closed; request %d %r",
        job.node.name, job.hook, job.item.data_id, job.item.log_id, exc_info=True,
    )  # fmt: skip
