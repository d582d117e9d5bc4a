"""Intake: what the routes that run the graph have in common, whatever they speak.

reserved = intake.enter(request)        # who may send, and how much; the bytes are reserved before they are read
try:
    body = intake.body_nowait(request)
    if body is None:
        body = await intake.body(request)
    item = intake.begin(request.headers, decode(body))
    if not item.done:
        await item.wait()
finally:
    intake.leave(reserved)
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar, cast

from aiohttp import ClientConnectionError, web
from aiohttp.http import HttpProcessingError

from asyncline.engine.engine import Engine
from asyncline.engine.item import Item
from asyncline.errors import BadRequest, TooLarge, Unauthenticated, Unavailable
from asyncline.settings import ServiceSettings
from asyncline.transports.inflate import most_inflated
from asyncline.transports.rest import coding
from asyncline.transports.rest.answer import id_lines, trace_lines
from asyncline.transports.rest.connection import Connection
from asyncline.transports.timing import Timing
from asyncline.wire.oip.rest import room
from asyncline.wire.traceparent import TRACEPARENT
from asyncline.wire.weight import Scale

LOG_ID = re.compile(r"[\x20-\x7e]{1,128}")

_T = TypeVar("_T")


class Intake:
    """Lets requests in."""

    def __init__(self, engine: Engine, settings: ServiceSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._token = settings.auth_token.get_secret_value().encode() if settings.auth_token else None
        self.timing = Timing(engine.plan)
        #: Longest body, in bytes, as it comes and once it is inflated.
        self.max_body = settings.max_body_nbytes
        self._max_decoded = settings.max_decoded_nbytes

    @property
    def has_token(self) -> bool:
        return self._token is not None

    def authenticate(self, request: web.BaseRequest) -> None:
        """:raises Unauthenticated: the token is missing or wrong."""
        if self._token is None:
            return
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(
            token.strip().encode(errors="surrogateescape"), self._token
        ):
            raise Unauthenticated("a bearer token is required: send Authorization: Bearer TOKEN")

    def enter(self, request: web.BaseRequest) -> int:
        """Admit the bytes of a request before they are read; `leave` takes what this returns.

        :raises RequestError: it is refused at the door.
        """
        if self._token is not None:
            self.authenticate(request)
        engine = self._engine
        if engine.state != "ready":
            engine.note_rejected(refusal := Unavailable(f"the server is {engine.state}"))
            raise refusal
        nbytes = request.content_length
        if nbytes is None:
            # It may be as long as the limit.
            nbytes = self.max_body if request.can_read_body else 0
        elif nbytes > self.max_body:
            raise TooLarge(f"a body of {nbytes} bytes is over the limit of {self.max_body}")
        elif "Content-Encoding" in request.headers:
            nbytes = min(most_inflated(nbytes), self.max_body)
        engine.reserve(nbytes)
        return nbytes

    def scale(self) -> Scale:
        """For what a request is decoded to."""
        return Scale(self._max_decoded)

    def decoded(self, scale: Scale, reserved: int) -> int:
        """Admit what a request has been decoded to as well; returns what `leave` takes.

        :raises Overloaded: there is no room for it.
        """
        if scale.nbytes:
            self._engine.reserve(scale.nbytes, reserved)
        return reserved + scale.nbytes

    def about(self, item: Item, headers: Mapping[str, str]) -> str:
        """Headers that tell an Item's ids, and where its time went.

        :param headers: of its request.
        """
        return f"{id_lines(item)}Server-Timing: {self.timing.text(item)}\r\n{trace_lines(item, headers)}"

    def leave(self, reserved: int) -> None:
        self._engine.admission.release(reserved)

    # -- bodies

    def body_nowait(self, request: web.BaseRequest) -> bytes | None:
        """The body, where it came in one piece with its head, as it nearly always does; None: see `body`."""
        content = request.content
        if not content.is_eof() or "Content-Encoding" in request.headers:
            return None
        return self._within(content.read_nowait())

    async def body(self, request: web.BaseRequest, header_nbytes: int | None = None) -> bytes | memoryview:
        """Wait for the body, within bounds, and inflate it.

        :param header_nbytes: of a body that is this long a head and then numbers, which are laid where they may stay.
        :raises RequestError: it is malformed, too long or too slow.
        """
        data: bytes | memoryview
        if request.content.is_eof():
            data = self._within(request.content.read_nowait())
        else:
            data = await self.receive(request, partial(self._read, request, header_nbytes))
        if (encoding := request.headers.get("Content-Encoding")) is not None:
            data = await coding.inflate(data, encoding, self.max_body)
        return data

    async def receive(self, request: web.BaseRequest, reading: Callable[[], Awaitable[_T]]) -> _T:
        """Wait for `reading` of the rest of the body, within bounds.

        :raises RequestError: it is malformed, too long or too slow.
        """
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection = cast(Connection, request.protocol)
        try:
            async with connection.receiving(request.content):
                return await reading()
        except TimeoutError:
            assert connection.body_error is not None
            raise connection.body_error from None
        except web.HTTPRequestEntityTooLarge:
            raise self._too_large() from None
        except (HttpProcessingError, web.RequestPayloadError, ClientConnectionError) as error:
            raise BadRequest(f"the body is malformed: {error}") from None
        finally:
            connection.received()

    async def _read(self, request: web.BaseRequest, header_nbytes: int | None) -> bytes | memoryview:
        length = request.content_length
        if length is None or header_nbytes is None or "Content-Encoding" in request.headers:
            return await request.read()
        body, place = room(length, header_nbytes), 0
        while chunk := await request.content.readany():
            body[place : place + len(chunk)] = chunk
            place += len(chunk)
        return body[:place]

    def _within(self, body: bytes) -> bytes:
        if len(body) > self.max_body:
            raise self._too_large()
        return body

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the body is over the limit of {self.max_body} bytes")

    # -- what the headers say

    def begin(
        self,
        headers: Mapping[str, str],
        payload: Any,
        *,
        timeout_s: float | None = None,
        log_id: str = "",
        priority: int | None = None,
        on_part: Callable[[Item, Any], None] | None = None,
        on_done: Callable[[Item], None] | None = None,
    ) -> Item:
        """Start one request with what its headers ask for.

        :param timeout_s: as its body says; the header's holds where it is shorter.
        :param log_id: as its body says; the header's comes first.
        :param priority: as its body says; it comes first.
        :raises BadRequest: a header is wrong.
        :raises RequestError: it was refused at the door.
        """
        header = headers.get("X-Timeout-Ms")
        if header is not None:
            timeout_s = _timeout_s(header) if timeout_s is None else min(timeout_s, _timeout_s(header))
        header = headers.get("X-Log-Id")
        if header:
            if not LOG_ID.fullmatch(header):
                raise BadRequest("header X-Log-Id: expected at most 128 printable ASCII characters")
            log_id = header
        traceparent = headers.get("traceparent")
        # The W3C recommendation: what does not parse is ignored, not refused.
        if traceparent is not None and not TRACEPARENT.fullmatch(traceparent):
            traceparent = None
        header = headers.get("X-Priority")
        if header is not None:
            priority = self._priority(header) if priority is None else priority
        return self._engine.begin(
            payload,
            timeout_s=timeout_s,
            log_id=log_id,
            traceparent=traceparent,
            priority=1 if priority is None else priority,
            wire="rest",
            on_part=on_part,
            on_done=on_done,
        )

    def _priority(self, header: str) -> int:
        if not (header.isascii() and header.isdigit() and len(header) <= 2 and 1 <= int(header)):
            raise BadRequest("header X-Priority: expected a whole number, 1 for the highest priority")
        return min(int(header), self._settings.priorities)


def _timeout_s(header: str) -> float:
    if not (header.isascii() and header.isdigit() and len(header) <= 9 and int(header) >= 1):
        raise BadRequest("header X-Timeout-Ms: expected a whole number of milliseconds")
    return int(header) / 1e3
