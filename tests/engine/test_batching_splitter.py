"""Splitter: which samples of a batch that raised are bad, and what it may cost to find out."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncline.engine.batching.splitter import Splitter, Verdict
from tests.engine.simulation import Sample, numbers

WELL = RuntimeError("not raised")


@dataclass
class Search:
    """Runs what a Splitter asks for; a batch raises if `raises` says so."""

    splitter: Splitter[Sample]
    raises: Callable[[list[int]], bool]
    seconds: float = 0.0
    ran: list[list[int]] = field(default_factory=list)
    good: list[int] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)

    def batch(self, samples: list[Sample]) -> Search:
        """The first run of a batch, and all that follows from it."""
        if not self.raises(numbers(samples)):
            self.splitter.succeeded(self.seconds)
            self.good += numbers(samples)
            return self
        todo = [self.splitter.raised(samples, ValueError())]
        while todo:
            verdict: Verdict[Sample] = todo.pop()
            for those, _ in verdict.failed:
                self.bad += numbers(those)
            for half in verdict.reruns:
                assert verdict.isolation is not None
                self.ran.append(numbers(half))
                if self.raises(numbers(half)):
                    todo.append(self.splitter.half_raised(verdict.isolation, half, ValueError(), self.seconds))
                else:
                    self.good += numbers(half)
                    todo.append(self.splitter.half_succeeded(verdict.isolation, self.seconds))
        return self


def search(count: int, bad: Collection[int], splitter: Splitter[Sample] | None = None, seconds: float = 0.0) -> Search:
    """A batch of `count` samples, some of which are bad."""
    found = Search(splitter or Splitter(), lambda those: any(number in bad for number in those), seconds)
    return found.batch([Sample(number) for number in range(count)])


def broken(splitter: Splitter[Sample], count: int = 8) -> Search:
    """A batch on a device that raises whatever it gets."""
    return Search(splitter, lambda those: True).batch([Sample(number) for number in range(count)])


@pytest.mark.parametrize("poison", range(32))
def test_one_bad_sample_in_32_costs_10_runs_and_no_other_sample(poison: int) -> None:
    found = search(32, {poison})
    assert found.bad == [poison]
    assert sorted(found.good) == [number for number in range(32) if number != poison]
    assert len(found.ran) <= 10


@given(st.integers(2, 70), st.data())
def test_each_bad_sample_costs_twice_the_logarithm_at_most(count: int, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    found = search(count, bad)
    assert sorted(found.bad) == sorted(bad)
    assert sorted(found.good + found.bad) == list(range(count))
    assert len(found.ran) <= 2 * (count - 1).bit_length() * len(bad)


def test_a_lone_sample_that_raises_fails_without_another_run() -> None:
    found = search(1, {0})
    assert (found.bad, found.ran) == ([0], [])


def test_a_flaw_that_does_not_come_again_costs_nobody_the_answer() -> None:
    flaws = iter([True])
    found = Search(Splitter(), lambda those: next(flaws, False)).batch([Sample(number) for number in range(8)])
    assert (sorted(found.good), found.bad, len(found.ran)) == ([*range(8)], [], 2)


def test_samples_that_died_do_not_run_again() -> None:
    samples = [Sample(number, dead=number in (1, 2, 3)) for number in range(5)]
    found = Search(Splitter(), lambda those: 4 in those).batch(samples)
    assert found.ran == [[0], [4]]
    assert (found.good, found.bad) == ([0], [4])


def test_nothing_is_left_to_do_for_a_batch_of_the_dead() -> None:
    verdict = Splitter[Sample]().raised([Sample(0, dead=True), Sample(1, dead=True)], ValueError())
    assert (verdict.reruns, verdict.failed) == ([], [])


# -- a fault that is not in the samples


def test_a_second_batch_of_which_both_halves_raise_fails_at_once() -> None:
    splitter: Splitter[Sample] = Splitter()
    assert len(broken(splitter).ran) > 2
    second = broken(splitter)
    assert (len(second.ran), len(second.bad)) == (2, 8)


def test_then_no_batch_is_split_until_one_succeeds() -> None:
    splitter: Splitter[Sample] = Splitter()
    broken(splitter)
    broken(splitter)
    third = search(8, {3}, splitter)
    assert (len(third.ran), len(third.bad)) == (0, 8)
    search(8, set(), splitter)
    assert search(8, {3}, splitter).bad == [3]


def test_bad_samples_in_both_halves_of_one_batch_are_no_such_fault() -> None:
    splitter: Splitter[Sample] = Splitter()
    for _ in range(3):
        assert sorted(search(8, {0, 7}, splitter).bad) == [0, 7]
        search(8, {0}, splitter)


# -- what it may cost


def test_without_credit_nothing_is_split() -> None:
    splitter: Splitter[Sample] = Splitter(burst_s=5.0)
    assert search(32, {3}, splitter, seconds=1.0).bad == [3]
    assert len(search(32, {3}, splitter, seconds=1.0).bad) == 32


def test_a_tenth_of_the_good_work_is_credit() -> None:
    splitter: Splitter[Sample] = Splitter(share=0.1, burst_s=5.0)
    search(32, {3}, splitter, seconds=1.0)  # 10 s, of which 5 s are owed
    for _ in range(50):
        assert len(search(32, {3}, splitter).bad) == 32
        search(32, set(), splitter, seconds=1.0)
    search(32, set(), splitter, seconds=1.0)
    assert search(32, {3}, splitter, seconds=1.0).bad == [3]


def test_credit_is_not_saved_up_beyond_the_burst() -> None:
    splitter: Splitter[Sample] = Splitter(burst_s=5.0)
    splitter.succeeded(1e9)
    assert repr(splitter) == "<Splitter, credit 5.000 s>"


def test_one_bad_sample_is_found_on_credit_and_no_further_ones() -> None:
    splitter: Splitter[Sample] = Splitter(burst_s=0.5)
    found = search(32, {0, 31}, splitter, seconds=1.0)
    assert len(found.ran) <= 10
    assert sorted(found.good) == [*range(16, 31)]
    assert sorted(found.bad) == [*range(16), 31]


def test_a_batch_that_raises_at_random_is_given_up_in_the_end() -> None:
    # Every batch of more than one raises, though no sample is bad.
    found = Search(Splitter(), lambda those: len(those) > 1).batch([Sample(number) for number in range(32)])
    assert len(found.ran) <= 10
    assert sorted(found.good + found.bad) == list(range(32))
