"""Devices: memory and use of the GPUs that the Ops of a Plan run on."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric

from asyncline.graph.plan import Plan
from asyncline.settings import devices

log = logging.getLogger("asyncline.metrics")


class Gpu(NamedTuple):
    """What the driver says of a GPU."""

    number: int
    """As CUDA counts them."""
    used_nbytes: int
    """Of all processes on it."""
    total_nbytes: int
    busy: float
    """Share of time in which a kernel ran on it."""


class Devices:
    """Asks NVIDIA's driver through `pynvml` where that is installed (nvidia-ml-py); else there is nothing to tell."""

    def __init__(self, plan: Plan) -> None:
        named = {name for node in plan.nodes for name in devices(node.settings.device)}
        #: As CUDA counts them.
        self._numbers = sorted(int(name.partition(":")[2]) for name in named if name.startswith("cuda"))
        self._nvml: Any = None

    def __bool__(self) -> bool:
        """Whether there may be something to tell."""
        return bool(self._numbers)

    def read(self) -> list[Gpu]:
        """For a thread: the driver may take a while."""
        found: list[Gpu] = []
        if not self._numbers or not self._open():
            return found
        nvml = self._nvml
        for number in self._numbers:
            try:
                handle = self._handle(number)
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
                found.append(Gpu(number, memory.used, memory.total, busy))
            except nvml.NVMLError as error:
                log.debug("GPU %d: %s", number, error)
        return found

    def collect(self) -> Iterator[Metric]:
        """For a thread, too."""
        if not (found := self.read()):
            return
        used = GaugeMetricFamily("asyncline_gpu_memory_used_bytes", "Of all processes on the GPU.", labels=["gpu"])
        total = GaugeMetricFamily("asyncline_gpu_memory_total_bytes", "Memory of the GPU.", labels=["gpu"])
        busy = GaugeMetricFamily(
            "asyncline_gpu_utilisation_ratio", "Share of time in which a kernel ran on the GPU.", labels=["gpu"]
        )
        for gpu in found:
            used.add_metric([str(gpu.number)], gpu.used_nbytes)
            total.add_metric([str(gpu.number)], gpu.total_nbytes)
            busy.add_metric([str(gpu.number)], gpu.busy)
        yield from (used, total, busy)

    def _handle(self, number: int) -> Any:
        """NVML counts the GPUs of the machine, CUDA those of them that the process may see."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        name = visible[number].strip() if number < len(visible) else ""
        if name and not name.isdigit():
            return self._nvml.nvmlDeviceGetHandleByUUID(name)
        return self._nvml.nvmlDeviceGetHandleByIndex(int(name or number))

    def _open(self) -> bool:
        if self._nvml is None:
            try:
                nvml = importlib.import_module("pynvml")
                nvml.nvmlInit()
            except Exception as error:  # not installed, or no driver: NVMLError is known only where it is installed
                log.debug("no numbers of GPUs: %s", error)
                self._numbers = []
                return False
            self._nvml = nvml
        return True
