"""Downloads images for strangers: bounded in size, time and number, and never from our own network.

For every hop: the URL is taken apart once and judged (`url.py`); its name is looked up and every answer
judged (`address.py`); and the connector judges the very address that it is about to connect to, on every
attempt. That last one is the authority: it sees what literals, caches and answers that change come down to.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from types import TracebackType
from typing import Any

import aiohttp
from yarl import URL

from asyncline.errors import FetchFailed
from asyncline.images.address import PUBLIC, Address, UrlPolicy
from asyncline.images.cache import Cache
from asyncline.images.flights import Flights
from asyncline.images.header import FORMATS
from asyncline.images.limits import FetchLimits
from asyncline.images.names import Lookup, Names, Refusal, Resolver
from asyncline.images.one_answer import OneAnswer
from asyncline.images.slots import Slots
from asyncline.images.url import follow, forbidden, host_of, parse

KEEP_ALIVE_S = 2.0
"""Short: the connector bounds those in use only, and 64 downloads at once may use a new host each."""

HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "asyncline"}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAGIC_BYTES = 12
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class DownloadStatistics:
    in_flight: int
    """Different URLs being downloaded, or waiting for a slot."""
    hosts: int
    """From which they come."""
    cached: int
    cached_nbytes: int


@dataclass(frozen=True)
class _Way:
    """Out into the network."""

    resolver: Resolver
    session: aiohttp.ClientSession


class Downloader:
    """`async with Downloader() as downloader: data = await downloader.get("https://...")`.

    Belongs to the loop on which it is made.

    :param lookup: finds the addresses of a name; the system's name servers by default.
    :param trace: any origin may be sent a trace context, not only those that `policy` allows by name.
    """

    def __init__(
        self,
        policy: UrlPolicy = PUBLIC,
        limits: FetchLimits | None = None,
        lookup: Lookup | None = None,
        *,
        trace: bool = False,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.policy = policy
        self.limits = limits or FetchLimits()
        self._trace = trace
        self._names = Names(lookup)
        self._flights = Flights()
        self._slots = Slots(self.limits.per_host, self.limits.total)
        self._cache = Cache(self.limits.cache_nbytes, self.limits.cache_s)
        # A proxy may well be in a private network; it is the only one that is connected to then.
        self._guarded = self._way(policy.refusal if policy.proxy is None else _trust)
        #: To hosts that the policy trusts by name; nothing else comes here.
        self._trusting = self._way(_trust) if policy.allow_hosts else None

    def _way(self, refusal: Refusal) -> _Way:
        resolver = Resolver(self._names, refusal)
        connector = aiohttp.TCPConnector(
            resolver=resolver,
            use_dns_cache=False,  # the names have their own
            socket_factory=partial(dial, refusal),
            limit=self.limits.total,
            limit_per_host=self.limits.per_host,
            keepalive_timeout=KEEP_ALIVE_S,
        )
        # aiohttp lets one choose the socket, but not what reads it.
        connector._factory = partial(OneAnswer, loop=self.loop)  # type: ignore[assignment]  # one of its kind
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=HEADERS,
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.limits.connect_s),
        )
        return _Way(resolver, session)

    async def get(self, text: str, traceparent: str | None = None) -> bytes:
        """Download the image at a URL; who asks for the same at the same time shares one download.

        :param traceparent: W3C trace context for the origin, if it may be sent one; a download that is shared has that
            of who began it.
        :raises UrlForbidden: the policy refuses it, or its host has no address.
        :raises FetchFailed: its origin did not give an image within the limits.
        """
        url = parse(text, self.policy)
        key = str(url)
        data = self._cache.get(key, self.loop.time())
        return data if data is not None else await self._flights.join(key, partial(self._download, url, traceparent))

    async def _download(self, url: URL, traceparent: str | None) -> bytes:
        key = str(url)
        async with self._slots.take(url.raw_host or ""):
            expires_at = self.loop.time() + self.limits.total_s
            for _ in range(self.limits.redirects + 1):
                answer = await self._hop(url, expires_at, traceparent)
                if isinstance(answer, bytes):
                    self._cache.put(key, answer, self.loop.time())
                    return answer
                url = follow(url, answer, self.policy)
        raise FetchFailed(f"the URL is redirected more than {self.limits.redirects} times")

    async def _hop(self, url: URL, expires_at: float, traceparent: str | None) -> bytes | str:
        """The body, or where a redirect leads."""
        host = host_of(url)
        way, headers = self._guarded, None
        is_trusted = self.policy.trusts(str(host))
        if self._trusting is not None and is_trusted:
            way = self._trusting
        if traceparent is not None and (is_trusted or self._trace):
            headers = {"traceparent": traceparent}
        if isinstance(host, str) and self.policy.proxy is None:
            # First and apart: whatever goes wrong with a name must look the same.
            try:
                async with asyncio.timeout_at(expires_at):
                    await way.resolver.resolve(host, url.port or 0)
            except OSError as error:  # TimeoutError is one, too
                raise forbidden(f"name: {error}") from None
        try:
            get = way.session.get(url, headers=headers, allow_redirects=False, proxy=self.policy.proxy)
            async with asyncio.timeout_at(expires_at), get as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    return response.headers["Location"]
                return await self._read(response)
        except TimeoutError:
            raise FetchFailed("the origin of the URL took too long") from None
        except aiohttp.InvalidURL:
            raise forbidden("malformed") from None
        except aiohttp.ClientConnectorDNSError as error:
            raise forbidden(f"name: {error.os_error}") from None
        except aiohttp.ClientConnectorError as error:
            if error.os_error.errno == errno.EACCES:
                raise forbidden(f"connection: {error.os_error.strerror}") from None
            raise FetchFailed("the origin of the URL cannot be reached") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise FetchFailed("the origin of the URL broke off, or its answer is malformed") from None

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if response.status != 200:
            raise FetchFailed(f"the origin of the URL answered {response.status}")
        if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise FetchFailed("the origin of the URL sent a compressed body, which was not asked for")
        if (response.content_length or 0) > self.limits.nbytes:
            raise self._too_large()
        chunks: list[bytes] = []
        nbytes = 0
        known = False
        started_at = self.loop.time()
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            nbytes += len(chunk)
            if nbytes > self.limits.nbytes:
                raise self._too_large()
            if not known and nbytes >= _MAGIC_BYTES:
                known = _check_magic(b"".join(chunks))
            if nbytes < self.limits.least_nbytes(self.loop.time() - started_at):
                raise FetchFailed("the origin of the URL took too long")
        data = b"".join(chunks)
        if not known:
            _check_magic(data)
        return data

    def _too_large(self) -> FetchFailed:
        return FetchFailed(f"the URL leads to more than {self.limits.nbytes / 1e6:g} MB")

    async def close(self) -> None:
        """End all downloads and close all connections."""
        await self._flights.close()
        for way in (self._guarded, self._trusting):
            if way is not None:
                await way.session.close()
        await self._names.close()

    async def __aenter__(self) -> Downloader:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def statistics(self) -> DownloadStatistics:
        return DownloadStatistics(
            in_flight=len(self._flights),
            hosts=len(self._slots),
            cached=len(self._cache),
            cached_nbytes=self._cache.nbytes,
        )

    def __repr__(self) -> str:
        return f"<Downloader {len(self._flights)} in flight, {self._cache!r}>"


def dial(refusal: Refusal, info: Any) -> socket.socket:
    """Make the socket for one attempt to connect; the last word on where it may go.

    :param info: as of `socket.getaddrinfo`.
    :raises PermissionError: nowhere near there.
    """
    family, kind, protocol, _, address = info
    zone = f"%{address[3]}" if len(address) > 3 and address[3] else ""
    reason = refusal(ip_address(address[0] + zone), address[1])
    if reason is not None:
        raise PermissionError(errno.EACCES, reason)
    return socket.socket(family, kind, protocol)


def _trust(ip: Address, port: int) -> str | None:
    return None


def _check_magic(head: bytes) -> bool:
    if head.startswith(_MAGIC) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return True
    raise FetchFailed(f"the URL leads to no image (known: {', '.join(FORMATS)})")
