"""Two requests under load in turns of a twentieth of a second, to one server or to two, by one wrk.

Other work on a machine changes its speed from second to second, by more than what is looked for: turns that are shorter
than that meet the same of it. Two servers meet each turn with nothing of theirs in the core's caches: then a median of
many says less than one of long turns does, where one of them has much more code than the other.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from loadtest.echo import CONNECTIONS
from loadtest.report import BenchmarkFailed

SCRIPT = Path(__file__).with_name("alternate.lua")
TURN_MS, BEGINNING_MS = 50, 10
"""A turn, and its part in which nothing counts: answers to the other are on their way still."""


@dataclass(frozen=True)
class Target:
    """What one of them sends, and where to."""

    url: str
    body: str


@dataclass(frozen=True)
class Turn:
    requests_per_s: float


def alternate(first: Target, second: Target, seconds: int) -> list[tuple[Turn, Turn]]:
    """Load both in turns with CONNECTIONS each, for so long in all.

    :raises BenchmarkFailed: not all were answered with 200.
    """
    arguments = []
    for target in (first, second):
        at = urlsplit(target.url)
        arguments += [str(at.hostname), str(at.port), at.path, target.body]
    arguments += [str(TURN_MS), str(BEGINNING_MS)]
    command = ["wrk", "-t2", f"-c{2 * CONNECTIONS}", f"-d{seconds}s", f"-s{SCRIPT}", first.url, "--", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=True)
    except subprocess.SubprocessError as error:
        raise BenchmarkFailed(f"wrk of {first.url}: {error}") from error
    found = re.findall(r"^ALTERNATE\t\d\t(\d+)\t(\S+)$", done.stdout, re.MULTILINE)
    if len(found) != 2 or any(status != "200" for status, _ in found) or "Socket errors" in done.stdout:
        raise BenchmarkFailed(f"wrk of {first.url} and {second.url} said:\n{done.stdout}")
    ours, theirs = ({int(pair): int(count) for pair, count in re.findall(r"(\d+):(\d+)", said)} for _, said in found)
    # The first and the last pair of turns are parts of some.
    whole = sorted(ours.keys() & theirs.keys())[1:-1]
    if not whole:
        raise BenchmarkFailed(f"wrk of {first.url} and {second.url}: no turn of {seconds} s was whole")
    counted_s = (TURN_MS - BEGINNING_MS) / 1e3
    return [(Turn(ours[pair] / counted_s), Turn(theirs[pair] / counted_s)) for pair in whole]
