"""One arrangement of a model, in a process of its own: `replicas` of `threads` each, raw and in an Engine.

    python -m loadtest.models_contest SOURCE --threads 1 --replicas 2 [--plain-malloc]

SOURCE is the ONNX file of `conv_net`, or what makes its torch Module. Raw is a loop in a thread of each replica that
does nothing but run the Session of that replica on a batch that is there; ours is a `Model` in an Engine whose
clients submit single samples. Each line on stdin, `raw BATCH SECONDS` or `ours BATCH SECONDS`, is a turn, answered by
a line of JSON.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np
import uvloop

from asyncline import Engine, Graph
from asyncline.backends import Model, OnnxSession, Session, TorchSession
from asyncline.tuning import set_library_threads, tune_malloc
from loadtest.batching_clients import keep_busy, steady_per_s
from loadtest.child import START_S, Child
from loadtest.models_nets import INPUT, Array, conv_net
from loadtest.report import BenchmarkFailed

NET = conv_net()
SAMPLES = 8
"""Different ones; a multiple of every size of a batch."""
LEAST_RUNS = 4
"""Of each replica in a turn, however long they take on a machine that is busy."""
CLIENTS = 4
"""For each sample of a batch of every replica: some run, some are staged, and some are on their way."""
WARM_S = 0.2


@dataclass(frozen=True)
class Speed:
    """What one arrangement did in one turn."""

    per_s: float
    cpu_ms: float
    """CPU time of one image, of all threads."""


class Contest:
    """One arrangement, in a child process; for the length of a `with`.

    :param source: an ONNX file, or `module:attr` of a torch Module.
    """

    def __init__(self, source: str, threads: int, replicas: int, *, tuned: bool = True) -> None:
        self.name = f"{replicas} × {threads} thread{'s' if threads > 1 else ''}"
        arguments = [source, "--threads", str(threads), "--replicas", str(replicas)]
        self._child = Child(
            "loadtest.models_contest", *arguments, *([] if tuned else ["--plain-malloc"]), hears="stdout"
        )

    def __enter__(self) -> Self:
        self._child.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._child.__exit__(kind, error, traceback)

    def raw(self, batch: int, seconds: float) -> Speed:
        return self._turn("raw", batch, seconds)

    def ours(self, batch: int, seconds: float) -> Speed:
        return self._turn("ours", batch, seconds)

    def _turn(self, way: str, batch: int, seconds: float) -> Speed:
        self._child.say(f"{way} {batch} {seconds}")
        return Speed(**json.loads(self._child.line(START_S + seconds)))


class Raw:
    """Sessions that run, each in a thread of its own."""

    def __init__(self, source: str, threads: int, replicas: int, samples: list[Array]) -> None:
        self._samples = samples
        self._threads = [ThreadPoolExecutor(1) for _ in range(replicas)]
        opening = [thread.submit(_session, source, threads) for thread in self._threads]
        self._sessions = [opened.result() for opened in opening]

    def answers(self) -> Array:
        """Of one run, for comparison."""
        answers: Array = self._threads[0].submit(self._sessions[0].run, self._samples).result()
        return answers

    def per_s(self, batch: int, seconds: float) -> tuple[float, int]:
        """Images a second, and how many there were."""
        # As many samples as ours get, for caches to make no difference.
        batches = [np.stack(self._samples[start : start + batch]) for start in range(0, SAMPLES, batch)]
        until = time.perf_counter() + seconds
        running = [
            thread.submit(_runs, session, batches, until)
            for thread, session in zip(self._threads, self._sessions, strict=True)
        ]
        ended_at = np.concatenate([runs.result() for runs in running])
        return batch * steady_per_s(ended_at), batch * len(ended_at)

    def close(self) -> None:
        for thread, session in zip(self._threads, self._sessions, strict=True):
            thread.submit(session.close)
            thread.shutdown()


class Ours:
    """The same Sessions in an Engine, of batches of up to `batch`."""

    def __init__(self, source: str, threads: int, replicas: int, samples: list[Array], batch: int) -> None:
        model = Model(source, info=NET.info, batch_size=batch, concurrency=replicas, threads=threads)
        self._payloads = [{INPUT: sample} for sample in samples]
        self._clients = CLIENTS * batch * replicas
        self._loop = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        # Nothing watches the loop, which stands still while the raw ones have their turn.
        self._engine = Engine(Graph("net", model), blocked_s=None)
        self._loop.run(self._engine.start())

    def answers(self) -> Array:
        async def ask() -> list[Array]:
            return [await self._engine.submit(payload) for payload in self._payloads]

        return np.stack(self._loop.run(ask()))

    def per_s(self, seconds: float) -> tuple[float, int]:
        """Images a second, and how many there were."""
        answered_at = self._loop.run(keep_busy(self._engine.submit, self._payloads, self._clients, seconds))
        return steady_per_s(answered_at), len(answered_at)

    def close(self) -> None:
        self._loop.run(self._engine.close())
        self._loop.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--replicas", type=int, required=True)
    parser.add_argument("--plain-malloc", action="store_true")
    options = parser.parse_args()

    set_library_threads(options.threads)
    if not options.plain_malloc and not tune_malloc():
        raise BenchmarkFailed("malloc cannot be tuned on this machine")
    what = options.source, options.threads, options.replicas, NET.samples(SAMPLES)
    with ExitStack() as stack:
        raw = Raw(*what)
        stack.callback(raw.close)
        expected = raw.answers()
        ours: dict[int, Ours] = {}
        for line in sys.stdin:
            turn: Callable[[float], tuple[float, int]]
            way, batch, seconds = line.split()
            size = int(batch)
            if way == "raw":
                turn = partial(raw.per_s, size)
            else:
                if size not in ours:
                    ours[size] = Ours(*what, size)
                    stack.callback(ours[size].close)
                    _compare(ours[size].answers(), expected)
                turn = ours[size].per_s
            turn(WARM_S)
            cpu_s = time.process_time()
            per_s, count = turn(float(seconds))
            speed = Speed(per_s, 1e3 * (time.process_time() - cpu_s) / count)
            print(json.dumps(asdict(speed)), flush=True)


def _session(source: str, threads: int) -> Session:
    if source.endswith(".onnx"):
        return OnnxSession(source, threads=threads)
    return TorchSession(source, threads=threads, info=NET.info)


def _runs(session: Session, batches: list[Array], until: float) -> list[float]:
    ended_at: list[float] = []
    while time.perf_counter() < until or len(ended_at) < LEAST_RUNS:
        session.run(batches[len(ended_at) % len(batches)])
        ended_at.append(time.perf_counter())
    return ended_at


def _compare(answers: Array, expected: Array) -> None:
    """:raises BenchmarkFailed: they are not those of the raw Session."""
    # Sums depend on the size of a batch.
    if not np.allclose(answers, expected, rtol=1e-3, atol=1e-3):
        raise BenchmarkFailed(f"answers differ by up to {np.abs(answers - expected).max():g}")


if __name__ == "__main__":
    main()
