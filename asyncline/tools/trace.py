"""`asyncline trace`: fetches the timeline of a server, and sums up one in a file."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from asyncline.errors import AsynclineError, SettingsError
from asyncline.observe.timeline.summary import summary

TIMEOUT_S = 30.0
MOST_NBYTES = 1 << 30
_PROBE_S = 0.001


class TraceFailed(AsynclineError):
    """There is no trace to be had: no server, no token, or no timeline."""


def record(
    url: str, seconds: float, file: Path, token: str | None, sleep: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """Wait `seconds`, write what the server did meanwhile to `file`, and say what is in it.

    :raises SettingsError: the URL or the file cannot be.
    :raises TraceFailed: the server does not give it.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"{url!r}: give the REST address of a server, as http://localhost:8000")
    if not file.parent.is_dir():
        raise SettingsError(f"{file}: there is no folder {file.parent}")
    page = f"{parts.scheme}://{parts.netloc}/admin/timeline"
    _fetch(page, _PROBE_S, token)  # so that what is wrong is said before the wait
    sleep(seconds)
    data = _fetch(page, seconds, token)
    try:
        trace = json.loads(data)
        said = list(summary(trace))
    except ValueError as error:
        if "there is no request" not in str(error):
            raise TraceFailed(f"{url} answered with no trace: is that a server of asyncline?") from None
        said = [f"no request ended in {seconds:g} s"]
    try:
        file.write_bytes(data)
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    yield from said
    yield f"written to {file}: open it with https://ui.perfetto.dev or chrome://tracing"


def summarise(file: Path) -> Iterator[str]:
    """What is in a trace file.

    :raises SettingsError: it cannot be read, or is no trace.
    """
    try:
        trace: Any = json.loads(file.read_bytes())
        if not isinstance(trace, dict):
            raise ValueError("no JSON object")
        yield from summary(trace)
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"{file} is no trace of asyncline: {error}") from None


def _fetch(page: str, seconds: float, token: str | None) -> bytes:
    request = urllib.request.Request(f"{page}?seconds={seconds:g}")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    # No proxy: the page answers to the server's own machine, or to whoever has the token.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            data = bytes(answer.read(MOST_NBYTES + 1))
    except urllib.error.HTTPError as error:
        with error:
            raise TraceFailed(_explain(error)) from None
    except urllib.error.URLError as error:
        reason = error.reason
        why = reason.strerror if isinstance(reason, OSError) and reason.strerror else reason
        raise TraceFailed(f"no server answers at {page.removesuffix('/admin/timeline')}: {why}") from None
    except (OSError, http.client.HTTPException) as error:
        raise TraceFailed(f"the server broke off: {error or type(error).__name__}") from None
    if len(data) > MOST_NBYTES:
        raise TraceFailed("the timeline has more than a GB: ask for fewer seconds")
    return data


def _explain(error: urllib.error.HTTPError) -> str:
    try:
        message = json.loads(error.read(65536))["message"]
    except (ValueError, KeyError, TypeError, OSError):
        return f"the server answered {error.code}: is that one of asyncline?"
    return f"the server refuses: {message}" + (" (see --token)" if error.code == 401 else "")
