"""`asyncline serve --reload`: a parent that starts the server again when a file changes. For development."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from asyncline.errors import LoadError

SUFFIXES = {".py", ".yml", ".yaml"}
STOP_S = 25.0
"""How long a server may take to drain before it is killed."""


def run_reloading(arguments: list[str], console: Console) -> int:
    """Run `asyncline ARGUMENTS` as a child and again after each change, until a signal; returns its exit code.

    :raises LoadError: the package that watches files is missing.
    """
    try:
        from watchfiles import watch
    except ImportError:
        raise LoadError("--reload needs watchfiles: pip install 'asyncline[dev]'") from None
    # `watch` ends at SIGINT by itself; SIGTERM should do the same. A shell's background jobs ignore SIGINT at first.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    child = _start(arguments)
    try:
        for changes in watch(Path.cwd(), watch_filter=lambda _, path: Path(path).suffix in SUFFIXES):
            names = ", ".join(sorted({Path(path).name for _, path in changes}))
            console.print(f"{names} changed: starting again")
            _stop(child)
            child = _start(arguments)
    except KeyboardInterrupt:
        pass
    finally:
        code = _stop(child)
    return code


def _start(arguments: list[str]) -> subprocess.Popen[bytes]:
    # In a session of its own: Ctrl-C would reach it too, and be the first of two signals.
    return subprocess.Popen([sys.executable, "-m", "asyncline", *arguments], start_new_session=True)


def _stop(child: subprocess.Popen[bytes]) -> int:
    if child.poll() is None:
        child.terminate()
    try:
        return child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()
