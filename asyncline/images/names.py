"""Names of hosts to addresses, off libuv's pool, in which two slow names stop all lookups."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv6Address, ip_address
from typing import Any

import aiodns
from aiohttp.abc import AbstractResolver, ResolveResult

from asyncline.images.address import Address

Lookup = Callable[[str], Awaitable[Iterable[str]]]
"""Asks for the addresses of a name; raises OSError where there are none."""

Refusal = Callable[[Address, int], str | None]
"""Why no connection may go to that address and port; None if one may."""

TRY_S = 1.0
TRIES = 2
KEPT_S = 10.0
MOST_KEPT = 1024


class Names:
    """Looks up names, and keeps the answers for ten seconds.

    :param lookup: asks; tests pass their own.
    """

    def __init__(self, lookup: Lookup | None = None, kept_s: float = KEPT_S) -> None:
        self._lookup = lookup or self._ask
        self._kept_s = kept_s
        self._kept: OrderedDict[str, tuple[float, tuple[Address, ...]]] = OrderedDict()
        self._resolver: aiodns.DNSResolver | None = None

    async def addresses(self, host: str) -> tuple[Address, ...]:
        """All addresses of `host`, at least one.

        :raises OSError: it has none, or no answer came in time.
        """
        now = asyncio.get_running_loop().time()
        kept_until, found = self._kept.get(host, (0.0, ()))
        if now < kept_until:
            return found
        try:
            async with asyncio.timeout(TRY_S * TRIES):
                # Those of a link have a zone, which is refused later.
                found = tuple(map(ip_address, await self._lookup(host)))
        except ValueError as error:
            raise OSError(str(error)) from None
        if not found:
            raise OSError("no address")
        self._kept[host] = now + self._kept_s, found
        self._kept.move_to_end(host)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return found

    async def _ask(self, host: str) -> Iterable[str]:
        if self._resolver is None:
            self._resolver = aiodns.DNSResolver(timeout=TRY_S, tries=TRIES)
        try:
            answer = await self._resolver.getaddrinfo(host, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM)
        except aiodns.error.DNSError as error:
            raise OSError(str(error)) from None
        addresses = []
        for node in answer.nodes:
            zone = f"%{node.addr[3]}" if len(node.addr) > 3 and node.addr[3] else ""
            addresses.append(node.addr[0].decode() + zone)
        return addresses

    async def close(self) -> None:
        if self._resolver is not None:
            await self._resolver.close()
            self._resolver = None


class Resolver(AbstractResolver):
    """Gives an aiohttp connector the addresses of `names`, if `refusal(ip, port)` is None for every one of them."""

    def __init__(self, names: Names, refusal: Refusal) -> None:
        self._names = names
        self._refusal = refusal

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._names.addresses(host)
        for ip in found:
            reason = self._refusal(ip, port)
            if reason is not None:
                raise PermissionError(reason)
        return [_result(host, ip, port) for ip in found]

    async def close(self) -> None:
        """The names are their maker's to close."""


def _result(host: str, ip: Address, port: int) -> Any:
    family = socket.AF_INET6 if isinstance(ip, IPv6Address) else socket.AF_INET
    return {"hostname": host, "host": str(ip), "port": port, "family": family, "proto": 0, "flags": 0}
