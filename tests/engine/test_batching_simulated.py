"""The Batcher's numbers, on simulated replicas under load. The parameters of the device are those of a GPU with
s(1) = 320 µs, s(32) = 940 µs, and 60 µs from the end of a batch to the start of one that was not staged before."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from operator import attrgetter

import pytest

from asyncline.engine.batching import Batcher
from asyncline.engine.batching.rows import spans, split
from tests.engine.simulation import Device, Hang, Sample, Simulation, poisson

US = 1e-6
GAP_S, STAGE_S = 60 * US, 80 * US
MOST = 32

Seconds = Callable[[Sequence[Sample]], float]


def affine(samples: Sequence[Sample]) -> float:
    return (300 + 20 * len(samples)) * US


def jittery(deviation: float, seed: int = 5) -> Seconds:
    chance = random.Random(seed)
    return lambda samples: affine(samples) * max(0.2, chance.gauss(1, deviation))


IDEAL = MOST / affine([Sample(0)] * MOST)
"""Samples a second of a device that runs full batches without a pause."""


def simulate(
    load: float, depth: int, seconds: Seconds = affine, samples: int = 20_000, replicas: int = 1, delay_s: float = 0.0
) -> Simulation:
    """`samples` arrivals at random, at a rate of `load` times what the replicas can take."""
    batcher: Batcher[Sample] = Batcher(MOST, delay_s, replicas=replicas, depth=depth, stage_s=STAGE_S)
    device = Device(seconds, GAP_S, STAGE_S)
    return Simulation(batcher, device, poisson(load * IDEAL * replicas, samples)).run()


def closed_loop(clients: int, depth: int, delay_s: float = 0.0, samples: int = 10_000) -> Simulation:
    """Clients that send their next sample 50 µs after the answer to the last."""
    batcher: Batcher[Sample] = Batcher(MOST, delay_s, depth=depth, stage_s=STAGE_S)
    numbers = count(clients)
    simulation = Simulation(
        batcher,
        Device(affine, GAP_S, STAGE_S),
        [Sample(number) for number in range(clients)],
        on_outcome=lambda sample: (
            Sample(number, simulation.now + 50 * US) if (number := next(numbers)) < samples else None
        ),
    )
    return simulation.run()


# -- throughput


def test_closing_just_in_time_reaches_the_ideal_throughput_and_closing_when_idle_does_not() -> None:
    just_in_time, when_idle = simulate(1.2, depth=2), simulate(1.2, depth=1)
    assert just_in_time.throughput >= 0.98 * IDEAL
    assert when_idle.throughput == pytest.approx(0.94 * IDEAL, rel=0.01)


@pytest.mark.parametrize("replicas", [2, 4])
def test_several_replicas_reach_it_too(replicas: int) -> None:
    assert simulate(1.2, depth=2, replicas=replicas).throughput >= 0.98 * replicas * IDEAL


def test_saturated_it_is_no_worse_than_the_best_fixed_timer() -> None:
    timers = [closed_loop(3 * MOST, depth=1, delay_s=us * US).throughput for us in (0, 50, 100, 200, 400, 800)]
    assert closed_loop(3 * MOST, depth=1).throughput >= 0.95 * max(timers)
    assert closed_loop(3 * MOST, depth=2).throughput >= max(timers)


# -- latency


@pytest.mark.parametrize("load", [0.2, 0.5, 0.8, 0.9])
def test_mean_latency_is_no_worse_than_closing_when_idle(load: float) -> None:
    assert simulate(load, depth=2).mean_s <= simulate(load, depth=1).mean_s


@pytest.mark.parametrize("load", [0.2, 0.5, 0.8, 0.9])
@pytest.mark.parametrize("deviation", [0.1, 0.3])
def test_on_an_unsteady_device_it_is_little_worse_and_under_load_better(load: float, deviation: float) -> None:
    just_in_time = simulate(load, depth=2, seconds=jittery(deviation))
    most = 1.05 if load < 0.9 else 0.9
    assert just_in_time.mean_s <= most * simulate(load, depth=1, seconds=jittery(deviation)).mean_s


def test_timers_of_whole_milliseconds_cost_little_of_that() -> None:
    def late(at: float, now: float) -> float:
        return now + math.ceil((at - now) * 1e3) / 1e3

    batcher: Batcher[Sample] = Batcher(MOST, depth=2, stage_s=STAGE_S)
    coarse = Simulation(batcher, Device(affine, GAP_S, STAGE_S), poisson(0.8 * IDEAL, 20_000), timer=late).run()
    assert coarse.mean_s <= 1.05 * simulate(0.8, depth=2).mean_s


@pytest.mark.parametrize("depth", [1, 2])
def test_a_lone_client_waits_for_nobody(depth: int) -> None:
    latencies = closed_loop(1, depth, samples=200).latencies
    assert max(latencies) == pytest.approx(GAP_S + affine([Sample(0)]))


@pytest.mark.parametrize(
    ("utilisation", "samples"),
    [(0.3, 40_000), (0.5, 40_000), (0.7, 40_000), (0.9, 400_000)],
)
def test_mean_latency_is_that_of_the_closed_form(utilisation: float, samples: int) -> None:
    """Y. Inoue, arXiv 1912.06322: all that waits is taken, Poisson arrivals, s(b) = tau0 + alpha b.

    The smaller of his two bounds is exact but for 1 % at these loads.
    """
    tau0, alpha = 13e-3, 1e-3
    rate = utilisation / alpha
    simulation = Simulation(
        Batcher(10**9), Device(lambda samples: tau0 + alpha * len(samples)), poisson(rate, samples)
    ).run()
    light = (alpha + tau0) / (2 * (1 - utilisation)) * (1 + 2 * rate * tau0 + (1 - rate * tau0) / (1 + utilisation))
    heavy = 1.5 * tau0 / (1 - utilisation) + alpha / 2 * (utilisation + 2) / (1 - utilisation**2)
    assert simulation.mean_s == pytest.approx(min(light, heavy), rel=0.05)


# -- bad samples


def good_in_time(load: float, bad: float, seconds: Seconds, most: int, timeout_s: float) -> float:
    """Part of the good samples that are answered in time, where so many are bad."""
    chance = random.Random(7)

    def arrivals() -> Iterator[Sample]:
        for sample in poisson(load * most / seconds([Sample(0)] * most), 12_000):
            sample.value, sample.expires_at = chance.random() < bad, sample.ready_at + timeout_s
            yield sample

    def count_good(sample: Sample) -> None:
        if not sample.value:
            answered.append(sample.outcome == "done" and simulation.now <= sample.expires_at)

    answered: list[bool] = []
    batcher: Batcher[Sample] = Batcher(most, depth=2, stage_s=STAGE_S, expires_at=attrgetter("expires_at"))
    device = Device(seconds, GAP_S, STAGE_S, lambda samples: ValueError() if any(s.value for s in samples) else None)
    simulation = Simulation(batcher, device, arrivals(), on_outcome=count_good)
    simulation.run()
    return sum(answered) / len(answered)


def cpu(samples: Sequence[Sample]) -> float:
    """A net of convolutions on the CPU, where a batch gains little."""
    return (5 + 5 * len(samples)) * 1e-3


@pytest.mark.parametrize(
    ("seconds", "most", "load", "bad", "least"),
    [
        (cpu, 8, 0.3, 0.1, 0.9),
        (cpu, 8, 0.8, 0.01, 0.95),
        (affine, MOST, 0.1, 0.1, 0.85),
        # Far more bad ones than can be searched for: without any search 0.65, at best 0.73, by batches of 4.
        (affine, MOST, 0.3, 0.1, 0.58),
        # The device is full: what searches take, others wait for.
        (affine, MOST, 0.95, 0.01, 0.5),
    ],
)
def test_good_samples_among_bad_ones_are_answered(
    seconds: Seconds, most: int, load: float, bad: float, least: float
) -> None:
    assert good_in_time(load, bad, seconds, most, timeout_s=30 * seconds([Sample(0)] * most)) >= least


# -- nothing lost, doubled or crossed


class Chaos:
    """Requests of one to a hundred rows, with deadlines, cancels, bad rows, flaws, hangs and too little memory.

    A request of more rows than a batch has is split, its pieces run as samples, and its answer is gathered.
    """

    def __init__(self, samples: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.samples = samples
        self.answers = 0
        self.batcher: Batcher[Sample] = Batcher(
            MOST,
            500 * US,
            replicas=3,
            depth=2,
            stage_s=STAGE_S,
            retry=1,
            max_batch_cost=60.0,
            sizes=(1, 4, 16, 32),
            rows=attrgetter("rows"),
            cost=attrgetter("cost"),
            priority=attrgetter("priority"),
            expires_at=attrgetter("expires_at"),
        )
        device = Device(self.seconds, GAP_S, STAGE_S, self.error, self.answer)
        self.simulation = Simulation(self.batcher, device, self.arrivals())
        self.requests: list[list[Sample]] = []

    def arrivals(self) -> Iterator[Sample]:
        chance, now, numbers = self.chance, 0.0, count()
        made = 0
        while made < self.samples:
            now += chance.expovariate(50_000)
            rows = chance.choice((1, 1, 1, 1, 2, 5, 33, 100)) if chance.random() < 0.1 else 1
            value = [next(numbers) if chance.random() > 0.001 else -1 for _ in range(rows)]
            bucket, priority = chance.randrange(3), chance.choice((1, 1, 2, 3))
            expires_at = now + chance.uniform(0, 4e-3) if chance.random() < 0.1 else math.inf
            pieces = [
                Sample(
                    made + place,
                    now,
                    bucket,
                    expires_at,
                    priority,
                    len(value[part]),
                    chance.random(),
                    False,
                    value[part],
                )
                for place, part in enumerate(split(rows, MOST))
            ]
            for piece in pieces:
                piece.rows = len(piece.value)
            self.requests.append(pieces)
            made += len(pieces)
            if chance.random() < 0.1:
                self.simulation.at(now + chance.uniform(0, 3e-3), self.cancel, pieces)
            yield from pieces

    def cancel(self, pieces: list[Sample]) -> None:
        for piece in pieces:
            self.simulation.settle(piece, "cancelled")

    def seconds(self, samples: Sequence[Sample]) -> float:
        hiccup = 20 if self.chance.random() < 0.001 else 1
        return (200 + 15 * sum(sample.cost for sample in samples)) * US * self.chance.uniform(0.9, 1.1) * hiccup

    def error(self, samples: Sequence[Sample]) -> BaseException | None:
        assert len({sample.bucket for sample in samples}) == 1
        if len(samples) > 1:
            assert sum(sample.rows for sample in samples) <= MOST and sum(sample.cost for sample in samples) <= 60
        draw = self.chance.random()
        if any(-1 in sample.value for sample in samples):
            return ValueError("a bad row")
        if draw < 0.001:
            return Hang(5e-3)
        if draw < 0.003:
            return RuntimeError("a flaw")
        return MemoryError() if sum(sample.rows for sample in samples) > 24 and draw > 0.99 else None

    def answer(self, samples: Sequence[Sample]) -> None:
        # As a model does: one array of rows in, one out.
        rows = [row for sample in samples for row in sample.value]
        results = [2 * row for row in rows]
        for sample, span in zip(samples, spans(sample.rows for sample in samples), strict=True):
            sample.result = results[span]

    def check(self) -> None:
        outcomes = self.simulation.run().outcomes
        pieces = [piece for request in self.requests for piece in request]
        assert sum(outcomes.values()) == len(pieces) >= self.samples
        assert {piece.outcome for piece in pieces} == {"done", "failed", "late", "cancelled"}
        for request in self.requests:
            if all(piece.outcome == "done" for piece in request):
                gathered = [row for piece in request for row in piece.result]
                assert gathered == [2 * row for piece in request for row in piece.value] and -2 not in gathered
        # Bad rows are few, and so are those who suffer from them.
        assert outcomes["done"] > 0.75 * len(pieces)


@pytest.mark.parametrize("seed", range(3))
def test_no_row_is_lost_doubled_or_crossed(seed: int) -> None:
    Chaos(33_000, seed).check()
