"""Formats of log lines. What an Item causes carries its ids, and the hook that it happened in."""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from typing import Any

from asyncline.wire import json

IDS = ("data_id", "log_id", "op", "hook")


class TextFormatter(logging.Formatter):
    """Any layout, with `[data_id=7 log_id=abc op=detect hook=preprocess]` at the end of the first line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        ids = " ".join(f"{key}={value}" for key in IDS if (value := getattr(record, key, None)) not in (None, ""))
        if not ids:
            return line
        first, newline, rest = line.partition("\n")
        return f"{first} [{ids}]{newline}{rest}"


class ConsoleFormatter(TextFormatter):
    """`12:30:01 WARNING message [data_id=7 log_id=abc]`, and the traceback below."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")


class FileFormatter(TextFormatter):
    """As Paddle Serving's `pipeline.log`."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(asctime)s [%(filename)s:%(lineno)d] %(message)s")


class TracerFormatter(logging.Formatter):
    """As Paddle Serving's `pipeline.tracer`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s")


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC), level, logger, message, ids where there are some, traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key in IDS if (value := getattr(record, key, None)) not in (None, "")}
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        elif record.exc_text:
            line["traceback"] = record.exc_text
        return encode(line)


def encode(line: dict[str, Any]) -> str:
    """As JSON, whatever its texts hold."""
    try:
        return json.encode(line).decode()
    except Exception:  # a lone surrogate, as in a file's name that is no UTF-8; or an id of a user's own type
        return json.encode({key: str(text).encode(errors="replace").decode() for key, text in line.items()}).decode()


def encode_text(text: str) -> str:
    """As a JSON string, whatever it holds."""
    try:
        return json.encode(text).decode()
    except Exception:  # a lone surrogate
        return json.encode(text.encode(errors="replace").decode()).decode()
