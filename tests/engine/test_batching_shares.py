"""Shares: turns of priorities."""

from __future__ import annotations

from asyncline.engine.batching.shares import TURN, Shares


def led(shares: Shares, ready: set[int], batches: int) -> list[int]:
    """Who leads the next batches while all of these wait."""
    leaders = []
    for _ in range(batches):
        leaders.append(leader := shares.leader(ready))
        shares.closed(leader, ready)
    return leaders


def test_the_lowest_number_leads() -> None:
    assert Shares().leader({3, 1, 2}) == 1


def test_one_that_waits_leads_every_eleventh_batch() -> None:
    assert led(Shares(), {1, 2}, 2 * TURN + 2) == ([1] * TURN + [2]) * 2


def test_each_of_many_has_its_turn_and_the_highest_the_most() -> None:
    leaders = led(Shares(), {1, 2, 3, 4, 5}, 1_000)
    counts = [leaders.count(priority) for priority in (1, 2, 3, 4, 5)]
    assert counts[0] > 600
    assert min(counts) >= 60


def test_one_that_does_not_wait_saves_nothing_up() -> None:
    shares = Shares()
    led(shares, {1, 2}, TURN - 1)
    shares.closed(1, {1})
    assert led(shares, {1, 2}, TURN) == [1] * TURN
