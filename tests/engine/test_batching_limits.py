"""Limits: batches after the device ran out of memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asyncline.engine.batching.limits import Limits


def test_without_trouble_the_limit_is_the_batch_size() -> None:
    assert Limits(32).limit("any", now=0.0) == 32


def test_out_of_memory_halves_the_batch_that_was_too_large() -> None:
    limits = Limits(32)
    limits.out_of_memory("large", 20, now=0.0)
    assert limits.limit("large", now=0.0) == 10
    assert limits.limit("small", now=0.0) == 32


def test_it_rises_by_a_quarter_a_minute_up_to_the_batch_size() -> None:
    limits = Limits(32)
    limits.out_of_memory(None, 32, now=100.0)
    assert [limits.limit(None, now=100.0 + 60 * minutes) for minutes in (0, 1, 2, 3, 4)] == [16, 20, 25, 31, 32]
    assert repr(limits) == "<Limits 32, lowered: {}>"


def test_a_clock_that_is_read_late_changes_nothing() -> None:
    limits = Limits(32)
    limits.out_of_memory(None, 1, now=100.0)
    assert limits.limit(None, now=99.0) == 1


def test_a_second_time_is_half_of_what_it_had_risen_to() -> None:
    limits = Limits(32)
    limits.out_of_memory(None, 32, now=0.0)
    limits.out_of_memory(None, limits.limit(None, now=60.0), now=60.0)
    assert limits.limit(None, now=60.0) == 10


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0, 1e6))))
def test_it_is_never_below_one_or_above_the_batch_size(troubles: list[tuple[int, float]]) -> None:
    limits, now = Limits(64), 0.0
    for rows, later in troubles:
        limits.out_of_memory(None, rows, now)
        assert 1 <= limits.limit(None, now) <= max(1, rows // 2)
        now += later
        assert 1 <= limits.limit(None, now) <= 64
