"""Slots: how many downloads may run at once, from one host and in all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class _Gate:
    def __init__(self, width: int) -> None:
        self.semaphore = asyncio.Semaphore(width)
        self.users = 0


class Slots:
    """At most `per_host` for one host and `total` for all; who is over waits, first come first served."""

    def __init__(self, per_host: int, total: int) -> None:
        self._per_host = per_host
        self._total = asyncio.Semaphore(total)
        self._gates: dict[str, _Gate] = {}

    @asynccontextmanager
    async def take(self, host: str) -> AsyncIterator[None]:
        """Hold a slot, after those for `host`: who waits for a slow host keeps nobody else waiting."""
        gate = self._gates.get(host)
        if gate is None:
            gate = self._gates[host] = _Gate(self._per_host)
        gate.users += 1
        try:
            async with gate.semaphore, self._total:
                yield
        finally:
            gate.users -= 1
            if not gate.users:
                del self._gates[host]

    def __len__(self) -> int:
        """Hosts that have a slot or wait for one."""
        return len(self._gates)
