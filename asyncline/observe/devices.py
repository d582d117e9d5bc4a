"""Devices: memory and use of the GPUs that the Ops of a Plan run on."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from asyncline.graph.plan import Plan
from asyncline.settings import devices

log = logging.getLogger("asyncline.metrics")


class Devices:
    """Asks NVIDIA's driver through `pynvml` where that is installed (nvidia-ml-py); else there is nothing to tell."""

    def __init__(self, plan: Plan) -> None:
        named = {name for node in plan.nodes for name in devices(node.settings.device)}
        #: As CUDA counts them.
        self._numbers = sorted(int(name.partition(":")[2]) for name in named if name.startswith("cuda"))
        self._nvml: Any = None

    def collect(self) -> Iterator[Metric]:
        """For a thread: the driver may take a while."""
        if not self._numbers or not self._open():
            return
        nvml = self._nvml
        used = GaugeMetricFamily("asyncline_gpu_memory_used_bytes", "Of all processes on the GPU.", labels=["gpu"])
        total = GaugeMetricFamily("asyncline_gpu_memory_total_bytes", "Memory of the GPU.", labels=["gpu"])
        busy = GaugeMetricFamily(
            "asyncline_gpu_utilisation_ratio", "Share of time in which a kernel ran on the GPU.", labels=["gpu"]
        )
        for number in self._numbers:
            try:
                handle = self._handle(number)
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                used.add_metric([str(number)], memory.used)
                total.add_metric([str(number)], memory.total)
                busy.add_metric([str(number)], nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
            except nvml.NVMLError as error:
                log.debug("GPU %d: %s", number, error)
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
