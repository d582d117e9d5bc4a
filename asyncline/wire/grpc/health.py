"""Messages of grpc.health.v1."""

from __future__ import annotations

from asyncline.wire.grpc.schema import message, parse

SERVICE = "grpc.health.v1.Health"
_PACKAGE = "grpc.health.v1"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


def decode_request(data: bytes | memoryview) -> str:
    """The service that is asked for; empty for the whole server.

    :raises BadRequest: it is malformed.
    """
    return str(parse(f"{_PACKAGE}.HealthCheckRequest", data).service)


def encode_response(status: int) -> bytes:
    return bytes(message(f"{_PACKAGE}.HealthCheckResponse")(status=status).SerializeToString())
