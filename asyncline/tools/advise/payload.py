"""What `--sample` names, as values of the Request."""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path
from typing import Any

from asyncline.errors import RequestError, SettingsError, hook_error
from asyncline.graph.request import Input, Request
from asyncline.transports.rest.body import BodyDecoder


def read_values(sample: str, request: Request) -> dict[Input, Any]:
    """The values of `request` and its fields: from a file, as REST takes it for a body, or from JSON as it stands.

    :raises SettingsError: `sample` is neither a file nor JSON, or nothing that `request` takes.
    """
    is_file = os.path.isfile(sample)
    try:
        body = Path(sample).read_bytes() if is_file else sample.encode(errors="surrogateescape")
        payload = BodyDecoder(request).decode(body, media_type(sample) if is_file else "application/json")
        values = request.unpack(payload)
    except OSError as error:
        raise SettingsError(f"--sample: cannot read {sample}: {error.strerror}") from error
    except Exception as error:  # a subclass's `unpack` is user code
        what = sample if is_file else f"{sample[:80]!r} is no file here, and as JSON"
        reason = error if isinstance(error, RequestError) else hook_error(error, "request", "unpack")
        raise SettingsError(f"--sample: {what}: {reason}") from error
    if not request.fields:
        return {request: values}
    return {getattr(request, name): values[name] for name in request.fields}


def media_type(name: str) -> str:
    """By the name alone; empty where that tells nothing, so that the Request decides."""
    if name.lower().endswith(".msgpack"):
        return "application/msgpack"
    return mimetypes.guess_type(name, strict=False)[0] or ""
