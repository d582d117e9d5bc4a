"""What a second thread gains, on a machine that others use too."""

from __future__ import annotations

import pytest

from asyncline.tools.advise.race import Race, Span

FREE = (0.010, 0.010)
TAKEN = (0.010, 0.020)
"""Seconds of the control by one thread and by two: with a free core for the second, and without."""


def race_of(*rounds: tuple[float, float, tuple[float, float]], cpu_s: float = 0.010) -> Race:
    race = Race()
    for one, two, control in rounds:
        race.add(Span(one, cpu_s), Span(two, 2 * cpu_s), *(Span(seconds, seconds) for seconds in control))
    return race


def test_the_best_rounds_count() -> None:
    race = race_of((0.010, 0.021, FREE), (0.013, 0.011, FREE), (0.017, 0.030, FREE))
    assert race.speed_up == pytest.approx(2 * 0.010 / 0.011)


def test_a_hook_that_holds_the_gil_is_decided_by_fair_rounds() -> None:
    race = race_of(*[(0.010, 0.020, FREE)] * 9)
    assert race.speed_up == pytest.approx(1.0)
    assert race.is_over and race.is_decided


def test_it_is_not_decided_where_the_control_gained_nothing() -> None:
    race = race_of(*[(0.010, 0.020, TAKEN)] * 30)
    assert race.fair == 0
    assert not race.is_over and not race.is_decided


def test_nor_by_too_few_fair_rounds() -> None:
    race = race_of(*[(0.010, 0.020, TAKEN)] * 26, *[(0.010, 0.020, FREE)] * 4)
    assert race.fair == 4
    assert not race.is_decided


def test_a_slow_hook_is_decided_by_the_one_round_there_was_time_for() -> None:
    assert race_of((1.0, 2.0, FREE)).is_decided
    assert not race_of((1.0, 2.0, TAKEN)).is_decided


def test_a_gain_needs_no_more_rounds() -> None:
    rounds = [(0.010, 0.020, TAKEN)] * 3 + [(0.010, 0.011, FREE)]
    assert not race_of(*rounds).is_over
    assert race_of(*rounds, (0.010, 0.020, TAKEN)).is_over


def test_a_gain_while_the_control_had_none_is_a_disturbed_round_of_one_thread() -> None:
    assert not race_of(*[(0.030, 0.020, TAKEN)] * 5).is_decided


def test_cores_are_those_of_the_best_round() -> None:
    race = race_of((0.010, 0.020, FREE), cpu_s=0.018)
    race.add(Span(0.030, 0.010), *[Span(0.020, 0.020)] * 3)
    assert race.cores == pytest.approx(1.8)
