"""Backlog, the part of a Batcher that forms batches: the policy alone, with a clock of numbers."""

from __future__ import annotations

import gc
import weakref
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncline.engine.batching import Batcher
from tests.engine.simulation import Sample, numbers

rows, cost, priority, expires_at = map(attrgetter, ("rows", "cost", "priority", "expires_at"))


def put(batcher: Batcher[Sample], *samples: Sample) -> None:
    for sample in samples:
        batcher.put(sample)


def teach(batcher: Batcher[Sample], tau0: float, alpha: float, sizes: tuple[int, ...] = (1, 1, 2, 4, 8, 16)) -> None:
    """Let it learn that s(x) = tau0 + alpha x."""
    for size in sizes:
        batcher.costs.learn(None, size, tau0 + alpha * size)


def test_a_free_replica_takes_what_is_there_at_once() -> None:
    batcher: Batcher[Sample] = Batcher(8)
    batcher.put(Sample(1, ready_at=5.0))
    assert numbers(batcher.close(now=5.0)) == [1]
    assert batcher.close(now=5.0) == []
    assert batcher.ready_at() is None


def test_a_batch_has_at_most_batch_size_samples_in_order() -> None:
    batcher: Batcher[Sample] = Batcher(3)
    put(batcher, *map(Sample, range(7)))
    assert [numbers(batcher.close(0.0)) for _ in range(4)] == [[0, 1, 2], [3, 4, 5], [6], []]


def test_only_samples_of_one_bucket_share_a_batch_and_the_oldest_goes_first() -> None:
    batcher: Batcher[Sample] = Batcher(8)
    for number, bucket in enumerate("abab"):
        batcher.put(Sample(number, ready_at=float(number), bucket=bucket))
    assert numbers(batcher.close(9.0)) == [0, 2]
    assert numbers(batcher.close(9.0)) == [1, 3]


def test_a_bucket_that_cannot_be_a_key_is_refused() -> None:
    batcher: Batcher[Sample] = Batcher(8)
    with pytest.raises(TypeError, match="unhashable"):
        batcher.put(Sample(0, bucket=[]))
    assert len(batcher) == 0


def test_buckets_that_are_empty_are_forgotten() -> None:
    class Key:
        pass

    batcher: Batcher[Sample] = Batcher(8)
    keys = [Key() for _ in range(100)]
    put(batcher, *(Sample(number, bucket=key) for number, key in enumerate(keys)))
    while batcher.close(0.0):
        pass
    left = [weakref.ref(key) for key in keys]
    del keys
    gc.collect()
    assert sum(key() is not None for key in left) < 10


# -- a delay that the user asked for


def test_a_delay_waits_for_more_but_not_past_its_end() -> None:
    batcher: Batcher[Sample] = Batcher(2, max_delay_s=1.0)
    batcher.put(Sample(1, ready_at=5.0))
    assert batcher.close(5.5) == []
    assert batcher.ready_at() == 6.0
    assert numbers(batcher.close(6.0)) == [1]


def test_a_full_batch_does_not_wait_out_the_delay() -> None:
    batcher: Batcher[Sample] = Batcher(2, max_delay_s=1.0)
    put(batcher, Sample(1, ready_at=5.0), Sample(2, ready_at=5.1))
    assert numbers(batcher.close(5.1)) == [1, 2]


def test_a_full_bucket_goes_before_an_older_one_that_still_waits() -> None:
    batcher: Batcher[Sample] = Batcher(2, max_delay_s=1.0)
    batcher.put(Sample(1, ready_at=5.0, bucket="old"))
    for number in (2, 3):
        batcher.put(Sample(number, ready_at=5.5, bucket="full"))
    assert numbers(batcher.close(5.5)) == [2, 3]
    assert batcher.close(5.5) == []


def test_a_delay_ends_before_the_earliest_deadline_is_lost() -> None:
    batcher: Batcher[Sample] = Batcher(8, max_delay_s=1.0, stage_s=0.01, expires_at=expires_at)
    teach(batcher, tau0=0.1, alpha=0.05)
    put(batcher, Sample(1, ready_at=5.0, expires_at=9.0), Sample(2, ready_at=5.1, expires_at=5.8))
    # s(3) = 0.25, as one more may come; 10 ms to stage it, and 2 ms for late timers.
    assert batcher.ready_at() == pytest.approx(5.8 - 0.25 - 0.01 - 0.002)
    assert batcher.close(5.53) == []
    assert numbers(batcher.close(5.54)) == [1, 2]


def test_what_is_left_is_held_by_its_own_deadline() -> None:
    batcher: Batcher[Sample] = Batcher(2, max_delay_s=1.0, expires_at=expires_at)
    put(batcher, Sample(1, expires_at=0.1), Sample(2), Sample(3, expires_at=0.5))
    assert numbers(batcher.close(0.0)) == [1, 2]
    assert batcher.ready_at() == pytest.approx(0.5 - batcher.stage_s - 0.002)


def test_a_sample_with_an_earlier_deadline_ends_a_delay_earlier() -> None:
    batcher: Batcher[Sample] = Batcher(8, max_delay_s=1.0, expires_at=expires_at)
    batcher.put(Sample(1))
    assert batcher.ready_at() == 1.0
    batcher.put(Sample(2, expires_at=0.5))
    assert batcher.ready_at() == pytest.approx(0.5 - batcher.stage_s - 0.002)


def test_a_dead_sample_does_not_end_a_delay() -> None:
    batcher: Batcher[Sample] = Batcher(8, max_delay_s=1.0)
    put(batcher, Sample(1, ready_at=5.0, dead=True), Sample(2, ready_at=5.5))
    assert batcher.close(6.1) == []
    assert batcher.ready_at() == 6.5


# -- the dead and the late


def test_dead_samples_are_dropped_when_a_batch_closes() -> None:
    batcher: Batcher[Sample] = Batcher(2)
    put(batcher, *(Sample(number, dead=number in (0, 2)) for number in range(5)))
    assert numbers(batcher.close(0.0)) == [1, 3]
    assert numbers(batcher.close(0.0)) == [4]
    assert len(batcher) == 0


def test_a_batcher_of_dead_samples_is_empty_after_one_close() -> None:
    batcher: Batcher[Sample] = Batcher(2)
    put(batcher, *(Sample(number, bucket=number, dead=True) for number in range(5)))
    assert batcher.close(0.0) == []
    assert len(batcher) == 0


@pytest.mark.parametrize("settings", [{}, {"rows": rows}])
def test_a_sample_that_could_not_be_answered_in_time_is_taken_out(settings: dict[str, Any]) -> None:
    batcher: Batcher[Sample] = Batcher(8, expires_at=expires_at, **settings)
    teach(batcher, tau0=0.1, alpha=0.05)
    put(batcher, Sample(1, expires_at=1.14), Sample(2, expires_at=1.16))
    assert numbers(batcher.close(1.0)) == [2]
    assert numbers(batcher.late) == [1]
    assert len(batcher) == 0


def test_none_is_late_as_long_as_too_little_is_known() -> None:
    batcher: Batcher[Sample] = Batcher(8, expires_at=expires_at)
    batcher.costs.learn(None, 1, 10.0)
    batcher.put(Sample(1, expires_at=1.001))
    assert numbers(batcher.close(1.0)) == [1]


def test_a_batch_that_loses_late_samples_is_filled_up() -> None:
    batcher: Batcher[Sample] = Batcher(2, expires_at=expires_at)
    teach(batcher, tau0=0.1, alpha=0.05)
    put(batcher, *(Sample(number, expires_at=1.0 if number < 3 else 9.0) for number in range(6)))
    assert numbers(batcher.close(1.0)) == [3, 4]
    assert numbers(batcher.late) == [0, 1, 2]


# -- rows and costs


def test_rows_count_against_the_batch_size() -> None:
    batcher: Batcher[Sample] = Batcher(8, rows=rows)
    put(batcher, *(Sample(number, rows=n) for number, n in enumerate((3, 3, 3, 8, 1))))
    assert [numbers(batcher.close(0.0)) for _ in range(4)] == [[0, 1], [2], [3], [4]]


def test_costs_count_against_their_limit() -> None:
    batcher: Batcher[Sample] = Batcher(8, max_batch_cost=10.0, cost=cost)
    put(batcher, *(Sample(number, cost=c) for number, c in enumerate((4.0, 6.0, 1.0, 9.5, 0.0))))
    assert [numbers(batcher.close(0.0)) for _ in range(3)] == [[0, 1], [2], [3, 4]]


def test_a_sample_over_a_limit_is_a_batch_of_its_own() -> None:
    batcher: Batcher[Sample] = Batcher(8, rows=rows, max_batch_cost=10.0, cost=cost)
    put(batcher, Sample(0), Sample(1, cost=50.0), Sample(2, rows=9), Sample(3))
    assert [numbers(batcher.close(0.0)) for _ in range(4)] == [[0], [1], [2], [3]]


@pytest.mark.parametrize("sample", [Sample(2, rows=7), Sample(2, cost=9.0)])
def test_a_batch_that_is_full_by_rows_or_cost_does_not_wait_out_the_delay(sample: Sample) -> None:
    batcher: Batcher[Sample] = Batcher(8, max_delay_s=1.0, rows=rows, max_batch_cost=10.0, cost=cost)
    batcher.put(Sample(1))
    assert batcher.close(0.5) == []
    batcher.put(sample)
    assert numbers(batcher.close(0.5)) == [1, 2]


@pytest.mark.parametrize("sample", [Sample(0, rows=0), Sample(0, cost=-1.0), Sample(0, cost=float("nan"))])
def test_a_sample_without_rows_or_with_no_cost_to_speak_of_is_refused(sample: Sample) -> None:
    batcher: Batcher[Sample] = Batcher(8, rows=rows, max_batch_cost=10.0, cost=cost)
    with pytest.raises(ValueError, match="expected"):
        batcher.put(sample)
    assert len(batcher) == 0
    put(batcher, *map(Sample, range(8)))
    assert len(batcher.close(0.0)) == 8


# -- preferred sizes


def test_a_batch_is_cut_to_a_size_without_padding_where_rows_cost_no_more_so() -> None:
    batcher: Batcher[Sample] = Batcher(16, sizes=(1, 4, 8, 16))
    teach(batcher, tau0=0.0, alpha=1.0)
    put(batcher, *map(Sample, range(9)))
    assert [len(batcher.close(0.0)) for _ in range(3)] == [8, 1, 0]


def test_it_is_padded_where_another_batch_would_cost_more() -> None:
    batcher: Batcher[Sample] = Batcher(16, sizes=(1, 4, 8, 16))
    teach(batcher, tau0=100.0, alpha=1.0)
    put(batcher, *map(Sample, range(11)))
    assert len(batcher.close(0.0)) == 11


def test_it_is_padded_as_long_as_too_little_is_known() -> None:
    batcher: Batcher[Sample] = Batcher(16, sizes=(1, 4, 8, 16))
    put(batcher, *map(Sample, range(11)))
    assert len(batcher.close(0.0)) == 11


# -- priorities


def test_the_highest_priority_leads_and_lower_ones_fill_its_batch() -> None:
    batcher: Batcher[Sample] = Batcher(4, priority=priority)
    put(batcher, *(Sample(number, priority=p) for number, p in enumerate((3, 2, 1, 2, 1))))
    assert [numbers(batcher.close(0.0)) for _ in range(2)] == [[2, 4, 1, 3], [0]]


def test_lower_priorities_of_other_buckets_wait() -> None:
    batcher: Batcher[Sample] = Batcher(4, priority=priority)
    put(batcher, Sample(0, bucket="a", priority=2), Sample(1, bucket="b"), Sample(2, bucket="b", priority=2))
    assert numbers(batcher.close(0.0)) == [1, 2]
    assert numbers(batcher.close(0.0)) == [0]


@pytest.mark.parametrize("settings", [{}, {"rows": rows}])
def test_a_batch_is_full_by_the_samples_of_all_priorities(settings: dict[str, Any]) -> None:
    batcher: Batcher[Sample] = Batcher(2, max_delay_s=1.0, priority=priority, **settings)
    batcher.put(Sample(0, priority=2))
    assert batcher.close(0.5) == []
    batcher.put(Sample(1))
    assert numbers(batcher.close(0.5)) == [1, 0]


@pytest.mark.parametrize("buckets", [1, 2], ids=["one bucket", "buckets of their own"])
def test_the_lowest_priority_does_not_starve_and_the_highest_has_the_most(buckets: int) -> None:
    batcher: Batcher[Sample] = Batcher(4, priority=priority)
    ran = {1: 0, 2: 0, 3: 0}
    waiting = dict.fromkeys(ran, 0)
    for turn in range(3_000):
        for level in ran:
            while waiting[level] < 8:
                batcher.put(Sample(turn, ready_at=float(turn), bucket=level % buckets, priority=level))
                waiting[level] += 1
        for sample in batcher.close(float(turn)):
            ran[sample.priority] += 1
            waiting[sample.priority] -= 1
    share = {level: count / sum(ran.values()) for level, count in ran.items()}
    assert share[1] > 0.7
    assert share[2] > 0.07 and share[3] > 0.07


def test_a_bucket_of_a_low_priority_does_not_starve_while_another_of_it_rides_along() -> None:
    batcher: Batcher[Sample] = Batcher(4, priority=priority)
    lonely = Sample(-1, bucket="lonely", priority=2)
    put(batcher, lonely, Sample(0, bucket="busy"))
    for turn in range(40):
        put(batcher, *(Sample(turn, ready_at=float(turn), bucket="busy", priority=p) for p in (1, 1, 2, 2)))
        if lonely in batcher.close(float(turn)):
            return
    pytest.fail("it starved")


# -- taking back


@pytest.mark.parametrize("settings", [{}, {"rows": rows, "priority": priority}])
def test_samples_put_back_are_the_first_again_in_their_order(settings: dict[str, Any]) -> None:
    batcher: Batcher[Sample] = Batcher(3, **settings)
    put(batcher, *map(Sample, range(5)))
    batcher.put_back(batcher.close(0.0)[1:])
    assert [numbers(batcher.close(0.0)) for _ in range(2)] == [[1, 2, 3], [4]]
    assert len(batcher) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 0},
        {"max_delay_s": -1.0},
        {"max_delay_s": float("nan")},
        {"stage_s": -1.0},
        {"max_batch_cost": 1.0},
        {"cost": cost},
        {"max_batch_cost": 0.0, "cost": cost},
        {"sizes": (4, 2)},
        {"sizes": (0, 2)},
        {"sizes": (2, 2)},
        {"replicas": 0},
        {"depth": 3},
        {"retry": -1},
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Batcher(**{"batch_size": 8, **settings})


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 4), st.booleans(), st.booleans())),
    st.integers(1, 5),
    st.sampled_from([{}, {"rows": rows}, {"priority": priority}, {"rows": rows, "priority": priority}]),
)
def test_no_sample_is_lost_doubled_or_mixed(
    arrivals: list[tuple[int, int, int, bool, bool]], size: int, settings: dict[str, Any]
) -> None:
    batcher: Batcher[Sample] = Batcher(size, **settings)
    ran: list[int] = []
    samples: list[Sample] = []
    for number, (bucket, level, n, dies, closes) in enumerate(arrivals):
        samples.append(Sample(number, float(number), bucket, priority=level, rows=n))
        batcher.put(samples[-1])
        if dies:
            samples[number // 2].dead = samples[number // 2].number not in ran
        if closes:
            batch = batcher.close(float(number))
            assert len({sample.bucket for sample in batch}) <= 1
            total = sum(sample.rows for sample in batch) if "rows" in settings else len(batch)
            assert total <= size or len(batch) == 1
            ran += numbers(batch)
    while batch := batcher.close(1e9):
        ran += numbers(batch)
    assert sorted(ran) == [sample.number for sample in samples if not sample.dead]
    assert len(batcher) == 0
