"""`asyncline leak check`: run a graph in this process, request by request, and say whether memory goes with them."""

from __future__ import annotations

import asyncio
import enum
import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncline.engine.engine import Engine
from asyncline.errors import RequestError, SettingsError
from asyncline.graph.graph import Graph
from asyncline.graph.plan import Plan
from asyncline.observe.leaks.judge import Axis, Finding, judge
from asyncline.observe.leaks.sample import Samples, count_tasks, take
from asyncline.tools.advise.payload import media_type
from asyncline.transports.rest.body import BodyDecoder

SAMPLES = 40
WARM_UP = 0.25
"""Part of the requests that come before the first sample: pools, caches and the allocator fill."""
AT_ONCE = 8
MOST_COUNT = 0.001
"""Tasks, descriptors or threads a request that may be added."""
NO_INPUT = "no request to send: write Op.example or pass --input"


class Verdict(enum.IntEnum):
    """Exit codes."""

    CLEAN = 0
    LEAK = 1
    INCONCLUSIVE = 2
    FAILED = 3


@dataclass(frozen=True)
class Report:
    verdict: Verdict
    text: str


def check(plan: Plan, requests: int, payload: str | None, max_slope: float, note: Callable[[str], None]) -> Report:
    """Run `requests` requests and judge.

    :param payload: of each request: a file, as REST takes it for a body, or JSON; None: what `Op.example` returns.
    :param max_slope: bytes a request that memory may grow by.
    :raises SettingsError: there is no payload.
    :raises LoadError: an Op cannot be made ready.
    """
    return asyncio.run(_run(plan, requests, payload, max_slope, note))


async def _run(plan: Plan, requests: int, text: str | None, max_slope: float, note: Callable[[str], None]) -> Report:
    body = None if text is None else _read(text)
    async with Engine(plan.graph, plan.settings, blocked_s=None) as engine:
        made = await asyncio.to_thread(_example, plan.graph) if body is None else None
        decoder = BodyDecoder(plan.graph.request)

        def payload() -> Any:
            # Anew for each, as a client would send it: a hook may keep or change it.
            return made if body is None else decoder.decode(*body)

        failed: list[RequestError] = []
        warm_up = int(requests * WARM_UP)
        done = 0
        samples = Samples(SAMPLES + 1)
        for number in range(SAMPLES + 1):
            until = warm_up + (requests - warm_up) * number // SAMPLES
            await _submit(engine, payload, until - done, failed)
            done = until
            note(f"{done} of {requests} requests")
            if len(failed) * 100 > requests:
                return Report(Verdict.FAILED, f"{len(failed)} of {done} requests failed, the last: {failed[-1]}")
            gc.collect()
            lanes = engine.statistics().lanes.values()
            pids = [pid for lane in lanes for pid in lane.pids]
            arena = sum(lane.results_nbytes for lane in lanes)
            samples.append(await asyncio.to_thread(take, engine.clock(), done, count_tasks(0), pids, arena))
    requests_axis = Axis("request", lambda sample: sample.requests, max_slope, MOST_COUNT)
    return report(judge(samples.list(), requests_axis), max_slope)


def report(finding: Finding, max_slope: float) -> Report:
    """What a finding means for the exit code."""
    limit = f"; the limit is {max_slope:g} B a request"
    if finding.is_leak:
        return Report(Verdict.LEAK, f"leak: {finding.text}{limit}")
    if finding.kind == "none" and finding.nbytes.slope > max_slope:
        text = "inconclusive: memory may rise by more than the limit: send more requests"
        return Report(Verdict.INCONCLUSIVE, f"{text}; {finding.text}{limit}")
    if finding.kind == "too early":
        return Report(Verdict.INCONCLUSIVE, f"inconclusive: {finding.text}")
    return Report(Verdict.CLEAN, f"{finding.text}{limit}")


async def _submit(engine: Engine, payload: Callable[[], Any], count: int, failed: list[RequestError]) -> None:
    left = count

    async def some() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            try:
                await engine.submit(payload())
            except RequestError as error:
                error.__traceback__ = error.__cause__ = error.__context__ = None
                if len(failed) < 10**6:
                    failed.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(AT_ONCE, engine.plan.max_in_flight)):
            group.create_task(some())


def _read(text: str) -> tuple[bytes, str]:
    if not os.path.isfile(text):
        return text.encode(errors="surrogateescape"), "application/json"
    try:
        return Path(text).read_bytes(), media_type(text)
    except OSError as error:
        raise SettingsError(f"--input: cannot read {text}: {error.strerror}") from error


def _example(graph: Graph) -> Any:
    """A payload of what the Ops at the entry have for an example."""
    request = graph.request
    values: dict[str | None, Any] = {}
    names: dict[Any, str | None] = {request: None, **{getattr(request, name): name for name in request.fields}}
    for op in graph.ops:
        example = op.hook("example")
        if example is None or not all(value in names for value in op.inputs):
            continue
        found: Any = example()
        for value, one in zip(op.inputs, found if len(op.inputs) > 1 else (found,), strict=True):
            values.setdefault(names[value], one)
    wanted: list[str | None] = list(request.fields) or [None]
    missing = [name for name in wanted if name not in values]
    if missing:
        raise SettingsError(NO_INPUT if missing == [None] else f"{NO_INPUT} (of {', '.join(map(str, missing))})")
    return values if request.fields else values[None]
