"""The Open Inference Protocol over HTTP, by aiohttp."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import quote

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from asyncline.client.address import Address
from asyncline.client.base import (
    CONNECT_S,
    Connection,
    Description,
    broken_off,
    failed,
    gone,
    malformed,
    no_room,
    overloaded,
    refused_input,
    said,
    too_late,
    unreachable,
)
from asyncline.errors import BadRequest, DeadlineExceeded, LoadError, RequestError, Unavailable
from asyncline.wire.oip import InferRequest, InferResponse, rest, rest_metadata

KEEP_ALIVE_S = 4.0
"""Shorter than the 5 s of uvicorn: a request must not meet a connection that the server is just closing."""

HEADERS = {"Accept-Encoding": "identity", "User-Agent": "asyncline"}
_MOST_OF_AN_ERROR = 64 * 1024

_OUTCOMES = {400: refused_input, 422: refused_input, 404: gone, 429: overloaded, 503: no_room}


@dataclass(frozen=True)
class _Answer:
    status: int
    body: memoryview
    header_nbytes: int | None


class _Payload(aiohttp.Payload):
    """The parts of a body, written one after the other without being joined."""

    def __init__(self, body: rest.Body) -> None:
        super().__init__(body.parts, content_type=body.content_type)
        self._size = body.nbytes

    async def write(self, writer: AbstractStreamWriter) -> None:
        for part in self._value:
            await writer.write(part)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)


async def connect(address: Address, headers: Mapping[str, str], max_answer_nbytes: int) -> RestConnection:
    """Make a Connection; nothing is sent yet."""
    tls = await asyncio.to_thread(ssl.create_default_context) if address.tls else None
    return RestConnection(address, headers, max_answer_nbytes, tls)


class RestConnection(Connection):
    """A pool of HTTP connections to one server. Tensors go as raw bytes where the server takes them."""

    def __init__(
        self, address: Address, headers: Mapping[str, str], max_answer_nbytes: int, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(address, headers, max_answer_nbytes)
        self._loop = asyncio.get_running_loop()
        self._base = f"{address.scheme}://{address.netloc}{address.path}/v2"
        self._urls: dict[str, URL] = {}
        self._session = aiohttp.ClientSession(
            # How many requests are outstanding is the caller's to bound.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=tls or True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={**HEADERS, **headers},
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        )

    async def describe(self, model: str, version: str, timeout_s: float) -> Description:
        path = _path(model, version)
        expires_at = self._loop.time() + timeout_s
        try:
            answer = await self._get(path, model, expires_at)
            text = "" if answer.status == 200 else said(rest_metadata.decode_error(answer.body))
            if answer.status in (400, 404):  # Triton says 400 where the model is there and not ready
                raise LoadError(f"{self.address} has no model {model!r}{_of(version)}{text}")
            if answer.status != 200:
                raise LoadError(f"{self.address} answered {answer.status} when asked for model {model!r}{text}")
            metadata = rest_metadata.decode_metadata(answer.body)
            return Description.of(
                metadata,
                await self._max_batch_size(path, model, expires_at),
                binary=await self._takes_binary(model, expires_at),
            )
        except BadRequest as error:
            raise LoadError(f"{self.address} does not speak the Open Inference Protocol: {error}") from error
        except (Unavailable, DeadlineExceeded):
            raise  # of whatever kind: the endpoint is not there
        except RequestError as error:
            raise LoadError(f"{self.address}: {error}") from error

    async def _max_batch_size(self, path: str, model: str, expires_at: float) -> int | None:
        """By the model's configuration, an extension; None where there is none."""
        answer = await self._get(f"{path}/config", model, expires_at)
        return rest_metadata.decode_max_batch_size(answer.body) if answer.status == 200 else None

    async def _takes_binary(self, model: str, expires_at: float) -> bool:
        answer = await self._get("", model, expires_at)
        return answer.status == 200 and rest.BINARY in rest_metadata.decode_server_metadata(answer.body).extensions

    async def infer(self, request: InferRequest, timeout_s: float, *, binary: bool) -> InferResponse:
        model = request.model_name
        body = rest.encode_request(request, binary=binary)
        headers = {"X-Timeout-Ms": str(max(1, int(timeout_s * 1e3)))}
        if body.header_nbytes is not None:
            headers[rest.HEADER_LENGTH] = str(body.header_nbytes)
        path = f"{_path(model, request.model_version)}/infer"
        expires_at = self._loop.time() + timeout_s
        answer = await self._send("POST", path, model, expires_at, data=_Payload(body), headers=headers)
        if answer.status != 200:
            _raise(answer, model, timeout_s)
        try:
            return rest.decode_response(answer.body, answer.header_nbytes)
        except BadRequest as error:
            raise malformed(model, str(error)) from error

    async def _get(self, path: str, model: str, expires_at: float) -> _Answer:
        return await self._send("GET", path, model, expires_at)

    async def _send(self, method: str, path: str, model: str, expires_at: float, **kwargs: Any) -> _Answer:
        began_at = self._loop.time()
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = URL(self._base + path, encoded=True)
        try:
            async with (
                asyncio.timeout_at(expires_at),
                self._session.request(method, url, allow_redirects=False, **kwargs) as response,
            ):
                return await self._read(response, model)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise unreachable(model) from None
        except TimeoutError:
            raise too_late(model, expires_at - began_at) from None
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, OSError):
            raise broken_off(model) from None
        except (aiohttp.ClientError, ValueError) as error:
            raise malformed(model, type(error).__name__) from None

    async def _read(self, response: aiohttp.ClientResponse, model: str) -> _Answer:
        most = self.max_answer_nbytes if response.status == 200 else _MOST_OF_AN_ERROR
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise malformed(model, "it is compressed, which was not asked for")
        declared = response.content_length
        if declared is not None and declared > most:
            raise malformed(model, f"{declared} bytes are over the limit of {most}")
        text = response.headers.get(rest.HEADER_LENGTH) if response.status == 200 else None
        if declared is None:
            body = memoryview(await self._read_chunks(response, model, most))
        else:
            body = rest.room(declared, _guess(text))
            place = 0
            async for chunk in response.content.iter_any():
                body[place : place + len(chunk)] = chunk
                place += len(chunk)
        try:
            return _Answer(response.status, body, rest.parse_header_length(text, body.nbytes))
        except BadRequest as error:
            raise malformed(model, str(error)) from None

    async def _read_chunks(self, response: aiohttp.ClientResponse, model: str, most: int) -> bytes:
        chunks: list[bytes] = []
        nbytes = 0
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            nbytes += len(chunk)
            if nbytes > most:
                raise malformed(model, f"it is over the limit of {most} bytes")
        return b"".join(chunks)

    async def close(self) -> None:
        await self._session.close()


def _path(model: str, version: str) -> str:
    path = f"/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _of(version: str) -> str:
    return f" of version {version!r}" if version else ""


def _guess(text: str | None) -> int | None:
    """The header's length, to lay the body out by; it is checked later."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 16 else None


def _raise(answer: _Answer, model: str, timeout_s: float) -> NoReturn:
    text = rest_metadata.decode_error(answer.body)
    if answer.status in (408, 504):
        raise too_late(model, timeout_s)
    raise _OUTCOMES.get(answer.status, failed)(model, text)
