"""FakeSession: as slow and as broken as it is told."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from asyncline import LoadError
from asyncline.backends import FakeSession
from asyncline.engine.lanes.accelerator import DeviceLost, OutOfMemory


def numbers(*values: float) -> list[np.ndarray]:
    return [np.array(value, np.float32) for value in values]


def test_a_run_takes_as_long_as_its_rows() -> None:
    slept: list[float] = []
    session = FakeSession(base_s=1.0, row_s=0.25, sleep=slept.append)
    session.run(numbers(1, 2))
    session.run(numbers(1))
    assert slept == [1.5, 1.25]
    assert session.runs == [2, 1]


def test_jitter_stays_within_its_bounds_and_repeats_with_its_seed() -> None:
    def slept(seed: int) -> list[float]:
        found: list[float] = []
        session = FakeSession(base_s=1.0, jitter=0.2, seed=seed, sleep=found.append)
        for _ in range(50):
            session.run(numbers(1))
        return found

    assert slept(1) == slept(1) != slept(2)
    assert 0.8 <= min(slept(1)) < 0.9 < 1.1 < max(slept(1)) <= 1.2


def test_a_poisoned_value_fails_the_batch_it_is_in() -> None:
    session = FakeSession(poison={13})
    with pytest.raises(ValueError, match="poison: 13"):
        session.run(numbers(1, 13, 2))
    np.testing.assert_array_equal(session.run(numbers(1, 2)), [1, 2])


def test_too_many_rows_are_out_of_memory_until_there_is_more() -> None:
    session = FakeSession(most=2)
    with pytest.raises(OutOfMemory, match="no room for 3 rows"):
        session.run(numbers(1, 2, 3))
    session.most = 3
    assert len(session.run(numbers(1, 2, 3))) == 3


def test_a_run_hangs_until_it_is_released() -> None:
    session = FakeSession()
    session.hang()
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.extend(session.run(numbers(7))))
    thread.start()
    assert session.hanging.wait(5)
    assert results == []
    session.release()
    thread.join(5)
    assert results == [7]


def test_a_lost_device_stays_lost() -> None:
    session = FakeSession()
    session.lose()
    for _ in range(2):
        with pytest.raises(DeviceLost):
            session.run(numbers(1))


def test_a_closed_session_runs_no_more_and_holds_nobody() -> None:
    session = FakeSession()
    session.hang()
    session.close()
    with pytest.raises(LoadError, match="closed"):
        session.run(numbers(1))
