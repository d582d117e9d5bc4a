"""The policy alone, with a clock of numbers."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from asyncline.engine.batching import Batcher


@dataclass
class Sample:
    name: int
    ready_at: float = 0.0
    bucket: Hashable = None
    dead: bool = False


def names(batch: list[Sample]) -> list[int]:
    return [sample.name for sample in batch]


def test_a_free_replica_takes_what_is_there_at_once() -> None:
    batcher: Batcher[Sample] = Batcher(8)
    batcher.put(Sample(1, ready_at=5.0))
    assert names(batcher.close(now=5.0)) == [1]
    assert batcher.close(now=5.0) == []
    assert batcher.ready_at() is None


def test_a_batch_has_at_most_batch_size_samples_in_order() -> None:
    batcher: Batcher[Sample] = Batcher(3)
    for n in range(7):
        batcher.put(Sample(n))
    assert [names(batcher.close(0.0)) for _ in range(4)] == [[0, 1, 2], [3, 4, 5], [6], []]


def test_only_samples_of_one_bucket_share_a_batch_and_the_oldest_goes_first() -> None:
    batcher: Batcher[Sample] = Batcher(8)
    for n, bucket in enumerate("abab"):
        batcher.put(Sample(n, ready_at=float(n), bucket=bucket))
    assert names(batcher.close(9.0)) == [0, 2]
    assert names(batcher.close(9.0)) == [1, 3]


def test_a_delay_waits_for_more_but_not_past_its_end() -> None:
    batcher: Batcher[Sample] = Batcher(2, max_delay_s=1.0)
    batcher.put(Sample(1, ready_at=5.0))
    assert batcher.close(5.5) == []
    assert batcher.ready_at() == 6.0
    assert names(batcher.close(6.0)) == [1]


def test_a_full_batch_does_not_wait_out_the_delay() -> None:
    batcher: Batcher[Sample] = Batcher(2, max_delay_s=1.0)
    batcher.put(Sample(1, ready_at=5.0))
    batcher.put(Sample(2, ready_at=5.1))
    assert names(batcher.close(5.1)) == [1, 2]


def test_a_full_bucket_goes_before_an_older_one_that_still_waits() -> None:
    batcher: Batcher[Sample] = Batcher(2, max_delay_s=1.0)
    batcher.put(Sample(1, ready_at=5.0, bucket="old"))
    for n in (2, 3):
        batcher.put(Sample(n, ready_at=5.5, bucket="full"))
    assert names(batcher.close(5.5)) == [2, 3]
    assert batcher.close(5.5) == []


def test_dead_samples_are_dropped_when_a_batch_closes() -> None:
    batcher: Batcher[Sample] = Batcher(2)
    for n in range(5):
        batcher.put(Sample(n, dead=n in (0, 2)))
    assert names(batcher.close(0.0)) == [1, 3]
    assert names(batcher.close(0.0)) == [4]
    assert len(batcher) == 0


def test_a_batcher_of_dead_samples_is_empty_after_one_close() -> None:
    batcher: Batcher[Sample] = Batcher(2)
    for n in range(5):
        batcher.put(Sample(n, bucket=n, dead=True))
    assert batcher.close(0.0) == []
    assert len(batcher) == 0


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans())),
    st.integers(1, 5),
)
def test_no_sample_is_lost_doubled_or_mixed(arrivals: list[tuple[int, bool, bool]], size: int) -> None:
    batcher: Batcher[Sample] = Batcher(size)
    ran: list[int] = []
    samples = []
    for n, (bucket, dies, closes) in enumerate(arrivals):
        samples.append(Sample(n, float(n), bucket))
        batcher.put(samples[-1])
        if dies:
            samples[n // 2].dead = samples[n // 2].name not in ran
        if closes:
            batch = batcher.close(float(n))
            assert len({sample.bucket for sample in batch}) <= 1 and len(batch) <= size
            ran += names(batch)
    while batch := batcher.close(1e9):
        ran += names(batch)
    assert sorted(ran) == [sample.name for sample in samples if not sample.dead]
    assert len(batcher) == 0
