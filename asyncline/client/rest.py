"""The Open Inference Protocol over HTTP."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import quote

from asyncline.client.address import Address
from asyncline.client.base import (
    Busy,
    Connection,
    Description,
    Refused,
    failed,
    gone,
    malformed,
    no_room,
    overloaded,
    refused_input,
    remote_model,
    said,
    too_late,
)
from asyncline.client.http import HttpAnswer, HttpPeer, Parts
from asyncline.errors import BadRequest, DeadlineExceeded, LoadError, RequestError, Unavailable
from asyncline.wire.oip import InferRequest, InferResponse, rest, rest_metadata

_OUTCOMES = {400: refused_input, 422: refused_input, 404: gone, 429: overloaded, 503: no_room}


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
        self._peer = HttpPeer(address, headers, max_answer_nbytes, tls)

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

    async def infer(
        self, request: InferRequest, timeout_s: float, *, binary: bool, traceparent: str | None = None
    ) -> InferResponse:
        model = request.model_name
        body = rest.encode_request(request, binary=binary)
        headers = {"X-Timeout-Ms": str(max(1, int(timeout_s * 1e3)))}
        if body.header_nbytes is not None:
            headers[rest.HEADER_LENGTH] = str(body.header_nbytes)
        if traceparent is not None:
            headers["traceparent"] = traceparent
        path = f"{_path(model, request.model_version)}/infer"
        expires_at = self._loop.time() + timeout_s
        answer = await self._send(
            "POST", path, model, expires_at, data=Parts(body.parts, body.nbytes, body.content_type), headers=headers
        )
        if answer.status != 200:
            _raise(answer, model, timeout_s)
        try:
            header_nbytes = rest.parse_header_length(answer.headers.get(rest.HEADER_LENGTH), answer.body.nbytes)
            return rest.decode_response(answer.body, header_nbytes)
        except BadRequest as error:
            raise malformed(remote_model(model), str(error)) from error

    async def _get(self, path: str, model: str, expires_at: float) -> HttpAnswer:
        return await self._send("GET", path, model, expires_at)

    async def _send(self, method: str, path: str, model: str, expires_at: float, **kwargs: Any) -> HttpAnswer:
        return await self._peer.send(method, f"/v2{path}", remote_model(model), expires_at, _room, **kwargs)

    async def close(self) -> None:
        await self._peer.close()


def _path(model: str, version: str) -> str:
    path = f"/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _of(version: str) -> str:
    return f" of version {version!r}" if version else ""


def _room(nbytes: int, headers: Mapping[str, str]) -> memoryview:
    return rest.room(nbytes, _guess(headers.get(rest.HEADER_LENGTH)))


def _guess(text: str | None) -> int | None:
    """The header's length, to lay the body out by; it is checked later."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 16 else None


def _raise(answer: HttpAnswer, model: str, timeout_s: float) -> NoReturn:
    text = rest_metadata.decode_error(answer.body)
    if answer.status in (408, 504):
        raise too_late(remote_model(model), timeout_s)
    error = _OUTCOMES.get(answer.status, failed)(remote_model(model), text)
    retry_after = answer.headers.get("Retry-After", "")
    # The other form of it, a date, is by a clock that may not be ours.
    if isinstance(error, (Refused, Busy)) and retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 6:
        error.rest_s = int(retry_after)
        error.retry_after_s = max(1, error.rest_s)
    raise error
