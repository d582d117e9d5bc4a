"""Child: a subprocess that says things line by line, ended by its own handle."""

import os
import re
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Literal, Self

from loadtest.report import BenchmarkFailed

ROOT = Path(__file__).parent.parent
START_S, END_S = 120.0, 30.0
ADDRESS = re.compile(r"^serving \S+ on (http://[\d.]+:\d+)")


class Child:
    """`python -m MODULE ARGUMENTS` from the root of the checkout, for the length of a `with`.

    :param hears: the stream whose lines `line` returns; the other one is ours.
    """

    def __init__(self, module: str, *arguments: str, hears: Literal["stdout", "stderr"] = "stderr") -> None:
        self.name = " ".join((module, *arguments))
        self._command = [sys.executable, "-m", *(module, *arguments)]
        self._hears = hears
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._last: deque[str] = deque(maxlen=10)

    def __enter__(self) -> Self:
        # Settings of the environment would change what is measured; rich breaks lines at COLUMNS.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ASYNCLINE_")}
        # Other wires than REST are opened by whoever measures them.
        environment |= {"ASYNCLINE_GRPC_PORT": "null", "ASYNCLINE_TCP_PORT": "null"}
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env={**environment, "COLUMNS": "200"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if self._hears == "stdout" else None,
            stderr=subprocess.PIPE if self._hears == "stderr" else None,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, name=f"lines of {self.name}", daemon=True)
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(END_S)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_s(self) -> float:
        """CPU seconds so far, of all its threads; in steps of 10 ms."""
        # After the name, which may hold spaces: state is field 3, utime 14 and stime 15.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise BenchmarkFailed(f"{self.name} does not listen: {error}") from error

    def line(self, timeout_s: float) -> str:
        """The next line it says.

        :raises BenchmarkFailed: it ended, or said nothing in time.
        """
        try:
            line = self._lines.get(timeout=timeout_s)
        except Empty:
            raise BenchmarkFailed(f"{self.name} said nothing for {timeout_s:g} s") from None
        if line is None:
            self._lines.put(None)  # for whoever asks next
            raise BenchmarkFailed(f"{self.name} ended: {' / '.join(self._last)}")
        return line

    def address(self) -> str:
        """Where it serves, once it says so."""
        while not (match := ADDRESS.match(self.line(START_S))):
            pass
        return match[1]

    def _listen(self) -> None:
        stream = self._process.stdout or self._process.stderr
        assert stream is not None
        for line in stream:
            self._last.append(line.rstrip())
            self._lines.put(line.rstrip())
        self._lines.put(None)
