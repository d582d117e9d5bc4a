"""DrivenServer: a server under load by a client in a process of its own; and that client's side.

The client reads a line of JSON on stdin for each run, and writes one on stdout.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.child import START_S, Child


@dataclass(frozen=True)
class Done:
    """What a client did."""

    count: int
    seconds: float
    cpu_s: float
    """Of its process."""

    @property
    def per_s(self) -> float:
        return self.count / self.seconds


@dataclass(frozen=True)
class Turn:
    """What one run did to a server."""

    per_s: float
    cpu_us: float
    """CPU time of the server for one request."""
    client_cores: float = 0.0
    """CPU time of the client, of that of one core."""


class DrivenServer:
    """:param scheme: by which it says where it listens."""

    def __init__(self, child: Child, client: Child, scheme: str) -> None:
        self._child = child
        self._client = client
        while not (match := re.search(rf"on {scheme}://([\d.]+):(\d+)", child.line(START_S))):
            pass
        self.host, self.port = match[1], int(match[2])

    def turn(self, run: Any) -> Turn:
        """:param run: what the client is told, a dataclass with `seconds`."""
        before = self._child.cpu_s()
        self._client.say(json.dumps(asdict(run)))
        done = Done(**json.loads(self._client.line(run.seconds + START_S)))
        cpu_us = (self._child.cpu_s() - before) / done.count * 1e6
        return Turn(done.per_s, cpu_us, done.cpu_s / done.seconds)


def drive(kind: Callable[..., Any], do: Callable[[Any], int]) -> None:
    """The client: do runs of that kind, as they are told, each of which gets a number of answers."""
    for line in sys.stdin:
        run = kind(**json.loads(line))
        began_at, cpu_s = time.monotonic(), time.process_time()
        count = do(run)
        done = Done(count, time.monotonic() - began_at, time.process_time() - cpu_s)
        print(json.dumps(asdict(done)), flush=True)
