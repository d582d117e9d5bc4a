"""Head: what the headers of a call say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from asyncline.errors import BadRequest
from asyncline.transports.grpc.compression import IDENTITY
from asyncline.transports.timing import TRACE_HEADER
from asyncline.wire.traceparent import TRACEPARENT

_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_LOG_ID = re.compile(r"[\x20-\x7e]{1,128}")


class NotGrpc(Exception):
    """The client's: HTTP/2, but no gRPC; to be answered as HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """The headers of a call."""

    path: str
    """`/package.Service/Method`"""
    metadata: dict[str, str]
    """All that was sent, by names in lower case; of a name that is there twice, the last."""

    @property
    def encoding(self) -> str:
        """Of messages that are marked as compressed."""
        return self.metadata.get("grpc-encoding", IDENTITY)

    @property
    def accepted(self) -> str:
        """Encodings that the client reads, with commas."""
        return self.metadata.get("grpc-accept-encoding", "")

    @property
    def token(self) -> str:
        """The bearer token, or nothing."""
        scheme, _, token = self.metadata.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    @property
    def timeout_s(self) -> float | None:
        """How long the client waits, in seconds; 0 is possible.

        :raises BadRequest: what is there is no timeout.
        """
        text = self.metadata.get("grpc-timeout")
        if text is None:
            return None
        found = _TIMEOUT.fullmatch(text)
        if found is None:
            raise BadRequest("grpc-timeout: expected up to eight digits and a unit, one of HMSmun")
        return int(found[1]) * _UNITS_S[found[2]]

    @property
    def log_id(self) -> str:
        """:raises BadRequest: it is too long, or not printable."""
        text = self.metadata.get("x-log-id", "")
        if text and not _LOG_ID.fullmatch(text):
            raise BadRequest("x-log-id: expected at most 128 printable ASCII characters")
        return text

    @property
    def traceparent(self) -> str | None:
        """None also where it does not parse, as the W3C recommends."""
        text = self.metadata.get("traceparent")
        return text if text is not None and TRACEPARENT.fullmatch(text) else None

    @property
    def wants_trace(self) -> bool:
        return self.metadata.get(TRACE_HEADER.lower()) == "1"

    def priority(self, lowest: int) -> int:
        """:raises BadRequest: what is there is no priority."""
        text = self.metadata.get("x-priority")
        if text is None:
            return 1
        if not (text.isascii() and text.isdigit() and len(text) <= 2 and int(text) >= 1):
            raise BadRequest("x-priority: expected a whole number, 1 for the highest priority")
        return min(int(text), lowest)


def read(headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """:raises NotGrpc: this is some other protocol over HTTP/2."""
    fields = {str(name, "latin-1"): str(value, "latin-1") for name, value in headers}
    path = fields.get(":path")
    if path is None or ":method" not in fields:
        raise NotGrpc(400, ":method or :path is missing")
    if fields[":method"] != "POST":
        raise NotGrpc(405, "this port speaks gRPC: POST is the only method")
    kind = fields.get("content-type", "")
    if kind != "application/grpc" and kind.partition(";")[0] not in ("application/grpc", "application/grpc+proto"):
        raise NotGrpc(415, "this port speaks gRPC: the content-type has to be application/grpc")
    return Head(path, fields)
