"""Copies between the host and the device: from the arena of the process lane, from pinned and from other memory.

Not run on a device yet.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from asyncline.engine.lanes.accelerator import Accelerator
from asyncline.engine.lanes.segment import Segments
from loadtest.pairs import Spread, interleave
from loadtest.report import BenchmarkFailed, Budget, Report, Row

NBYTES = 64 * 2**20
COPIES = 40
BUDGET = Budget("≥", 50, "GB/s")

Array = np.ndarray[Any, Any]


def measure(accelerator: Accelerator, turns: int) -> Report:
    """In turns: a segment that is registered, pinned memory, a segment as it is; then back to pinned memory.

    :param accelerator: entered by the calling thread.
    :raises BenchmarkFailed: the bytes that come back are not those that were sent.
    """
    segments = Segments(0, 3 * NBYTES)
    arena, plain = segments.take(NBYTES), segments.take(NBYTES)
    accelerator.register(arena)
    try:
        pinned, target = accelerator.pinned(NBYTES), accelerator.pinned(NBYTES)
        stream, memory = accelerator.stream(), accelerator.memory(NBYTES)
        for value, source in enumerate((arena, pinned, plain), 1):
            source[:] = value
            _check(stream, memory, source, target)
        copies = [partial(stream.upload, memory, source) for source in (arena, pinned, plain)]
        copies.append(partial(stream.download, target, memory))
        speeds = interleave(turns, *(partial(_gb_per_s, stream, copy) for copy in copies))
    finally:
        accelerator.unregister(arena)
        segments.close()
    ours, theirs, unpinned, back = (Spread.of(turn[place] for turn in speeds) for place in range(4))
    mib = NBYTES // 2**20
    return Report(
        [
            Row(f"arena (memfd, registered) to the device, {mib} MiB", "GB/s", ours, budget=BUDGET),
            Row(f"pinned memory to the device, {mib} MiB", "GB/s", theirs),
            Row(f"memory that is not pinned to the device, {mib} MiB", "GB/s", unpinned),
            Row(f"the device to pinned memory, {mib} MiB", "GB/s", back),
        ],
        [f"Copies: {turns} turns of {COPIES} copies each."],
    )


def _check(stream: Any, memory: Any, source: Array, target: Array) -> None:
    stream.upload(memory, source)
    stream.synchronize()
    stream.download(target, memory)
    stream.synchronize()
    if not np.array_equal(target, source):
        raise BenchmarkFailed("what came back from the device is not what was sent")


def _gb_per_s(stream: Any, copy: Callable[[], None]) -> float:
    copy()
    stream.synchronize()
    began = time.perf_counter()
    for _ in range(COPIES):
        copy()
    stream.synchronize()
    return COPIES * NBYTES / (time.perf_counter() - began) / 1e9
