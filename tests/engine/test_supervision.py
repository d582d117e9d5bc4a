"""When a worker starts again, and when an Op is refused."""

from __future__ import annotations

from asyncline.engine.lanes.supervision import BACKOFF_S, DEATHS, WINDOW_S, Breaker, Restarts


def test_a_worker_that_died_starts_again_at_once() -> None:
    restarts = Restarts()
    restarts.died(100.0)
    assert restarts.delay_s(100.0) == 0.0


def test_starts_that_fail_wait_longer_and_longer_and_a_good_one_resets_that() -> None:
    restarts = Restarts()
    waits = []
    for _ in range(12):
        restarts.start_failed()
        waits.append(restarts.delay_s(0.0))
    assert waits == [*BACKOFF_S[1:], *[BACKOFF_S[-1]] * 4]
    restarts.started()
    assert restarts.delay_s(0.0) == 0.0


def test_a_worker_that_dies_again_and_again_waits_though_it_starts() -> None:
    restarts = Restarts()
    waits = []
    for number in range(DEATHS + 2):
        restarts.died(float(number))
        restarts.started()
        waits.append(restarts.delay_s(float(number)))
    assert waits == [0.0] * (DEATHS - 1) + [0.1, 0.2, 0.4]
    assert restarts.delay_s(DEATHS + WINDOW_S + 2) == 0.0


def crash(breaker: Breaker, times: int, now: float = 100.0) -> None:
    for _ in range(times):
        assert breaker.admits(now)
        breaker.crashed(now)


def test_some_crashes_are_borne() -> None:
    breaker = Breaker()
    crash(breaker, DEATHS - 1)
    assert breaker.admits(100.0) and not breaker.is_open


def test_repeated_crashes_refuse_the_op_until_one_job_has_tried() -> None:
    breaker = Breaker()
    crash(breaker, DEATHS)
    assert breaker.is_open and not breaker.admits(100.9) and breaker.refuses(100.9)
    assert not breaker.refuses(101.0) and breaker.admits(101.0)
    assert not breaker.admits(101.0) and breaker.refuses(101.0)  # one at a time
    breaker.succeeded()
    assert not breaker.is_open and not breaker.refuses(101.0) and breaker.admits(101.0) and breaker.admits(101.0)


def test_a_try_that_crashes_refuses_for_twice_as_long_up_to_a_bound() -> None:
    breaker = Breaker()
    crash(breaker, DEATHS)
    waits = []
    for _ in range(7):
        now = breaker.open_until
        crash(breaker, 1, now)
        waits.append(breaker.open_until - now)
    assert waits == [2, 4, 8, 16, 30, 30, 30]


def test_a_try_that_was_not_run_lets_another_try() -> None:
    breaker = Breaker()
    crash(breaker, DEATHS)
    assert breaker.admits(102.0)
    breaker.gave_up()
    assert breaker.admits(102.0)


def test_crashes_among_many_good_jobs_do_not_shut_out_everybody() -> None:
    breaker = Breaker()
    crash(breaker, 1)
    for _ in range(20):
        breaker.succeeded()
    crash(breaker, 2 * DEATHS)
    assert not breaker.is_open


def test_old_crashes_are_forgotten() -> None:
    breaker = Breaker()
    crash(breaker, DEATHS - 1)
    crash(breaker, DEATHS - 1, 101.0 + WINDOW_S)
    assert not breaker.is_open
