"""Steps of a fused task, without a lane around them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asyncline import Each, OpError, Reply, RequestError, Skip
from asyncline.engine.lanes.steps import StepResult, run_steps
from asyncline.graph.fusion import Step


def step(hook: str, *args: int, keeps: bool = True) -> Step:
    return Step(0, "op", hook, args, keeps)


def running(frame: list[Any], *steps: tuple[Step, Callable[..., Any]], expires_at: float = 1e9) -> Iterator[StepResult]:
    """Steps with their hooks, on a clock that advances by a second whenever it is read."""
    hooks = {id(each): hook for each, hook in steps}
    seconds = itertools.count()
    return run_steps(
        [each for each, _ in steps], lambda each: hooks[id(each)], frame, lambda: next(seconds), expires_at
    )


def test_each_step_takes_its_arguments_from_the_frame_and_adds_its_result() -> None:
    results = list(running(
        [2, 3],
        (step("preprocess", 0, 1), lambda a, b: a + b),
        (step("postprocess", 2, 0), lambda result, a: (result, a)),
    ))  # fmt: skip
    assert [result.value for result in results] == [5, (5, 2)]


@pytest.mark.parametrize(("returned", "settled"), [(Skip("s"), "s"), (Each("ab"), ["a", "b"]), (None, None)])
def test_the_next_step_gets_what_a_preprocess_stands_for_and_the_server_what_it_returned(
    returned: Any, settled: Any
) -> None:
    first, second = running(
        [0], (step("preprocess", 0), lambda x: returned), (step("postprocess", 1, 0), lambda value, x: value)
    )
    assert first.value is returned and second.value == settled


@pytest.mark.parametrize("returned", [Skip("s"), Each("ab")])
def test_a_postprocess_means_what_it_returns(returned: Any) -> None:
    _, second = running([0], (step("postprocess", 0), lambda x: returned), (step("preprocess", 1), lambda value: value))
    assert second.value is returned


def test_a_value_that_is_not_kept_is_dropped_when_the_next_step_begins() -> None:
    results = running(
        [0], (step("preprocess", 0, keeps=False), lambda x: "large"), (step("preprocess", 1), lambda value: value)
    )
    first = next(results)
    assert first.value == "large"
    assert next(results).value == "large" and first.value is None


@pytest.mark.parametrize(("hook", "seconds"), [("raise", 1e9), ("reply", 1e9), ("late", 1.0)])
def test_nothing_runs_after_an_error_a_reply_or_the_deadline(hook: str, seconds: float) -> None:
    def end(x: int) -> Any:
        if hook == "raise":
            raise ValueError("wrong")
        return Reply("early") if hook == "reply" else x

    results = list(running(
        [0],
        (step("preprocess", 0, keeps=False), end),
        (step("preprocess", 1), lambda value: pytest.fail("ran")),
        expires_at=seconds,
    ))  # fmt: skip
    assert len(results) == 1
    assert (results[0].value is None) == (hook == "raise")


def test_each_result_has_times_of_its_own() -> None:
    results = list(running([0], (step("preprocess", 0), abs), (step("preprocess", 1), abs)))
    assert [(result.started_at, result.ended_at) for result in results] == [(0, 1), (2, 3)]


def test_an_error_names_op_and_hook_and_an_exit_is_one_too() -> None:
    def leave(x: int) -> None:
        raise SystemExit(3)

    (result,) = running([0], (step("postprocess", 0), leave))
    assert isinstance(result.error, OpError) and str(result.error) == "op 'op' postprocess: SystemExit: 3"


def test_the_caller_makes_errors_its_own_way() -> None:
    def wrong(x: int) -> None:
        raise ValueError

    def make(error: BaseException, op: str, hook: str) -> RequestError:
        return RequestError(f"{op}.{hook} {type(error).__name__}")

    (result,) = run_steps([step("preprocess", 0)], lambda _: wrong, [0], lambda: 0.0, 1.0, make_error=make)
    assert str(result.error) == "op.preprocess ValueError"
