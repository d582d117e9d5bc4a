"""That no answer goes to another request: calls by the hundred thousand, of which each has to get its own nonce back.

    python -m loadtest.nonces [--wire tcp,grpc,http] [--requests 1000000] [--seconds 1800] [--seed 1]

CALLERS call at a time and share connections. At random a call is cancelled, has a deadline that is too short, or its
connections are closed under all who use them, to be opened anew. The graph answers inline, out of batches that mix
connections, or out of a pool of processes; some requests bring an array that is full of their nonce. Exit code 1 when
an answer was another's, a call failed in a way that nobody asked for, or --requests calls took more than --seconds.
"""

import argparse
import asyncio
import random
import re
import sys
import time
from collections import Counter

import numpy as np
import uvloop

from asyncline.client import AsyncClient
from asyncline.errors import RequestError
from loadtest.child import START_S, Child
from loadtest.nonces_graph import BATCHED, INLINE, POOLED
from loadtest.report import BenchmarkFailed

APP = "loadtest.nonces_graph:graph"
WIRES = ("tcp", "grpc", "http")
CALLERS, SHARING = 64, 16
"""How many call at a time, and how many of them by the same client."""
WAYS = (INLINE,) * 8 + (BATCHED,) * 3 + (POOLED,)
CANCELLED, LATE, FILLED, LEAVES = 0.12, 0.06, 0.1, 0.002
"""Shares of the calls: those that are cancelled, that have too short a deadline, that bring an array; and those before
which the caller leaves its connections."""
HASTE_S = 0.03
"""Most until a call is cancelled, and longest of the short deadlines."""
MOST_ELEMENTS = 4096
TIMEOUT_S = 60.0
EXPECTED = ("deadline", "unavailable", "overloaded")
"""What becomes of calls whose connection is closed, that are late, or for which there is no room."""


class Storm:
    """Calls to one server by one wire."""

    def __init__(self, url: str, requests: int, chance: random.Random) -> None:
        self._url = url
        self._nonces = iter(range(requests))
        self._chance = chance
        self._clients: dict[int, AsyncClient] = {}
        #: Calls by what became of them.
        self.outcomes: Counter[str] = Counter()
        #: How often connections were closed under those who used them.
        self.left = 0

    async def run(self) -> None:
        """:raises BenchmarkFailed: an answer was another's, or a call failed as none should."""
        try:
            async with asyncio.TaskGroup() as callers:
                for number in range(CALLERS):
                    callers.create_task(self._caller(number // SHARING))
        finally:
            for client in self._clients.values():
                await client.close()

    async def _caller(self, group: int) -> None:
        for nonce in self._nonces:
            if self._chance.random() < LEAVES and (left := self._clients.pop(group, None)) is not None:
                self.left += 1
                await left.close()
            client = self._clients.get(group)
            if client is None:
                client = self._clients[group] = AsyncClient(self._url, retries=0, timeout=TIMEOUT_S)
            self.outcomes[await self._call(client, nonce)] += 1

    async def _call(self, client: AsyncClient, nonce: int) -> str:
        """What became of it."""
        chance = self._chance
        asked = {"nonce": nonce, "way": chance.choice(WAYS)}
        if chance.random() < FILLED:
            asked["filled"] = np.full(chance.randrange(MOST_ELEMENTS), nonce)
        kind, haste_s = chance.random(), chance.uniform(1e-3, HASTE_S)
        try:
            async with asyncio.timeout(haste_s if kind < CANCELLED else None):
                answer = await client("nonces", asked, timeout=haste_s if kind > 1 - LATE else None)
        except TimeoutError:
            return "cancelled"
        except RequestError as error:
            if error.code not in EXPECTED:
                raise BenchmarkFailed(f"nonce {nonce}: {error.code}: {error}") from error
            return str(error.code)
        if not _is_own(asked, answer):
            raise BenchmarkFailed(f"nonce {nonce} got the answer of another: {answer!r:.500}")
        return "answered"


def _is_own(asked: dict[str, object], answer: object) -> bool:
    if not isinstance(answer, dict) or answer.keys() != asked.keys():
        return False
    return all(np.array_equal(value, answer[name]) for name, value in asked.items())


def main() -> int:
    """Returns the exit code."""
    options = _options()
    with Child("asyncline", "serve", options.app, "--http-port", "0", "--grpc-port", "0", "--tcp-port", "0") as server:
        urls = {}
        while len(urls) < len(WIRES):
            if match := re.search(r"on ((\w+)://[\d.]+:\d+)", server.line(START_S)):
                urls[match[2]] = match[1]
        for wire in options.wire:
            storm = Storm(urls[wire], options.requests, random.Random(options.seed))
            began_at, failed = time.monotonic(), ""
            try:
                uvloop.run(asyncio.wait_for(storm.run(), options.seconds))
            except* BenchmarkFailed as failures:
                failed = f"FAILED: {failures.exceptions[0]}; "
            except* TimeoutError:
                failed = f"FAILED: not done within {options.seconds:g} s; "
            found = ", ".join(f"{count} {what}" for what, count in storm.outcomes.most_common())
            took_s = time.monotonic() - began_at
            print(f"{wire}: {failed}{storm.outcomes.total()} calls in {took_s:.0f} s: {found}; "
                  f"connections were left {storm.left} times", flush=True)  # fmt: skip
            if failed:
                return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.nonces", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--wire", type=_wires, default=WIRES, help=f"some of {','.join(WIRES)}")
    parser.add_argument("--requests", type=int, default=1_000_000, help="calls by each wire")
    parser.add_argument("--seconds", type=float, default=1800, help="most for one wire")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--app", default=APP, help="module:attr of another graph that answers with what it gets")
    return parser.parse_args()


def _wires(value: str) -> tuple[str, ...]:
    wires = tuple(value.split(","))
    if unknown := set(wires) - set(WIRES):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(WIRES)}")
    return wires


if __name__ == "__main__":
    sys.exit(main())
