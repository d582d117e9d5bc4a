"""Pulse: how the loop and what waits have been, looked at ten times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from asyncline.engine.engine import Engine

INTERVAL_S = 0.1


@dataclass(frozen=True)
class Beat:
    """What the looks of some time have seen."""

    looks: int = 0
    lag_s: float = 0.0
    """Largest delay of the event loop."""
    in_flight: float = 0.0
    """Requests in flight, mean."""
    depths: Mapping[str, int] = field(default_factory=dict)
    """Most Items in each Channel, by Op."""

    @classmethod
    def joined(cls, beats: Sequence[Beat]) -> Beat:
        looks = sum(beat.looks for beat in beats)
        depths: dict[str, int] = {}
        for beat in beats:
            for name, depth in beat.depths.items():
                depths[name] = max(depths.get(name, 0), depth)
        return cls(
            looks,
            max((beat.lag_s for beat in beats), default=0.0),
            sum(beat.looks * beat.in_flight for beat in beats) / looks if looks else 0.0,
            depths,
        )


class Pulse:
    """Looks, and keeps what it sees until it is taken."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        #: Called at each look with the loop's lag in seconds.
        self.looks: list[Callable[[float], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        self._reset()

    def _reset(self) -> None:
        self._looks = 0
        self._lag_s = 0.0
        self._in_flight = 0
        self._depths: dict[str, int] = {}

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._set()

    def _set(self) -> None:
        self._due_at = self._loop.time() + INTERVAL_S
        self._timer = self._loop.call_at(self._due_at, self._look)

    def _look(self) -> None:
        self._looks += 1
        lag_s = self._loop.time() - self._due_at
        self._lag_s = max(self._lag_s, lag_s)
        self._in_flight += self._engine.admission.in_flight
        for runner in self._engine.runners:
            depth = len(runner.channel)
            if depth > self._depths.get(runner.node.name, 0):
                self._depths[runner.node.name] = depth
        for look in self.looks:
            look(lag_s)
        self._set()

    def take(self) -> Beat:
        """What has been seen since the last time."""
        # A loop that stands still does not look: this look is late by as much.
        lag_s = max(self._lag_s, self._loop.time() - self._due_at)
        beat = Beat(self._looks, lag_s, self._in_flight / self._looks if self._looks else 0.0, self._depths)
        self._reset()
        return beat

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
