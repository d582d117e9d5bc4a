"""Live: what the dashboard shows of one Engine; the graph once, and each second what it does."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from asyncline.engine.engine import Engine
from asyncline.graph.op import Op
from asyncline.graph.plan import Node
from asyncline.observe.devices import Devices, Gpu
from asyncline.observe.figures import Figures
from asyncline.observe.resident import memory_of, resident_nbytes
from asyncline.observe.statistics import Statistics
from asyncline.observe.verdict import verdict
from asyncline.observe.windows import Windows

SHORT_S, LONG_S = 1, 10
"""The windows that are shown, in seconds: what is now, and what is so."""
LAST_FAILURES = 12


class Live:
    """Everything as it is to be written as JSON. Nothing is done until somebody asks."""

    def __init__(self, engine: Engine, statistics: Statistics, windows: Windows) -> None:
        self._engine = engine
        self._statistics = statistics
        self._windows = windows
        self._gpus_there = Devices(engine.plan)
        #: What was read last: nothing on the loop waits for a driver.
        self._gpus: list[Gpu] = []
        self._reading: asyncio.Future[list[Gpu]] | None = None

    def graph(self) -> dict[str, Any]:
        """What does not change while the server runs: Ops, edges, lanes and settings.

        Of an edge, `from` is null where it comes from the request, and `to` where it goes into the answer.
        """
        plan = self._engine.plan
        service, dag = plan.settings.service, plan.settings.dag
        edges = [
            {"from": value.name if isinstance(value, Op) else None, "to": op.name, "value": value._label()}
            for op in plan.graph.ops
            for value in dict.fromkeys(op.inputs)
        ]
        edges += [
            {"from": value.name if isinstance(value, Op) else None, "to": None, "value": name or "answer"}
            for name, value in plan.graph.response.outputs.items()
        ]
        return {
            "graph": plan.graph.name,
            "ops": [self._op(node) for node in plan.nodes],
            "edges": edges,
            "timeout_ms": service.timeout_ms,
            "has_timeline": dag.timeline_mb > 0,
        }

    def _op(self, node: Node) -> dict[str, Any]:
        plan = self._engine.plan
        fused = {
            hook: f"{plan.nodes[found[0]].name}.{found[1]}"
            for hook in node.lanes
            if (found := plan.fused.get((node.index, hook))) is not None
        }
        return {
            "name": node.name,
            "class": type(node.op).__name__,
            "about": (type(node.op).__doc__ or "").strip().partition("\n")[0],
            "lanes": node.lanes,
            "fused": fused,
            "settings": {**node.settings.model_dump(mode="json"), "channel_size": node.channel_size},
        }

    def now(self) -> dict[str, Any]:
        """What changes: the figures of two windows, the verdict on the longer one, errors, workers, devices."""
        figures = self._windows.figures(LONG_S)
        judged = verdict(figures, self._engine.plan)
        self._statistics.fold()
        failures = list(self._statistics.last_failures)[-LAST_FAILURES:]
        return {
            "state": self._engine.state,
            "problem": self._engine.problem(),
            "now": _written(self._windows.figures(SHORT_S)),
            "last": _written(figures),
            "verdict": {**dataclasses.asdict(judged), "text": str(judged)},
            "failures": [dataclasses.asdict(failure) for failure in reversed(failures)],
            "blockages": [dataclasses.asdict(blockage) for blockage in reversed(self._statistics.last_blockages)],
            "blocked": self._statistics.blockages,
            "nbytes": resident_nbytes(),
            "lanes": self._lanes(),
            "devices": self._devices(),
        }

    def _lanes(self) -> dict[str, Any]:
        found = {}
        for name, lane in self._engine.statistics().lanes.items():
            workers = [
                {"pid": pid, "nbytes": None if (memory := memory_of(pid)) is None else memory.resident}
                for pid in lane.pids
            ]
            found[name] = {**dataclasses.asdict(lane), "workers": workers}
        return found

    def _devices(self) -> dict[str, Any]:
        """By name: how many replicas of which Ops are there; of a GPU its memory, and the share of time that it ran."""
        found: dict[str, dict[str, int]] = {}
        for runner in self._engine.runners:
            for replica in runner.replicas:
                there = found.setdefault(replica.device, {})
                there[replica.node.name] = there.get(replica.node.name, 0) + 1
        told: dict[str, Any] = {name: {"replicas": replicas} for name, replicas in found.items()}
        self._read_gpus()
        for gpu in self._gpus:
            if (device := told.get(f"cuda:{gpu.number}")) is not None:
                device |= {"nbytes": gpu.used_nbytes, "total_nbytes": gpu.total_nbytes, "busy": gpu.busy}
        return told

    def _read_gpus(self) -> None:
        """Have them read for the next time, and take what was read since the last."""
        if self._reading is not None and self._reading.done() and not self._reading.cancelled():
            self._gpus, self._reading = self._reading.result(), None
        if self._reading is None and self._gpus_there:
            self._reading = self._engine.loop.run_in_executor(None, self._gpus_there.read)


def _written(figures: Figures) -> dict[str, Any]:
    return {**dataclasses.asdict(figures), "qps": figures.qps, "success": figures.success}
