"""Batcher: which replica gets a batch, and when; and what becomes of a batch."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import pytest

from asyncline.engine.batching import Batcher
from asyncline.engine.batching.batcher import BatcherStatistics
from tests.engine.simulation import Sample, numbers

STAGE_S = 0.1
ERROR = ValueError("bad")


def batcher_of(size: int = 8, *, learned: float | None = 1.0, **settings: Any) -> Batcher[Sample]:
    """A Batcher that knows that any batch takes `learned` seconds."""
    batcher: Batcher[Sample] = Batcher(size, **{"stage_s": STAGE_S, "depth": 2, **settings})
    if learned is not None:
        for n in (1, 1, size, 1, size):
            batcher.costs.learn(None, n, learned)
    return batcher


def put(batcher: Batcher[Sample], *which: int, **facts: Any) -> list[Sample]:
    samples = [Sample(number, **facts) for number in which]
    for sample in samples:
        batcher.put(sample)
    return samples


def fed(batcher: Batcher[Sample], now: float) -> list[tuple[int | None, list[int]]]:
    """All that there is to do now: replicas, and the samples that they get."""
    feeds = []
    while (feed := batcher.feed(now)) is not None:
        feeds.append((feed.replica, numbers(feed.samples)))
    return feeds


def failures(failed: Any) -> list[tuple[list[int], BaseException]]:
    return [(numbers(samples), error) for samples, error in failed]


# -- which replica, and when


def test_an_idle_replica_gets_what_is_there_at_once() -> None:
    batcher = batcher_of()
    put(batcher, 1)
    assert fed(batcher, 0.0) == [(0, [1])]
    assert batcher.next_feed_at() is None


def test_every_idle_replica_is_fed_before_one_is_staged_for() -> None:
    batcher = batcher_of(2, replicas=2)
    put(batcher, 1, 2, 3, 4, 5, 6)
    feeds = fed(batcher, 0.0)
    assert sorted(replica for replica, _ in feeds[:2]) == [0, 1]
    assert [samples for _, samples in feeds] == [[1, 2], [3, 4], [5, 6]]


def test_idle_replicas_get_equal_parts_of_what_is_there() -> None:
    batcher = batcher_of(8, replicas=3, depth=1)
    put(batcher, 1, 2, 3, 4, 5)
    assert [samples for _, samples in fed(batcher, 0.0)] == [[1, 2], [3, 4], [5]]


def test_idle_replicas_get_equal_parts_of_rows() -> None:
    batcher = batcher_of(8, replicas=2, depth=1, rows=attrgetter("rows"))
    put(batcher, 1, rows=4)
    put(batcher, 2, 3, 4, 5)
    assert [samples for _, samples in fed(batcher, 0.0)] == [[1], [2, 3, 4, 5]]


def test_a_part_is_not_less_than_what_the_model_runs_without_padding() -> None:
    batcher = batcher_of(8, replicas=2, depth=1, sizes=(4, 8))
    put(batcher, 1, 2, 3, 4, 5)
    assert [samples for _, samples in fed(batcher, 0.0)] == [[1, 2, 3, 4], [5]]


def test_what_was_held_for_a_fuller_batch_is_not_parted() -> None:
    batcher = batcher_of(8, replicas=2, depth=1, max_delay_s=3.0)
    put(batcher, 1, 2, 3)
    assert fed(batcher, 3.0) == [(1, [1, 2, 3])]


def test_the_replica_that_was_busy_last_is_fed_first() -> None:
    batcher = batcher_of(1, replicas=3, depth=1)
    put(batcher, 1, 2, 3)
    fed(batcher, 0.0)
    for replica in (0, 2, 1):
        batcher.finished(replica, 0.0, 1.0)
    put(batcher, 4)
    assert fed(batcher, 1.0) == [(1, [4])]


def test_the_next_batch_grows_until_just_before_the_expected_end() -> None:
    batcher = batcher_of()
    put(batcher, 1)
    fed(batcher, 5.0)
    put(batcher, 2)
    assert fed(batcher, 5.5) == []
    assert batcher.next_feed_at() == pytest.approx(6.0 - STAGE_S)
    put(batcher, 3)
    assert fed(batcher, 5.89) == []
    assert fed(batcher, 5.91) == [(0, [2, 3])]


def test_a_batch_that_takes_long_to_lay_together_is_closed_so_much_earlier() -> None:
    batcher = batcher_of(8)
    for rows in (1, 1, 8, 1, 8):
        batcher.staged(rows, 0.02 * rows)
    put(batcher, 1)
    fed(batcher, 5.0)
    put(batcher, 2, 3, 4)
    assert batcher.next_feed_at() == pytest.approx(6.0 - STAGE_S - 3 * 0.02)


def test_a_full_batch_is_staged_at_once() -> None:
    batcher = batcher_of(2)
    put(batcher, 1)
    fed(batcher, 0.0)
    put(batcher, 2, 3, 4)
    assert fed(batcher, 0.1) == [(0, [2, 3])]


def test_a_bucket_that_is_never_full_does_not_starve_beside_one_that_always_is() -> None:
    batcher = batcher_of(2)
    put(batcher, 0)
    fed(batcher, 0.0)
    put(batcher, 1, bucket="small", ready_at=0.1)
    put(batcher, 2, 3, 4, 5, ready_at=0.2)
    assert fed(batcher, 0.2) == [(0, [1])]
    for end in (1.0, 2.0):
        batcher.finished(0, end - 1, end)
    assert fed(batcher, 2.0) == [(0, [2, 3]), (0, [4, 5])]


def test_at_most_one_batch_runs_and_one_is_staged() -> None:
    batcher = batcher_of(1)
    put(batcher, 1, 2, 3)
    assert fed(batcher, 0.0) == [(0, [1]), (0, [2])]
    assert batcher.next_feed_at() is None
    assert fed(batcher, 9.0) == []
    batcher.finished(0, 0.0, 1.0)
    assert fed(batcher, 1.0) == [(0, [3])]


def test_the_replica_that_will_be_done_first_is_staged_for_first() -> None:
    batcher = batcher_of(1, replicas=2)
    put(batcher, 1)
    [(first, _)] = fed(batcher, 0.0)
    put(batcher, 2, 3)
    [(second, _), (staged, _)] = fed(batcher, 0.5)
    assert staged == first != second
    put(batcher, 4)
    assert fed(batcher, 0.5) == [(second, [4])]


def test_a_staged_batch_starts_when_the_one_before_ends() -> None:
    batcher = batcher_of(4)
    put(batcher, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    fed(batcher, 0.0)
    batcher.finished(0, 0.0, 1.2)
    assert fed(batcher, 1.2) == []
    assert batcher.next_feed_at() == pytest.approx(1.2 + 1.0 - STAGE_S, abs=0.05)


def test_nothing_is_staged_where_the_depth_is_one() -> None:
    batcher = batcher_of(1, depth=1)
    put(batcher, 1, 2)
    assert fed(batcher, 0.0) == [(0, [1])]
    assert batcher.next_feed_at() is None


def test_nothing_is_staged_as_long_as_too_little_is_known() -> None:
    batcher = batcher_of(1, learned=None)
    put(batcher, 1, 2)
    assert fed(batcher, 0.0) == [(0, [1])]
    assert batcher.next_feed_at() is None


def test_nothing_is_staged_behind_a_batch_that_may_hang() -> None:
    batcher = batcher_of()
    put(batcher, 1)
    fed(batcher, 0.0)
    put(batcher, 2)
    assert fed(batcher, 50.0) == []
    assert batcher.next_feed_at() is None


def test_a_staged_batch_keeps_the_delay_that_the_user_asked_for() -> None:
    batcher = batcher_of(max_delay_s=3.0)
    put(batcher, 1)
    assert fed(batcher, 3.0) == [(0, [1])]
    put(batcher, 2, ready_at=3.0)
    assert fed(batcher, 3.95) == []
    assert batcher.next_feed_at() == 6.0


def test_the_end_of_a_batch_that_does_not_run_is_refused() -> None:
    with pytest.raises(ValueError, match="replica 0 runs no batch"):
        batcher_of().finished(0, 0.0, 1.0)


def test_what_it_has_seen_is_what_it_expects() -> None:
    batcher = batcher_of(learned=None)
    for start in range(6):
        put(batcher, start)
        fed(batcher, float(start))
        batcher.finished(0, start + 0.25, start + 0.75)
    assert batcher.costs.predict(None, 1) == (0.5, 0.0)


def test_a_batch_that_did_not_run_teaches_nothing() -> None:
    batcher = batcher_of()
    put(batcher, 1)
    fed(batcher, 5.0)
    batcher.finished(0, 5.0, 5.0)
    assert batcher.costs.predict(None, 1) == (1.0, 0.0)


# -- late


def test_late_samples_are_handed_out_to_be_failed() -> None:
    batcher = batcher_of(expires_at=attrgetter("expires_at"))
    put(batcher, 1, expires_at=5.5)
    feed = batcher.feed(5.0)
    assert feed is not None
    assert (feed.replica, feed.samples, numbers(feed.late)) == (None, [], [1])
    assert batcher.feed(5.0) is None
    assert batcher.statistics().late == 1


# -- failures


def test_a_batch_that_raised_is_split_until_the_bad_sample_is_found() -> None:
    batcher = batcher_of(4, depth=1)
    put(batcher, 0, 1, 2, 3)
    runs, failed, good = 0, [], []
    while feeds := fed(batcher, 0.0):
        [(replica, samples)] = feeds
        assert replica == 0
        runs += 1
        if 2 in samples:
            failed += failures(batcher.failed(0, 0.0, 0.001, ERROR))
        else:
            good += samples
            failed += failures(batcher.finished(0, 0.0, 0.001))
    assert failed == [([2], ERROR)]
    assert (sorted(good), runs) == ([0, 1, 3], 1 + 4)
    assert batcher.statistics().reruns == 4


def test_reruns_go_first_and_alone() -> None:
    batcher = batcher_of(4, depth=1)
    put(batcher, 0, 1)
    fed(batcher, 0.0)
    put(batcher, 2)
    assert batcher.failed(0, 0.0, 0.001, ERROR) == []
    ran = []
    for _ in range(3):
        [(_, samples)] = fed(batcher, 0.0)
        ran.append(samples)
        batcher.finished(0, 0.0, 0.001)
    assert ran == [[0], [1], [2]]


def test_a_batch_is_tried_again_as_a_whole_first_where_the_user_asks() -> None:
    batcher = batcher_of(4, depth=1, retry=1)
    put(batcher, 0, 1)
    for expected in ([0, 1], [0, 1], [0]):
        assert fed(batcher, 0.0) == [(0, expected)]
        assert not batcher.failed(0, 0.0, 0.001, ERROR) or expected == [0]


def test_an_error_that_would_only_come_again_is_not_tried_again_as_a_whole() -> None:
    batcher = batcher_of(4, depth=1, retry=1)
    put(batcher, 0)
    fed(batcher, 0.0)
    assert failures(batcher.failed(0, 0.0, 0.001, ERROR, retry=False)) == [([0], ERROR)]


def test_a_batch_that_is_well_shows_that_the_fault_is_in_the_samples_again() -> None:
    batcher = batcher_of(2, depth=1)

    def runs_of(number: int, bad: int) -> int:
        """Batches that run for two samples, if those that number `bad` and more raise."""
        put(batcher, number, number + 1)
        runs = 0
        while feeds := fed(batcher, 0.0):
            runs += 1
            [(_, samples)] = feeds
            if max(samples) >= bad:
                batcher.failed(0, 0.0, 0.001, ERROR)
            else:
                batcher.finished(0, 0.0, 0.001)
        return runs

    assert [runs_of(number, bad=0) for number in (0, 2, 4)] == [3, 3, 1]
    assert runs_of(6, bad=8) == 1
    assert runs_of(8, bad=9) == 3


def test_of_a_half_only_what_still_waits_runs_again() -> None:
    batcher = batcher_of(4, depth=1, expires_at=attrgetter("expires_at"))
    samples = put(batcher, 0, 1, 2, 3, expires_at=9.0)
    fed(batcher, 5.0)
    batcher.failed(0, 5.0, 5.001, ERROR)
    samples[0].dead = True
    samples[1].expires_at = 5.5
    feed = batcher.feed(5.0)
    assert feed is not None
    assert (numbers(feed.samples), numbers(feed.late)) == ([2, 3], [1])


def test_a_search_whose_samples_are_all_dead_is_over() -> None:
    batcher = batcher_of(4, depth=1)
    samples = put(batcher, 0, 1, 2, 3)
    fed(batcher, 0.0)
    batcher.failed(0, 0.0, 0.001, ERROR)
    for sample in samples:
        sample.dead = True
    assert batcher.feed(0.0) is None
    assert batcher.statistics() == BatcherStatistics(waiting=0, running=0, staged=0, late=0, reruns=2, limited=0)


def test_the_rest_fails_where_the_credit_of_a_search_ends() -> None:
    batcher = batcher_of(4, depth=1)
    samples = put(batcher, 0, 1, 2, 3)
    for expected in ([0, 1, 2, 3], [0, 1], [2, 3]):
        assert fed(batcher, 0.0) == [(0, expected)]
        assert batcher.failed(0, 0.0, 1.0, ERROR) == []
    assert fed(batcher, 0.0) == [(0, [2])]
    assert failures(batcher.failed(0, 0.0, 1.0, ERROR)) == [([2], ERROR)]
    samples[3].dead = True  # so the search goes on without a run
    feed = batcher.feed(0.0)
    assert feed is not None
    assert (feed.replica, failures(feed.failed)) == (None, [([0, 1], ERROR)])


# -- out of memory


def test_out_of_memory_makes_smaller_batches_of_the_same_samples_in_order() -> None:
    batcher = batcher_of(8, depth=1)
    put(batcher, *range(10))
    assert fed(batcher, 0.0) == [(0, [*range(8)])]
    assert batcher.out_of_memory(0, 0.0, 0.5, MemoryError()) == []
    assert batcher.statistics().limited == 1
    ran = []
    for _ in range(3):
        [(_, samples)] = fed(batcher, 1.0)
        ran.append(samples)
        batcher.finished(0, 0.0, 0.001)
    assert ran == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_the_limit_recovers_with_time() -> None:
    batcher = batcher_of(8, depth=1)
    put(batcher, *range(8))
    fed(batcher, 0.0)
    batcher.out_of_memory(0, 0.0, 0.0, MemoryError())
    assert fed(batcher, 600.0) == [(0, [*range(8)])]
    assert batcher.statistics().limited == 0


def test_a_lone_sample_that_needs_too_much_memory_fails() -> None:
    batcher = batcher_of(8, depth=1)
    put(batcher, 0)
    fed(batcher, 0.0)
    error = MemoryError()
    assert failures(batcher.out_of_memory(0, 0.0, 0.0, error)) == [([0], error)]


def test_too_little_memory_during_a_search_ends_in_an_answer_for_all() -> None:
    batcher = batcher_of(4, depth=1)
    put(batcher, 0, 1, 2, 3)
    fed(batcher, 0.0)
    batcher.failed(0, 0.0, 0.001, ERROR)
    assert fed(batcher, 0.0) == [(0, [0, 1])]
    assert batcher.out_of_memory(0, 0.0, 0.001, MemoryError()) == []
    ran = []
    while feeds := fed(batcher, 0.0):
        ran += [samples for _, samples in feeds]
        batcher.finished(0, 0.0, 0.001)
    assert ran == [[2, 3], [0], [1]]


# -- replicas that hang


def test_a_lost_replica_fails_what_it_ran_and_gives_back_what_was_staged() -> None:
    batcher = batcher_of(1, replicas=2)
    put(batcher, 1, 2, 3)
    feeds = dict(reversed([(samples[0], replica) for replica, samples in fed(batcher, 0.0)]))
    error = RuntimeError("hangs")
    hung = feeds[3]
    assert hung is not None
    running = next(number for number, replica in feeds.items() if replica == hung and number != 3)
    assert failures(batcher.lost(hung, error)) == [([running], error)]
    batcher.finished(1 - hung, 0.0, 1.0)
    assert fed(batcher, 1.0) == [(1 - hung, [3])]


def test_a_lost_replica_is_not_fed_until_it_is_restored() -> None:
    batcher = batcher_of(1, depth=1)
    batcher.lost(0, ERROR)
    put(batcher, 1)
    assert fed(batcher, 0.0) == []
    assert batcher.next_feed_at() is None
    batcher.restored(0)
    batcher.restored(0)
    put(batcher, 2)
    assert fed(batcher, 0.0) == [(0, [1])]
