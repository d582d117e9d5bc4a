"""One call to a server, by whatever wire."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from asyncline.client.address import Address
from asyncline.client.async_client import AsyncClient
from asyncline.client.base import Malformed, Refused
from asyncline.errors import (
    DeadlineExceeded,
    OpError,
    Overloaded,
    ProductError,
    RequestError,
    SettingsError,
    Unauthenticated,
    Unavailable,
    WorkerCrashed,
)
from asyncline.tools.call.answer import as_it_is, as_json, take_bytes

EXITS: tuple[tuple[type[RequestError], int], ...] = (
    (ProductError, 1),
    (Overloaded, 75),
    (Unavailable, 69),
    (Malformed, 76),
    (OpError, 70),
    (WorkerCrashed, 70),
    (Unauthenticated, 77),
    (DeadlineExceeded, 124),
    (RequestError, 65),
)
"""Of sysexits.h, and of timeout(1) for the deadline; the first that fits. The last is a request that was wrong."""

_PORTS = {"http": "--http-port", "grpc": "--grpc-port", "tcp": "--tcp-port"}


def call(
    url: str,
    graph: str,
    payload: Any,
    *,
    output: Literal["json", "raw"] = "json",
    file: Path | None = None,
    stream: bool = False,
    say: Callable[[str], None],
    **options: Any,
) -> int:
    """Make the call, write its answer to standard output, and return the exit code.

    :param file: for the bytes or the array of the answer.
    :param say: tells a person what went wrong.
    :param options: `timeout`, `log_id`, `token`, `priority`; None: as if it were not there.
    :raises SettingsError: the address is malformed, or the answer does not fit what is asked for.
    """
    given = {key: value for key, value in options.items() if value is not None}
    token = given.pop("token", None)
    try:
        client = AsyncClient(url, token=token)
    except ValueError as error:
        raise SettingsError(str(error)) from None

    def write(answer: Any) -> None:
        if file is not None:
            data, answer = take_bytes(answer)
            _save(file, data)
            if answer is None:
                return
        text = as_it_is(answer) if output == "raw" else as_json(answer)
        ending = b"" if output == "raw" and isinstance(answer, (bytes, type(None))) else b"\n"
        sys.stdout.buffer.write(text + ending)
        sys.stdout.buffer.flush()

    async def run() -> None:
        async with client:
            if stream:
                async for part in client.stream(graph, payload, **given):
                    write(part)
            else:
                write(await client(graph, payload, **given))

    try:
        asyncio.run(run())
    except RequestError as error:
        say(_explain(error, url))
        return next(code for kind, code in EXITS if isinstance(error, kind))
    except ValueError as error:  # of an option
        raise SettingsError(str(error)) from None
    except KeyboardInterrupt:
        return 130
    return 0


def _save(file: Path, data: bytes) -> None:
    try:
        file.write_bytes(data)
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror or error}") from None


def _explain(error: RequestError, url: str) -> str:
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    text = f"{error.code}: {error}{notes}"
    if (cause := error.__cause__) is not None and "certificate" in str(cause):
        return f"{text}: {cause}"
    if isinstance(error, Refused):
        address = Address.parse_all(url)[0]
        text += f"\nIs a server running there? asyncline serve APP {_PORTS[address.kind]} {address.port}"
    return text
