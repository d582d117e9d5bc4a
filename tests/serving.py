"""Serve an app as a user does: `asyncline serve` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SERVICES = Path(__file__).parent / "services"
_READY = re.compile(r"serving \S+ on (http\S+)")


class Process:
    """A running `asyncline` command; what it wrote to stderr is in `lines`."""

    program: tuple[str, ...] = ("-m", "asyncline")

    def __init__(self, *arguments: str, cwd: Path = SERVICES, env: dict[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, *self.program, *arguments],
            cwd=cwd,
            # Whoever wants another wire than REST gives its port: those by default may be taken.
            env={
                **os.environ,
                "COLUMNS": "200",
                "ASYNCLINE_GRPC_PORT": "null",
                "ASYNCLINE_TCP_PORT": "null",
                **(env or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        """Read stderr up to a line with `pattern`."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"it ended without {pattern!r}: {''.join(self.lines)}")

    def end(self) -> tuple[int, str]:
        """Wait for its end; the exit code and all of stderr."""
        _, rest = self.process.communicate(timeout=50)
        return self.process.returncode, "".join(self.lines) + rest


class Server(Process):
    """A running server; `address` is where it listens."""

    def __init__(self, app: str, *arguments: str, cwd: Path = SERVICES, env: dict[str, str] | None = None) -> None:
        super().__init__("serve", app, "--http-port", "0", *arguments, cwd=cwd, env=env)
        self.address = self.wait_for(_READY)[1]

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        """POST JSON, or bytes as they are; the status and the decoded answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        return self._open(urllib.request.Request(self.address + path, data, headers))

    def get(self, path: str) -> tuple[int, Any]:
        return self._open(urllib.request.Request(self.address + path))

    @staticmethod
    def _open(request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=50) as response:
                status, body = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        try:
            return status, json.loads(body)
        except ValueError:
            return status, body.decode()


@contextmanager
def serving(app: str, *arguments: str, cwd: Path = SERVICES, env: dict[str, str] | None = None) -> Iterator[Server]:
    """Serve `app`, and stop it politely."""
    server = Server(app, *arguments, cwd=cwd, env=env)
    try:
        yield server
    finally:
        server.process.terminate()
        server.end()


def run(*arguments: str, cwd: Path = SERVICES, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run an `asyncline` command to its end: exit code, stdout, stderr."""
    process = Process(*arguments, cwd=cwd, env=env)
    out, err = process.process.communicate(timeout=50)
    return process.process.returncode, out, err
