"""Clients that come back: groups of them run together, and nobody else waits."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import count

import pytest

from asyncline.engine.batching import Batcher
from asyncline.engine.batching.cost import CostModel
from asyncline.engine.batching.returns import SEEN, Returns
from tests.engine.simulation import Device, Hang, Sample, Simulation, poisson

MS = 1e-3
MOST = 32
GAP_S, STAGE_S = 0.15 * MS, 0.1 * MS


def fake(rows: int) -> float:
    """A device that gains much from batches."""
    return (5 + 0.1 * rows) * MS


def cpu(rows: int) -> float:
    """One that gains nothing."""
    return 2.5 * rows * MS


def whole_milliseconds(at: float, now: float) -> float:
    """As timers of a loop ring."""
    return now + math.ceil((at - now) / MS) * MS


def simulate(
    arrivals: Iterable[Sample],
    seconds: Callable[[int], float] = fake,
    delay_s: float = 0.0,
    waits: bool = True,
    come_back: Callable[[Simulation, Sample], Sample | None] = lambda simulation, sample: None,
    **device: Callable[..., BaseException | None],
) -> Simulation:
    chance = random.Random(3)
    batcher: Batcher[Sample] = Batcher(
        MOST, delay_s, depth=2, stage_s=STAGE_S, expires_at=lambda sample: sample.expires_at
    )
    if not waits:
        batcher.returns = None
    simulation = Simulation(
        batcher,
        Device(lambda samples: seconds(len(samples)) * max(0.5, chance.gauss(1, 0.05)), GAP_S, STAGE_S, **device),
        arrivals,
        timer=whole_milliseconds,
        on_outcome=lambda sample: come_back(simulation, sample),
    )
    return simulation.run()


def closed_loop(
    clients: int, seconds: Callable[[int], float] = fake, samples: int = 3000, think_ms: float = 0.0, **options: object
) -> Simulation:
    """Clients that ask again when they are answered: a server's loop takes 50 µs for each of them, one by one."""
    chance = random.Random(1)
    numbers = count(clients)
    busy_until = 0.0

    def come_back(simulation: Simulation, sample: Sample) -> Sample | None:
        nonlocal busy_until
        busy_until = max(busy_until, simulation.now) + 0.05 * MS
        thinks = chance.expovariate(1 / (think_ms * MS)) if think_ms else 0.0
        at = busy_until + 0.1 * MS + chance.expovariate(1 / (0.05 * MS)) + thinks
        return Sample(number, at) if (number := next(numbers)) < samples else None

    starts = sorted(chance.uniform(0, 5 * MS) for _ in range(clients))
    arrivals = [Sample(number, at) for number, at in enumerate(starts)]
    return simulate(arrivals, seconds, come_back=come_back, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("clients", [2, 4, 16, 24])
def test_clients_that_come_back_run_together(clients: int) -> None:
    timers = [closed_loop(clients, delay_s=ms * MS).throughput for ms in (0.5, 1, 2, 4)]
    waiting, not_waiting = closed_loop(clients), closed_loop(clients, waits=False)
    assert waiting.throughput >= 0.95 * max(timers)
    assert waiting.throughput >= 1.25 * not_waiting.throughput
    assert waiting.mean_s <= 0.8 * not_waiting.mean_s


@pytest.mark.parametrize("clients", [4, 16, 64, 128])
def test_where_batches_gain_nothing_or_are_full_all_stays_as_it_was(clients: int) -> None:
    seconds = cpu if clients < MOST else fake
    waiting, not_waiting = closed_loop(clients, seconds), closed_loop(clients, seconds, waits=False)
    assert waiting.throughput >= 0.99 * not_waiting.throughput


def test_a_lone_client_is_never_waited_for() -> None:
    waiting, not_waiting = closed_loop(1, samples=300), closed_loop(1, samples=300, waits=False)
    assert waiting.latencies == not_waiting.latencies


@pytest.mark.parametrize("load", [0.02, 0.1, 0.2, 0.5, 0.8, 0.9])
def test_requests_that_come_whenever_they_like_wait_for_nobody(load: float) -> None:
    def arrivals() -> Iterator[Sample]:
        return poisson(load * MOST / fake(MOST), 4000)

    assert simulate(arrivals()).mean_s <= 1.001 * simulate(arrivals(), waits=False).mean_s


@pytest.mark.parametrize("think_ms", [2.0, 10.0, 50.0])
def test_clients_that_think_first_are_not_waited_for(think_ms: float) -> None:
    waiting = closed_loop(16, think_ms=think_ms)
    assert waiting.mean_s <= 1.02 * closed_loop(16, think_ms=think_ms, waits=False).mean_s


def test_clients_that_leave_are_waited_for_a_few_times_only() -> None:
    def latencies(waits: bool) -> list[float]:
        numbers = count(16)

        def come_back(simulation: Simulation, sample: Sample) -> Sample | None:
            number = next(numbers)
            return Sample(number, simulation.now + 0.3 * MS) if number < 1600 else None

        starts = [Sample(number) for number in range(16)]
        others = poisson(100, 300)  # come whenever they like, and remain
        simulation = simulate(
            sorted([*starts, *others], key=lambda each: each.ready_at), waits=waits, come_back=come_back
        )
        return simulation.latencies[-150:]

    assert sum(latencies(True)) <= 1.01 * sum(latencies(False))


def test_nothing_is_lost_while_clients_leave_fail_and_hang() -> None:
    chance = random.Random(9)
    samples = 60_000
    numbers = count(16)

    def come_back(simulation: Simulation, sample: Sample) -> Sample | None:
        if (number := next(numbers)) >= samples:
            return None
        at = simulation.now + chance.expovariate(1 / (0.2 * MS))
        expires_at = at + chance.uniform(1 * MS, 20 * MS) if chance.random() < 0.05 else math.inf
        successor = Sample(number, at, expires_at=expires_at, value=chance.random() < 0.001)
        if chance.random() < 0.02:
            simulation.at(at + chance.uniform(0, 12 * MS), simulation.settle, successor, "cancelled")
        return successor

    def error(batch: list[Sample]) -> BaseException | None:
        if any(sample.value for sample in batch):
            return ValueError("a bad sample")
        draw = chance.random()
        return Hang(30 * MS) if draw < 0.0005 else MemoryError() if draw > 0.9995 else None

    arrivals = [Sample(number) for number in range(16)]
    simulation = simulate(arrivals, come_back=come_back, error=error)
    assert sum(simulation.outcomes.values()) == samples
    assert set(simulation.outcomes) == {"done", "failed", "late", "cancelled"}
    assert simulation.outcomes["done"] > 0.9 * samples


# -- what it believes


def learned(seconds: float = 5 * MS) -> Returns:
    costs = CostModel()
    for _ in range(5):
        costs.learn(None, 1, seconds)
    return Returns(costs)


def rounds(returns: Returns, number: int, back_after_s: float, samples: int = 4) -> None:
    for place in range(number):
        returns.answered(samples, None, 5 * MS, now := place * 10.0)
        for _ in range(samples):
            if returns.left:
                returns.came(now + back_after_s)


def test_they_are_waited_for_after_some_batches_whose_samples_were_back() -> None:
    returns = learned()
    rounds(returns, SEEN - 1, 1 * MS)
    assert returns.back_s(4) is None
    rounds(returns, 1, 1 * MS)
    assert returns.back_s(4) == pytest.approx(1 * MS)
    returns.answered(4, None, 5 * MS, 1000.0)
    assert returns.until(1000.0) == pytest.approx(1000 + 1 * MS)
    assert returns.until(1000 + 2 * MS) is None


def test_four_batches_in_vain_end_it() -> None:
    returns = learned()
    rounds(returns, 50, 1 * MS)
    rounds(returns, 3, 100 * MS)
    assert returns.back_s(4) is not None
    rounds(returns, 1, 100 * MS)
    assert returns.back_s(4) is None


def test_one_of_eight_who_is_slow_keeps_nobody() -> None:
    returns = learned()
    returns.answered(8, None, 5 * MS, 0.0)
    assert returns.left == 7


def test_nobody_is_waited_for_where_a_timer_is_longer_than_the_wait() -> None:
    returns = learned(seconds=1 * MS)
    rounds(returns, 50, 0.1 * MS)
    assert returns.back_s(4) is None
