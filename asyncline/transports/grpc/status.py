"""Outcomes as gRPC statuses."""

from __future__ import annotations

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import encode_grpc_message

from asyncline.errors import ProductError, RequestError, public_message

STATUSES: dict[str, Status] = {
    "bad_request": Status.INVALID_ARGUMENT,
    "unauthenticated": Status.UNAUTHENTICATED,
    "not_found": Status.NOT_FOUND,
    "slow_client": Status.CANCELLED,
    "too_large": Status.RESOURCE_EXHAUSTED,
    "unsupported": Status.UNIMPLEMENTED,
    "bad_image": Status.INVALID_ARGUMENT,
    "fetch_failed": Status.FAILED_PRECONDITION,
    "product": Status.FAILED_PRECONDITION,
    "url_forbidden": Status.INVALID_ARGUMENT,
    "cancelled": Status.CANCELLED,
    "op_error": Status.INTERNAL,
    "worker_crashed": Status.INTERNAL,
    "overloaded": Status.RESOURCE_EXHAUSTED,
    "unavailable": Status.UNAVAILABLE,
    "deadline": Status.DEADLINE_EXCEEDED,
}
"""gRPC status of each code of `asyncline.errors`."""

Headers = list[tuple[str, str]]

OK: Headers = [("grpc-status", "0")]


def status_of(error: RequestError) -> Status:
    """The status of an error; that of its nearest known base where a user's class has a code of its own."""
    if isinstance(error, ProductError):
        return STATUSES["product"]
    codes = [error.code, *(getattr(base, "code", None) for base in type(error).__mro__)]
    return next(STATUSES[str(code)] for code in codes if str(code) in STATUSES)


def trailers(error: RequestError | GRPCError) -> Headers:
    """Status, message and, of an error of ours, its code and when to try again.

    `grpc-retry-pushback-ms` is what gRPC's own retries go by.
    """
    if isinstance(error, GRPCError):
        status, message = error.status, error.message or ""
    else:
        status, message = status_of(error), public_message(error)
    found = [("grpc-status", str(status.value)), ("grpc-message", encode_grpc_message(message))]
    if isinstance(error, RequestError):
        found.append(("x-code", encode_grpc_message(str(error.code)[:64])))
        if type(error.code) is int:
            found.append(("x-code-type", "int"))
        retry_after_s = getattr(error, "retry_after_s", None)
        if retry_after_s is not None:
            found.append(("grpc-retry-pushback-ms", str(round(retry_after_s * 1e3))))
    return found
