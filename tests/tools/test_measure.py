"""Figures of one hook: what is counted, and what goes wrong."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asyncline import context
from asyncline.tools.advise import measure as module
from asyncline.tools.advise.measure import measure
from asyncline.tools.advise.policy import Figures
from asyncline.tools.advise.race import Span
from asyncline.tools.advise.tap import Tap
from asyncline.tools.advise.threads import Unmeasured, together


@pytest.fixture(autouse=True)
def few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CALLS", 3)
    monkeypatch.setattr(module, "ALONE_S", 0.05)
    monkeypatch.setattr(module, "RACE_S", 0.0)
    monkeypatch.setattr(module, "INLINE_S", 0.0)  # so that nothing is too short to race


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def figures_of(function: Callable[..., Any], *values: Any) -> Figures:
    tap = Tap("op", "preprocess", function)
    tap(*values)
    return measure(tap)


def test_bytes_there_and_back_are_counted() -> None:
    figures = figures_of(lambda array: array[:5000], np.zeros(10_000, np.uint8))
    assert figures.nbytes_in is not None and 10_000 < figures.nbytes_in < 10_500
    assert figures.nbytes_out is not None and 5_000 < figures.nbytes_out < 5_500
    assert figures.crossing_s > module.HANDOVER_S
    assert not figures.barred


def test_a_call_is_timed() -> None:
    pause = threading.Event()
    assert figures_of(lambda: pause.wait(0.01)).per_call_s >= 0.01


def test_threads_race_with_as_many_calls_as_fill_a_round(two_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int, int]] = []

    def span(self: module.Calls, threads: int) -> Span:
        name = getattr(self._function, "__name__", "")
        seen.append((name, threads, self._count))
        # The hook gains nothing, the control all.
        return Span(0.5 if name == "hook" and threads == 2 else 0.25, 0.25)

    def hook() -> None:
        pause.wait(0.011)

    pause = threading.Event()
    monkeypatch.setattr(module.Calls, "span", span)
    figures = figures_of(hook)
    assert (figures.speed_up, figures.cores, figures.unjudged) == (1.0, 1.0, "")
    hook_1, hook_2, *control = seen
    assert (hook_1, hook_2) == (("hook", 1, 1), ("hook", 2, 1))
    assert [threads for _, threads, _ in control] == [1, 2]
    assert control[0][2] >= 10  # as long as the hook's


def test_on_busy_cores_threads_are_not_judged(two_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Calls, "span", lambda self, threads: Span(0.1 * threads, 0.1))
    figures = figures_of(lambda: None)
    assert figures.speed_up is None
    assert figures.unjudged == "the cores are busy: even hashing gained by a second thread in 0 of 1 tries only"


def test_on_one_core_threads_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert figures_of(lambda: None).unjudged == "threads cannot be judged on a single core"


def test_a_short_hook_is_not_raced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INLINE_S", 1.0)
    figures = figures_of(lambda: None)
    assert (figures.speed_up, figures.unjudged) == (None, "")


def test_a_slow_hook_is_called_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOW_S", 0.0)
    calls: list[int] = []
    figures = figures_of(lambda: calls.append(1))
    assert "too slow to be tried again and again" in figures.unjudged
    assert len(calls) == 2  # with that of the request


def test_a_hook_that_changes_its_arguments_gets_them_fresh(two_cores: None) -> None:
    lengths: set[int] = set()

    def hook(words: list[str]) -> None:
        lengths.add(len(words))
        words.append("another")

    figures_of(hook, ["one"])
    assert lengths == {1}


def test_a_hook_that_writes_to_what_is_read_only_in_the_pool_cannot_run_there() -> None:
    def hook(array: np.ndarray) -> float:
        array += 1
        return float(array[0])

    barred = figures_of(hook, np.zeros(10_000)).barred
    assert barred.startswith("arrays are read-only there, and it raises ValueError: ")


def test_a_result_that_does_not_pickle_cannot_cross() -> None:
    barred = figures_of(lambda: (number for number in range(3))).barred
    assert barred.startswith("its result cannot cross: TypeError: cannot pickle 'generator' object")


def test_arguments_that_cannot_be_copied_are_told() -> None:
    figures = figures_of(list, (number for number in range(3)))
    assert figures.barred.startswith("its arguments cannot cross: TypeError")
    assert figures.unjudged.startswith("called once only, as its arguments cannot be copied: TypeError")


def test_why_the_op_cannot_be_made_in_the_pool_comes_first() -> None:
    tap = Tap("op", "preprocess", lambda: iter(()))
    tap()
    assert measure(tap, "no import").barred == "no import"


def test_a_hook_that_raises_on_a_later_call_is_not_measured() -> None:
    once = iter([1])
    with pytest.raises(Unmeasured, match="raises StopIteration"):
        figures_of(lambda: next(once))


def test_a_hook_that_two_threads_cannot_run_clashes(two_cores: None) -> None:
    lock, second = threading.Lock(), threading.Event()

    def hook() -> None:
        if not lock.acquire(blocking=False):
            second.set()
            raise RuntimeError("not reentrant")
        try:
            second.wait(0.02)
        finally:
            lock.release()

    assert figures_of(hook).clash == "raises RuntimeError: not reentrant"


def test_a_hook_that_raises_in_one_thread_does_not_clash(two_cores: None) -> None:
    left = iter(range(5))  # the request, a first call, and three alone
    with pytest.raises(Unmeasured, match="raises StopIteration"):
        figures_of(lambda: next(left))


def test_a_hook_has_a_context() -> None:
    (log_id,) = together(lambda: context().log_id)
    assert log_id == "advise"


def test_an_exit_is_no_more_than_an_error() -> None:
    with pytest.raises(Unmeasured, match="raises SystemExit: 3"):
        together(lambda: (_ for _ in ()).throw(SystemExit(3)))


def test_a_hook_that_does_not_return_is_left_behind() -> None:
    release = threading.Event()
    with pytest.raises(Unmeasured, match=r"did not return within 0\.01 s"):
        together(release.wait, limit_s=0.01)
    release.set()
