import numpy as np
import pytest

from asyncline.observe.histogram import LogHistogram

WHICH = (50, 60, 70, 80, 90, 95, 99, 99.9)


@pytest.mark.parametrize("shape", ["lognormal", "exponential", "two humps", "uniform"])
def test_percentiles_of_a_million_values_are_within_two_percent(shape: str) -> None:
    random = np.random.default_rng(7)
    n = 10**6
    values = {
        "lognormal": lambda: random.lognormal(-5, 1.5, n),
        "exponential": lambda: random.exponential(0.02, n),
        "two humps": lambda: np.concatenate([random.normal(0.002, 1e-4, n // 2), random.normal(0.8, 0.02, n // 2)]),
        "uniform": lambda: random.uniform(1e-4, 2.0, n),
    }[shape]()
    found = LogHistogram()
    for part in np.array_split(values, 1000):
        found.observe(np.ascontiguousarray(part))
    which = [one for one in WHICH if shape != "two humps" or one != 50]  # between the humps any value is the median
    exact = np.percentile(values, which, method="inverted_cdf")
    assert found.percentiles(which) == pytest.approx(exact, rel=0.008)
    assert found.count == n
    assert found.sum == pytest.approx(values.sum(), rel=1e-9)


def test_an_empty_histogram_says_zero() -> None:
    assert LogHistogram().percentiles([50, 99]) == [0.0, 0.0]
    assert LogHistogram().mean == 0.0


def test_the_hundredth_percentile_is_the_bucket_of_the_largest() -> None:
    found = LogHistogram()
    found.observe(np.array([0.001, 0.002, 0.5]))
    assert found.percentiles([100]) == pytest.approx([0.5], rel=0.016)


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e9])
def test_what_is_out_of_range_counts_at_the_end(value: float) -> None:
    found = LogHistogram()
    found.observe(np.array([value]))
    assert (found.count, int(found.counts.sum())) == (1, 1)


def test_what_came_since_a_copy_was_made_is_a_difference() -> None:
    found = LogHistogram()
    found.observe(np.full(10, 0.25))
    before = found.copy()
    found.observe(np.full(5, 1.0))
    new = found.since(before)
    assert (new.count, new.sum) == (5, 5.0)
    assert new.percentiles([50]) == pytest.approx([1.0], rel=0.016)
