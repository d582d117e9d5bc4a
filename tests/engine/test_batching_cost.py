"""CostModel: what it learns, and what does not mislead it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncline.engine.batching.cost import LEARNED, MOST_BUCKETS, CostModel


def taught(*runs: tuple[float, float]) -> CostModel:
    """A model that has seen these (size, seconds) of one bucket, after the first run, which is slow."""
    model = CostModel()
    model.learn(None, 1, 100.0)
    for size, seconds in runs:
        model.learn(None, size, seconds)
    return model


def mean(model: CostModel, size: float) -> float:
    seconds, _ = model.predict(None, size)
    assert seconds is not None
    return seconds


def test_nothing_is_known_before_some_runs() -> None:
    model = CostModel()
    for _ in range(LEARNED):
        model.learn(None, 1, 1.0)
        assert model.predict(None, 1) == (None, 0.0)
        assert model.low(None, 1) == model.high(None, 1) == 0.0
    model.learn(None, 1, 1.0)
    assert model.predict(None, 1) == (1.0, 0.0)


@given(st.floats(0.0, 1.0), st.floats(0.001, 1.0))
def test_an_affine_device_is_known_at_sizes_never_seen(tau0: float, alpha: float) -> None:
    model = taught(*((size, tau0 + alpha * size) for size in (1, 2, 4, 3)))
    assert mean(model, 32) == pytest.approx(tau0 + 32 * alpha)
    assert model.high(None, 32) == pytest.approx(tau0 + 32 * alpha)
    assert model.low(None, 1) == pytest.approx(tau0 + alpha)


def test_a_slow_first_run_is_not_learned() -> None:
    assert mean(taught(*[(1, 1.0)] * 3), 1) == 1.0


def test_an_outlier_hardly_moves_the_prediction() -> None:
    model = taught(*[(1, 1.0)] * 20)
    model.learn(None, 1, 50.0)
    assert mean(model, 1) < 1.01
    assert model.high(None, 1) < 1.03


@pytest.mark.parametrize("seconds", [0.3, 3.0])
def test_a_device_that_changed_for_good_is_believed_after_a_few_runs(seconds: float) -> None:
    model = taught(*[(1, 1.0)] * 20)
    for _ in range(5 + LEARNED):
        model.learn(None, 1, seconds)
    assert mean(model, 1) == pytest.approx(seconds)


def test_a_drift_is_followed() -> None:
    model = taught(*((1 + number % 4, 1.0 + 0.01 * number) for number in range(100)))
    assert mean(model, 2) == pytest.approx(2.0, rel=0.1)


def test_runs_of_one_size_leave_the_slope_as_it_was_known() -> None:
    model = taught(*((size, 1.0 + size) for size in (1, 4, 2, 8)), *[(32, 33.0)] * 50)
    assert mean(model, 32) == pytest.approx(33.0)
    assert mean(model, 16) == pytest.approx(17.0, rel=0.05)


def test_of_one_size_only_the_bounds_hold_for_any_slope() -> None:
    model = taught(*[(8, 8.0)] * 10)
    assert mean(model, 8) == 8.0
    assert mean(model, 4) == model.high(None, 4) == 8.0
    assert mean(model, 16) == model.high(None, 16) == 16.0
    assert model.low(None, 4) == 4.0
    assert model.low(None, 16) == 8.0


def test_sizes_that_hardly_differ_tell_no_slope() -> None:
    assert mean(taught(*[(100, 1.01), (101, 0.99)] * 10), 200) == pytest.approx(2.0, rel=0.02)


def test_the_lower_bound_learns_from_the_smallest_size_whenever_it_came() -> None:
    assert taught(*[(4, 3.0)] * 4, *[(1, 3.0)] * 4).low(None, 1) == pytest.approx(3.0, rel=0.01)


def test_the_lower_bound_holds_for_a_size_that_runs_no_more() -> None:
    model = taught(*((size, 1.0 + size) for size in (1, 4, 2, 8)), *[(32, 33.0)] * 50)
    assert 1.0 < model.low(None, 1) <= 2.0


def test_the_bounds_enclose_nearly_all_runs_of_an_unsteady_device() -> None:
    chance = random.Random(1)
    runs = [(size, (1 + 0.1 * size) * chance.gauss(1, 0.1)) for size in (chance.randint(1, 16) for _ in range(500))]
    model = taught(*runs[:250])
    inside = sum(model.low(None, size) <= seconds <= model.high(None, size) for size, seconds in runs[250:])
    assert inside >= 0.9 * 250
    assert model.predict(None, 8)[1] == pytest.approx(0.1 * 0.8 * 1.8, rel=0.5)  # mean of |a normal deviation|


def test_every_bucket_has_its_own_line() -> None:
    model = taught(*[(1, 1.0)] * 5)
    for _ in range(5):
        model.learn("other", 1, 2.0)
    assert mean(model, 1) == 1.0
    assert model.predict("other", 1) == (2.0, 0.0)


def test_buckets_without_end_take_no_memory_without_end() -> None:
    model = CostModel()
    for bucket in range(2 * MOST_BUCKETS):
        model.learn(bucket, 1, 1.0)
    assert repr(model) == f"<CostModel of {MOST_BUCKETS} buckets>"
