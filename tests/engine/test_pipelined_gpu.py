"""PipelinedReplica on a CUDA device, by torch. Written without one: none of this has been run yet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncline import Request
from asyncline.backends import ModelInfo, TensorInfo
from asyncline.backends.cuda import open_accelerator
from asyncline.backends.torch import TorchDeviceSession
from asyncline.engine.lanes.accelerator import OutOfMemory
from asyncline.engine.lanes.segment import Segments

from ..backends import torch_models
from ..backends.torch_models import torch
from .pipelines import Feeder, Piped, run, running

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

IMAGE = ModelInfo((TensorInfo("image", "FP32", (-1, 3, 8, 8)),))
NUMBERS = ModelInfo((TensorInfo("x", "FP32", (-1, 4)),))


def session(module: Any, info: ModelInfo, **options: Any) -> TorchDeviceSession:
    return TorchDeviceSession(module, open_accelerator("cuda:0", "torch"), info=info, **options)


def piped(module: Any, info: ModelInfo, batch_size: int = 8, **options: Any) -> Piped:
    return Piped(Request(), load=lambda: session(module, info, **options), batch_size=batch_size)


def images(count: int) -> list[np.ndarray[Any, Any]]:
    return list(np.random.default_rng(count).standard_normal((count, 3, 8, 8), np.float32))


def convolved(batch: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """What Convolution makes of images, on the CPU."""
    with torch.inference_mode():
        return [output.numpy() for output in torch_models.Convolution()(torch.from_numpy(np.stack(batch)))]


@pytest.mark.parametrize("count", range(1, 9))
async def test_batches_of_every_size_are_what_the_model_makes_of_them(count: int) -> None:
    async with running(piped(torch_models.Convolution, IMAGE)) as replica:
        batch = images(count)
        (over,) = await run(replica, batch)
        assert over.error is None
        for place, expected in enumerate(convolved(batch)):
            # TF32 of convolutions, and kernels that differ from size to size.
            np.testing.assert_allclose([row[place] for row in over.results], expected, rtol=1e-2, atol=1e-2)
        statistics = replica.statistics()
        assert statistics.captured and (statistics.pipelined, statistics.plain) == (1, 0)


async def test_padding_changes_no_bit_of_the_rows_beside_it() -> None:
    async with running(piped(torch_models.Convolution, IMAGE)) as replica:
        full = images(8)
        whole, part = await run(replica, full, full[:7])
        assert replica.statistics().padding == 1
        for expected, row in zip(whole.results, part.results, strict=False):
            for left, right in zip(expected, row, strict=True):
                np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("can_capture", [True, False])
async def test_no_row_is_lost_or_crossed_in_a_thousand_batches(can_capture: bool) -> None:
    def load() -> TorchDeviceSession:
        made = session(torch_models.Linear, NUMBERS)
        made.can_capture = can_capture
        return made

    async with running(Piped(Request(), load=load, batch_size=16)) as replica:
        random = np.random.default_rng(0)
        work = [list(random.integers(0, 1000, (count, 4)).astype(np.float32)) for count in random.integers(1, 17, 1000)]
        feeder = Feeder(replica, depth=3)
        feeder.put(*work)
        weights = np.arange(8, dtype=np.float32).reshape(2, 4)
        for batch, over in zip(work, await feeder.wait(), strict=True):
            np.testing.assert_allclose(over.results, np.stack(batch) @ weights.T, rtol=1e-2)
        assert replica.statistics().captured is can_capture


async def test_a_size_that_the_device_has_no_room_for_is_out_of_memory_and_the_others_run() -> None:
    class Greedy(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            if x.shape[0] > 2:
                torch.empty(1 << 45, dtype=torch.uint8, device=x.device)
            return x + 1

    async with running(piped(Greedy(), NUMBERS, batch_size=4)) as replica:
        rows = list(np.arange(16, dtype=np.float32).reshape(4, 4))
        large, small = await run(replica, rows, rows[:2])
        assert isinstance(large.fault, OutOfMemory)
        np.testing.assert_array_equal(small.results, np.stack(rows[:2]) + 1)
        assert replica.statistics().buckets == (1, 2)


def test_a_segment_of_the_process_lane_is_pinned_where_it_lies() -> None:
    device = open_accelerator("cuda:0", "torch")
    segments = Segments(0, 1 << 24)
    segment = segments.take(1 << 20)
    device.register(segment)
    try:
        assert torch.from_numpy(np.asarray(segment)).is_pinned()
        segment[:] = np.arange(1 << 20) % 251
        stream, memory, target = device.stream(), device.memory(1 << 20), device.pinned(1 << 20)
        stream.upload(memory, segment)
        stream.synchronize()
        stream.download(target, memory)
        stream.synchronize()
        np.testing.assert_array_equal(target, segment)
    finally:
        device.unregister(segment)
        segments.close()


LOSING = """
import asyncio
import numpy as np
import torch
from asyncline.backends import ModelInfo, TensorInfo
from tests.engine.pipelines import run, running
from tests.engine.test_pipelined_gpu import piped

class Table(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(10, 4)
    def forward(self, index):
        return self.table(index)

async def main():
    info = ModelInfo((TensorInfo("index", "INT64", (-1,)),))
    async with running(piped(Table, info)) as replica:
        good, bad, after = await run(replica, [np.array(3)], [np.array(1_000_000)], [np.array(4)])
        print(good.error, type(bad.fault).__name__, type(after.fault).__name__)

asyncio.run(main())
"""


def test_an_assertion_on_the_device_is_a_lost_device() -> None:
    """In a process of its own, which can use the device no more."""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", LOSING], cwd=root, capture_output=True, text=True, timeout=50)
    assert done.stdout.split() == ["None", "DeviceLost", "DeviceLost"], done.stderr
