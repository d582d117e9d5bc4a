"""A Downloader for tests, and names for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from asyncline import UrlForbidden
from asyncline.images import UrlPolicy
from asyncline.images.download import Downloader
from asyncline.images.limits import FetchLimits

LOCAL = UrlPolicy(allow_cidrs=["127.0.0.0/8"])
FORBIDDEN = str(UrlForbidden())


async def no_lookup(host: str) -> Iterable[str]:
    raise OSError("no such name")


def names(**known: str | list[str]) -> Any:
    """A lookup of names, `_` for a dot."""

    async def lookup(host: str) -> Iterable[str]:
        found = known.get(host.rstrip(".").replace(".", "_"))
        if found is None:
            raise OSError("no such name")
        return [found] if isinstance(found, str) else found

    return lookup


@asynccontextmanager
async def downloads(policy: UrlPolicy = LOCAL, lookup: Any = no_lookup, **limits: Any) -> AsyncIterator[Downloader]:
    """A Downloader that leaves nothing behind."""
    before = asyncio.all_tasks()
    async with Downloader(policy, FetchLimits(**{"total_s": 0.5, "connect_s": 0.3, **limits}), lookup) as downloader:
        yield downloader
    assert not downloader.statistics().in_flight
    assert not downloader.statistics().hosts
    left = {task for task in asyncio.all_tasks() - before if task.get_name() != "origin"}
    assert not left
