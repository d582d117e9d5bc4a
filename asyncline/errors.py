"""Every error asyncline raises, and the neutral `code` that each transport maps to its own status.

    AsynclineError
    ├── GraphError            a graph that cannot run; raised at import, names the Op and the cure
    ├── SettingsError         a setting that is unknown or out of range; names the key and its source
    ├── LoadError             an app, an Op or a model that cannot be loaded
    └── RequestError          the outcome of one Item
        ├── BadRequest        the client's: syntax, schema, dtype, shape
        ├── NotFound          the client's: no such graph or route
        ├── Unauthenticated   the client's: no token, or a wrong one
        ├── TooLarge          the client's: over a size limit
        ├── Unsupported       the client's: media type or encoding
        ├── BadImage          the client's: bytes that are no image, or too large an image
        ├── UrlForbidden      the client's: a URL that may not be downloaded, or whose host is not found
        ├── FetchFailed       the client's: its URL's origin failed, was slow, or gave no image
        ├── SlowClient        the client's: its body did not arrive in time
        ├── Cancelled         the client left, or the caller gave up
        ├── ProductError      the business's own answer, with its own code
        ├── Overloaded        ours: refused at the door, with the seconds to wait
        ├── Unavailable       ours: starting, draining, or an Op that is out of order
        ├── DeadlineExceeded  the deadline passed, at whatever stage
        ├── OpError           a hook raised, or returned what it may not
        └── WorkerCrashed     the process that ran a hook died under it

A client's fault never has a code that a transport shows as a server's fault.
"""

from __future__ import annotations

import re
import traceback
from typing import Any

MESSAGE_BYTES = 400
"""Most bytes of a message: an error body with its code and request id stays under 512."""

TRACEBACK_CHARACTERS = 16_000
MOST_CAUSES = 16
"""An exception may well be its own cause."""

_PATH = re.compile(r"(?:(?<![\w/])|(?<=file://))(?:/[\w.@+\-]+){2,}/?")


class AsynclineError(Exception):
    """Base of all errors of asyncline."""


class GraphError(AsynclineError):
    """A graph that cannot run. Whose fault: the graph's author."""


class SettingsError(AsynclineError):
    """A setting that is unknown, of a wrong type or out of range."""


class LoadError(AsynclineError):
    """An app, an Op or a model that could not be loaded."""


class RequestError(AsynclineError):
    """The outcome of an Item that has no answer.

    `code` is the transport-neutral outcome; `message` says what was wrong and where.
    """

    code: str | int = "op_error"
    traceback: str = ""
    """For the log only: where a hook raised in another process."""
    was_refused: bool = False
    """Of an error that a client gets: the request was refused at the door, or on its way there. Nothing was run."""

    was_noted: bool = False
    """Of a refusal: observers know of it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = str(message)  # a hook may well pass the exception that it caught

    def at(self, op: str, hook: str) -> RequestError:
        """Name the Op and hook that raised it, once."""
        if not self.message.startswith("op '"):
            self.message = f"op {op!r} {hook}: {self.message}"
        return self

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.__dict__)


def _rebuild(kind: type[RequestError], state: dict[str, Any]) -> RequestError:
    error = kind.__new__(kind)
    error.args = (state.get("message", ""),)
    error.__dict__.update(state)
    return error


class BadRequest(RequestError):
    """Expected error: what the client sent does not fit the graph's fields."""

    code = "bad_request"


class NotFound(RequestError):
    """Expected error: there is no such graph or route."""

    code = "not_found"


class Unauthenticated(RequestError):
    """Expected error: the bearer token is missing or wrong."""

    code = "unauthenticated"


class TooLarge(RequestError):
    """Expected error: the client sent more bytes than the limit."""

    code = "too_large"


class Unsupported(RequestError):
    """Expected error: a media type or content encoding that is not accepted."""

    code = "unsupported"


class BadImage(RequestError):
    """Expected error: bytes that cannot be decoded as an image, or an image over the limits."""

    code = "bad_image"


class UrlForbidden(RequestError):
    """Expected error: a URL that may not be downloaded, or whose host is not found.

    The text is the same for all reasons, so that nobody can explore our network by it.
    """

    code = "url_forbidden"

    def __init__(self, message: str = "this URL may not be downloaded, or its host is not found") -> None:
        super().__init__(message)


class FetchFailed(RequestError):
    """Expected error: the origin of a URL failed, was too slow, or gave too much or no image."""

    code = "fetch_failed"


class SlowClient(RequestError):
    """Expected error: the body did not arrive in time."""

    code = "slow_client"


class Cancelled(RequestError):
    """The client disconnected, or the caller of `submit` was cancelled. Nobody reads this error."""

    code = "cancelled"


class ProductError(RequestError):
    """The business's own refusal, raised by a hook; `code` is the business's own number or word."""

    def __init__(self, code: int | str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def at(self, op: str, hook: str) -> RequestError:
        return self


class Overloaded(RequestError):
    """Refused at the door. `retry_after_s` is when trying again makes sense, in seconds."""

    code = "overloaded"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(RequestError):
    """The server is starting or draining."""

    code = "unavailable"
    retry_after_s = 1


class DeadlineExceeded(RequestError):
    """The Item's deadline, or the `timeout_ms` of an Op, passed."""

    code = "deadline"


class OpError(RequestError):
    """A hook raised or returned what it may not. Whose fault: the Op's author."""

    code = "op_error"


class WorkerCrashed(RequestError):
    """The worker process died, or was killed, while it ran a hook of this Item."""

    code = "worker_crashed"


def public_message(error: BaseException) -> str:
    """What a client may read of `error`: one line without file system paths, at most 400 bytes."""
    text = " ".join(text_of(error).split()) or type(error).__name__
    data = _PATH.sub("<path>", text).encode(errors="replace")  # of a lone surrogate
    if len(data) <= MESSAGE_BYTES:
        return data.decode()
    return data[: MESSAGE_BYTES - 3].decode(errors="ignore") + "..."


def hook_error(error: BaseException, op: str, hook: str) -> RequestError:
    """Translate whatever a hook raised into the outcome of the Item it was working on."""
    if isinstance(error, RequestError):
        _forget_frames(error)
        return error.at(op, hook)
    text = text_of(error).strip()
    name = type(error).__name__
    outcome = OpError(f"op {op!r} {hook}: {name}: {text}" if text else f"op {op!r} {hook}: {name}")
    outcome.__cause__ = error
    outcome.traceback = "".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:]
    _forget_frames(error)
    return outcome


def _forget_frames(error: BaseException | None) -> None:
    """Let go of the frames that an error came through: they hold what the hook worked on, which would stay in
    memory until the collector comes by.
    """
    for _ in range(MOST_CAUSES):
        if error is None:
            return
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def load_error(error: BaseException, op: str, hook: str) -> LoadError:
    """Translate whatever `init_op` or `load_model` raised into one line for the operator, paths and all."""
    text = " ".join(text_of(error).split())
    if not isinstance(error, LoadError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    outcome = LoadError(f"op {op!r} {hook}: {text}")
    outcome.__cause__ = error
    return outcome


def text_of(error: BaseException) -> str:
    """What it says, if it can say anything."""
    try:
        return str(error)
    except Exception:  # `__str__` is the user's code too
        return ""
