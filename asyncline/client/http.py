"""HttpPeer: requests to one server by HTTP/1.1, by aiohttp."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDictProxy
from yarl import URL

from asyncline.client.address import Address
from asyncline.client.base import CONNECT_S, broken_off, malformed, too_late, unreachable

KEEP_ALIVE_S = 4.0
"""Shorter than the 5 s of uvicorn: a request must not meet a connection that the server is just closing."""

HEADERS = {"Accept-Encoding": "identity", "User-Agent": "asyncline"}
_MOST_OF_AN_ERROR = 64 * 1024

Room = Callable[[int, Mapping[str, str]], memoryview]
"""Memory for a body, by its length and the headers of the answer."""


@dataclass(frozen=True)
class HttpAnswer:
    status: int
    headers: CIMultiDictProxy[str]
    body: memoryview


class Parts(aiohttp.Payload):
    """The parts of a body, written one after the other without being joined."""

    def __init__(self, parts: Iterable[bytes | memoryview], nbytes: int, content_type: str) -> None:
        super().__init__(parts, content_type=content_type)
        self._size = nbytes

    async def write(self, writer: AbstractStreamWriter) -> None:
        for part in self._value:
            await writer.write(part)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)


class HttpPeer:
    """A pool of connections to one server. Belongs to the loop on which it is made.

    :param whom: who that is, in messages.
    :param headers: sent with every request.
    :param max_answer_nbytes: longer answers are refused.
    :param connections: most at a time; requests wait for one. 0: how many are outstanding is the caller's to bound.
    """

    def __init__(
        self,
        address: Address,
        headers: Mapping[str, str],
        max_answer_nbytes: int,
        tls: ssl.SSLContext | None = None,
        *,
        connections: int = 0,
        connect_s: float = CONNECT_S,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._base = f"{address.scheme}://{address.netloc}{address.path}"
        self._max_answer_nbytes = max_answer_nbytes
        self._urls: dict[str, URL] = {}
        #: Answers that are still being read.
        self._unread: set[aiohttp.ClientResponse] = set()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=KEEP_ALIVE_S, ssl=tls or True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={**HEADERS, **headers},
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s),
        )

    async def send(
        self, method: str, path: str, whom: str, expires_at: float, room: Room | None = None, **kwargs: Any
    ) -> HttpAnswer:
        """Send a request and read the whole answer.

        :param path: from the address on, encoded.
        :param whom: who that is, in messages.
        :param expires_at: by the loop's clock.
        :raises Refused: there is nobody.
        :raises Unavailable: the connection broke off.
        :raises DeadlineExceeded: `expires_at` passed.
        :raises Malformed: the answer is no HTTP, compressed or too long.
        """
        with _translated(whom, expires_at - self._loop.time()):
            async with (
                asyncio.timeout_at(expires_at),
                self._session.request(method, self._url(path), allow_redirects=False, **kwargs) as response,
            ):
                self._unread.add(response)
                try:
                    return HttpAnswer(response.status, response.headers, await self.read(response, whom, room))
                finally:
                    self._unread.discard(response)

    async def open(self, method: str, path: str, whom: str, expires_at: float, **kwargs: Any) -> HttpStream:
        """Send a request whose answer is to be read as it comes; it has to be closed.

        :raises RequestError: as of `send`.
        """
        with _translated(whom, expires_at - self._loop.time()):
            async with asyncio.timeout_at(expires_at):
                response = await self._session.request(method, self._url(path), allow_redirects=False, **kwargs)
        self._unread.add(response)
        return HttpStream(self, response, whom, expires_at)

    def leave(self, response: aiohttp.ClientResponse) -> None:
        """Nobody reads on. The connection is closed where there is more to come, which tells the server."""
        self._unread.discard(response)
        response.close()

    def _url(self, path: str) -> URL:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = URL(self._base + path, encoded=True)
        return url

    async def read(self, response: aiohttp.ClientResponse, whom: str, room: Room | None = None) -> memoryview:
        """The body of an answer."""
        most = self._max_answer_nbytes if response.status == 200 else _MOST_OF_AN_ERROR
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise malformed(whom, "it is compressed, which was not asked for")
        declared = response.content_length
        if declared is not None and declared > most:
            raise malformed(whom, f"{declared} bytes are over the limit of {most}")
        if declared is None:
            return memoryview(await self._read_chunks(response, whom, most))
        body = room(declared, response.headers) if room is not None else memoryview(bytearray(declared))
        place = 0
        async for chunk in response.content.iter_any():
            body[place : place + len(chunk)] = chunk
            place += len(chunk)
        return body

    async def _read_chunks(self, response: aiohttp.ClientResponse, whom: str, most: int) -> bytes:
        chunks: list[bytes] = []
        nbytes = 0
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            nbytes += len(chunk)
            if nbytes > most:
                raise malformed(whom, f"it is over the limit of {most} bytes")
        return b"".join(chunks)

    async def close(self) -> None:
        """End the connections; what is outstanding fails."""
        for response in self._unread:
            # aiohttp would let whoever reads it wait for the deadline.
            response.content.set_exception(aiohttp.ClientConnectionError("closed"))
        await self._session.close()


class HttpStream:
    """An answer that is read as it comes."""

    def __init__(self, peer: HttpPeer, response: aiohttp.ClientResponse, whom: str, expires_at: float) -> None:
        self.status = response.status
        self._peer = peer
        self._response = response
        self._whom = whom
        self._expires_at = expires_at

    async def some(self) -> bytes:
        """What has come since, at least a byte; nothing at the end.

        :raises RequestError: as of `HttpPeer.send`.
        """
        with self._translated():
            async with asyncio.timeout_at(self._expires_at):
                return await self._response.content.readany()

    async def all(self) -> HttpAnswer:
        """The whole answer.

        :raises RequestError: as of `HttpPeer.send`.
        """
        with self._translated():
            async with asyncio.timeout_at(self._expires_at):
                body = await self._peer.read(self._response, self._whom)
                return HttpAnswer(self.status, self._response.headers, body)

    def _translated(self) -> AbstractContextManager[None]:
        return _translated(self._whom, self._expires_at - asyncio.get_running_loop().time())

    def close(self) -> None:
        self._peer.leave(self._response)


@contextmanager
def _translated(whom: str, timeout_s: float) -> Iterator[None]:
    """aiohttp's errors to ours."""
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise unreachable(whom) from error  # which says why
    except TimeoutError:
        raise too_late(whom, timeout_s) from None
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, OSError):
        raise broken_off(whom) from None
    except aiohttp.ClientResponseError:
        raise malformed(whom, "it is no HTTP") from None
    except (aiohttp.ClientError, ValueError) as error:
        raise malformed(whom, type(error).__name__) from None
