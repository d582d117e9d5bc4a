"""Messages: what each kind of frame says. `encode_...` gives the parts of a frame, `decode_...` takes its header."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgpack

from asyncline import errors
from asyncline.errors import BadRequest, OpError, ProductError, RequestError, public_message
from asyncline.wire.frame import decoder, values
from asyncline.wire.frame.decoder import Buffer, frame
from asyncline.wire.frame.values import Encoder
from asyncline.wire.traceparent import TRACEPARENT
from asyncline.wire.weight import Scale

VERSION = 1
"""Of the format; the stream of a HELLO."""
LOG_ID = re.compile(r"[\x20-\x7e]{1,128}")
MAX_TIMEOUT_MS = 10**9
MAX_PARTS = 2**16 - 1
"""Most that a CALL or a MORE may ask for at once."""

STATUSES: dict[str, type[RequestError]] = {
    "bad_request": errors.BadRequest,
    "unauthenticated": errors.Unauthenticated,
    "not_found": errors.NotFound,
    "slow_client": errors.SlowClient,
    "too_large": errors.TooLarge,
    "unsupported": errors.Unsupported,
    "bad_image": errors.BadImage,
    "fetch_failed": errors.FetchFailed,
    "product": errors.ProductError,
    "url_forbidden": errors.UrlForbidden,
    "cancelled": errors.Cancelled,
    "op_error": errors.OpError,
    "worker_crashed": errors.WorkerCrashed,
    "overloaded": errors.Overloaded,
    "unavailable": errors.Unavailable,
    "deadline": errors.DeadlineExceeded,
}
"""What an ERROR or a GOAWAY may say that happened, and the class of `asyncline.errors` for it."""

_STATUS_OF: dict[type, str] = {kind: status for status, kind in STATUSES.items()}


# -- HELLO


@dataclass(frozen=True)
class ClientHello:
    """What a client says first."""

    token: str | None = None


@dataclass(frozen=True)
class ServerHello:
    """What a server says first."""

    graph: str
    """Name of the graph that is served."""
    max_body_nbytes: int
    """Longest body of a CALL."""
    max_streams: int
    """Most CALLs that wait for their answer on one connection."""


def encode_hello(hello: ClientHello | ServerHello) -> list[Buffer]:
    said = {key: value for key, value in vars(hello).items() if value is not None}
    return frame(decoder.HELLO, VERSION, msgpack.packb(said))


def decode_client_hello(stream: int, header: bytes) -> ClientHello:
    """:raises BadRequest: malformed.
    :raises Unsupported: of another version.
    """
    token = _decode_hello(stream, header).get("token")
    if not isinstance(token, str | None):
        raise BadRequest("HELLO: token: expected a text")
    return ClientHello(token)


def decode_server_hello(stream: int, header: bytes) -> ServerHello:
    """:raises BadRequest: malformed.
    :raises Unsupported: of another version.
    """
    said = _decode_hello(stream, header)
    return ServerHello(
        _take(said, "graph", str, "HELLO"),
        _take(said, "max_body_nbytes", int, "HELLO"),
        _take(said, "max_streams", int, "HELLO"),
    )


def _decode_hello(stream: int, header: bytes) -> dict[str, Any]:
    if stream != VERSION:
        raise errors.Unsupported(f"HELLO of version {stream}: this is version {VERSION}")
    return _decode_map(header, "HELLO")


# -- CALL


@dataclass(frozen=True)
class Options:
    """What a CALL may say besides its value."""

    timeout_s: float | None = None
    log_id: str = ""
    priority: int = 1
    """1 is the highest."""
    traceparent: str | None = None
    parts: int = 0
    """How many PARTs may come before the first MORE; 0: the answer is to come in one piece."""


NO_OPTIONS = Options()


def encode_call(encoder: Encoder, stream: int, graph: str, options: Options, value: Any) -> tuple[list[Buffer], int]:
    """The parts of the frame, and the length of its body.

    :raises BadRequest: `value` has no msgpack form.
    """
    said: dict[str, Any] = {}
    if options.timeout_s is not None:
        said["timeout_ms"] = options.timeout_s * 1e3
    if options.log_id:
        said["log_id"] = options.log_id
    if options.priority != 1:
        said["priority"] = options.priority
    if options.traceparent is not None:
        said["traceparent"] = options.traceparent
    if options.parts:
        said["parts"] = options.parts
    try:
        header, sections, nbytes = encoder.encode((graph, said), value)
    except ValueError as error:
        raise BadRequest(f"the request cannot be written as msgpack: {error}") from error
    return frame(decoder.CALL, stream, header, sections, nbytes), nbytes


def decode_call(
    header: bytes, body: memoryview | None, max_value_nbytes: int, scale: Scale | None = None
) -> tuple[str, Options, Any]:
    """The graph's name, options and value of a CALL.

    :param scale: weighs the value, where it is a section.
    :raises BadRequest: malformed, or an option is unknown or out of range.
    :raises TooLarge: lists, objects and texts have more than `max_value_nbytes`, or weigh too much.
    """
    document = values.decode_limited(header, body, max_value_nbytes, scale)
    if type(document) is list and len(document) == 3:
        graph, said, value = document
        if type(graph) is str and type(said) is dict:
            return graph, _options(said) if said else NO_OPTIONS, value
    raise BadRequest("CALL: expected the graph's name, a map of options and a value")


def _options(said: dict[str, Any]) -> Options:
    for name in said:
        if name not in ("timeout_ms", "log_id", "priority", "traceparent", "parts"):
            raise BadRequest(f"no option {name[:64]!r}: there are timeout_ms, log_id, priority, traceparent and parts")
    timeout_ms, log_id, priority = said.get("timeout_ms"), said.get("log_id", ""), said.get("priority", 1)
    if timeout_ms is not None and not (
        type(timeout_ms) in (int, float) and math.isfinite(timeout_ms) and 0 < timeout_ms <= MAX_TIMEOUT_MS
    ):
        raise BadRequest("option timeout_ms: expected a number of milliseconds, more than 0")
    if type(log_id) is not str or (log_id and not LOG_ID.fullmatch(log_id)):
        raise BadRequest("option log_id: expected at most 128 printable ASCII characters")
    if type(priority) is not int or priority < 1:
        raise BadRequest("option priority: expected a whole number, 1 for the highest priority")
    parts = said.get("parts", 0)
    if "parts" in said and not _is_count(parts):
        raise BadRequest(f"option parts: expected a whole number from 1 to {MAX_PARTS}")
    trace = said.get("traceparent")
    # The W3C recommendation: what does not parse is ignored, not refused.
    is_trace = type(trace) is str and TRACEPARENT.fullmatch(trace)
    timeout_s = timeout_ms / 1e3 if timeout_ms is not None else None
    return Options(timeout_s, log_id, priority, trace if is_trace else None, parts)


def encode_cancel(stream: int) -> list[Buffer]:
    return frame(decoder.CANCEL, stream)


def encode_more(stream: int, count: int) -> list[Buffer]:
    return frame(decoder.MORE, stream, msgpack.packb(count))


def decode_more(header: bytes) -> int:
    """:raises BadRequest: malformed."""
    count = values.decode(header)
    if not _is_count(count):
        raise BadRequest(f"MORE: expected a whole number from 1 to {MAX_PARTS}")
    return int(count)


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_PARTS


# -- RESULT


def encode_result(encoder: Encoder, stream: int, data_id: int, value: Any) -> tuple[list[Buffer], int]:
    """The parts of the frame, and their length.

    :raises OpError: `value` has no msgpack form.
    """
    try:
        header, sections, nbytes = encoder.encode((data_id,), value)
    except ValueError as error:
        raise OpError(f"the answer cannot be written as msgpack: {error}") from error
    return frame(decoder.RESULT, stream, header, sections, nbytes), decoder.PREFIX.size + len(header) + nbytes


def decode_result(header: bytes, body: memoryview | None) -> Any:
    """The value of a RESULT.

    :raises BadRequest: malformed.
    """
    document = values.decode(header, body)
    if type(document) is not list or len(document) != 2:
        raise BadRequest("RESULT: expected a number and a value")
    return document[1]


# -- PART


def encode_part(encoder: Encoder, stream: int, number: int, value: Any) -> tuple[list[Buffer], int]:
    """The parts of the frame, and their length.

    :raises OpError: `value` has no msgpack form.
    """
    try:
        header, sections, nbytes = encoder.encode((number,), value)
    except ValueError as error:
        raise OpError(f"the answer cannot be written as msgpack: {error}") from error
    return frame(decoder.PART, stream, header, sections, nbytes), decoder.PREFIX.size + len(header) + nbytes


def decode_part(header: bytes, body: memoryview | None) -> tuple[int, Any]:
    """The number of a PART, and its value.

    :raises BadRequest: malformed.
    """
    document = values.decode(header, body)
    if type(document) is not list or len(document) != 2 or type(document[0]) is not int:
        raise BadRequest("PART: expected a number and a value")
    return document[0], document[1]


# -- ERROR and GOAWAY


def encode_error(stream: int, error: RequestError, request_id: int, *, was_refused: bool = False) -> list[Buffer]:
    """:param was_refused: at the door: nothing was run."""
    said = {**_said(error), "request_id": str(request_id)}
    if was_refused:
        said["refused"] = True
    return frame(decoder.ERROR, stream, msgpack.packb(said))


def encode_goaway(error: RequestError) -> list[Buffer]:
    return frame(decoder.GOAWAY, 0, msgpack.packb(_said(error)))


def _said(error: RequestError) -> dict[str, Any]:
    said: dict[str, Any] = {"status": status_of(error), "code": error.code, "message": public_message(error)}
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        said["retry_after_s"] = retry_after_s
    return said


def status_of(error: RequestError) -> str:
    """The status of an error; that of its nearest known base where a user's class has a code of its own."""
    return next((_STATUS_OF[kind] for kind in type(error).__mro__ if kind in _STATUS_OF), "op_error")


def decode_error(header: bytes) -> RequestError:
    """The error that an ERROR or a GOAWAY stands for, of the class that the server raised or of its base.

    :raises BadRequest: malformed.
    """
    said = _decode_map(header, "ERROR")
    status, message = _take(said, "status", str, "ERROR"), _take(said, "message", str, "ERROR")
    code = said.get("code", status)
    if type(code) not in (str, int):
        raise BadRequest("ERROR: code: expected a text or a number")
    retry_after_s = said.get("retry_after_s")
    error = error_of(status, code, message, retry_after_s if type(retry_after_s) is int else None)
    error.was_refused = said.get("refused") is True
    if type(request_id := said.get("request_id")) is str:
        error.add_note(f"request {request_id}")
    return error


def error_of(status: str, code: int | str, message: str, retry_after_s: int | None = None) -> RequestError:
    """The error that a server says there was.

    :param status: one of STATUSES, or nothing known.
    """
    kind = STATUSES.get(status, RequestError)
    error = kind(code, message) if issubclass(kind, ProductError) else kind(message)
    error.code = code
    if retry_after_s is not None and hasattr(error, "retry_after_s"):
        error.retry_after_s = retry_after_s
    return error


_T = TypeVar("_T")


def _decode_map(header: bytes, what: str) -> dict[str, Any]:
    said = values.decode(header)
    if type(said) is not dict:
        raise BadRequest(f"{what}: expected a map")
    return said


def _take(said: Mapping[str, Any], key: str, kind: type[_T], what: str) -> _T:
    value = said.get(key)
    if type(value) is not kind:
        raise BadRequest(f"{what}: {key}: expected a {kind.__name__}")
    return value
