"""`asyncline serve --supervise`: a small parent that holds the listening sockets, and starts the server again.

A server whose device has failed can only help itself by ending (exit code 70), and one that was killed not at
all. Meanwhile clients wait in the sockets' queues; none is refused.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from types import FrameType

from rich.console import Console

from asyncline.engine.lanes.supervision import Restarts
from asyncline.errors import LoadError
from asyncline.exits import Exit
from asyncline.settings import ServiceSettings
from asyncline.transports.base import BACKLOG

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SET_PDEATHSIG = 1


def run_supervised(arguments: list[str], service: ServiceSettings, console: Console) -> int:
    """Run `asyncline ARGUMENTS` as a child that gets the listening sockets, and again when it fails.

    :returns: the exit code of a server that was stopped or cannot be helped by another start, or Exit.GAVE_UP.
    :raises LoadError: an address is taken or not ours.
    """
    ports = {"http": service.http_port, "grpc": service.grpc_port, "tcp": service.tcp_port}
    with ExitStack() as sockets:
        descriptors = []
        for name, port in ports.items():
            if port is not None:
                listener = sockets.enter_context(_listen(service.host, port, f"--{name}-port"))
                descriptors.append(listener.fileno())
                arguments = [*arguments, f"--{name}-fd", str(listener.fileno())]
        return Supervisor(arguments, descriptors, console).run()


def _listen(host: str, port: int, option: str) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise LoadError(f"cannot listen on {host}:{port}: {reason} (see {option})") from error


class Supervisor:
    """Keeps one server running."""

    def __init__(self, arguments: list[str], descriptors: Iterable[int], console: Console) -> None:
        self._arguments = arguments
        self._descriptors = tuple(descriptors)
        self._console = console
        self._restarts = Restarts()
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def run(self) -> int:
        for number in SIGNALS:
            signal.signal(number, self._pass_on)
        code, restarted = 0, False
        while not self._stopping:
            self._child = self._start()
            if self._stopping:  # by a signal that came while there was no child to pass it on to
                self._child.terminate()
            code = self._child.wait()
            # One that never served has to be mended by its user.
            if self._stopping or (code != Exit.FAULT and code >= 0 and not (restarted and code == Exit.LOAD)):
                break
            restarted = True
            self._restarts.died(time.monotonic())
            what = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            if self._restarts.delay_s(time.monotonic()):
                self._console.print(f"[red]the server {what}, again and again: giving up[/]")
                return Exit.GAVE_UP
            self._console.print(f"[yellow]the server {what}: starting again[/]")
        return code if code >= 0 else 128 - code

    def _start(self) -> subprocess.Popen[bytes]:
        # In a session of its own: Ctrl-C would reach it too, and be the first of two signals.
        return subprocess.Popen(
            [sys.executable, "-m", "asyncline", *self._arguments],
            start_new_session=True,
            pass_fds=self._descriptors,
            preexec_fn=_stop_with_parent,  # there are no threads here
        )

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)


def _stop_with_parent() -> None:
    """Have the kernel send this process a SIGTERM when the supervisor ends, however it ends."""
    ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGTERM)
