"""From figures to the lane that suits a hook, and to the one setting of its Op."""

from __future__ import annotations

import pytest

from asyncline.tools.advise.policy import Advice, Figures, combine, duration, judge

MS = 1e-3
US = 1e-6


@pytest.mark.parametrize(
    ("figures", "lane", "why"),
    [
        (Figures(3 * US), "inline", "less than handing it over"),
        (Figures(3 * US, barred="no import"), "inline", "less than handing it over"),
        (Figures(5 * MS, speed_up=1.9, crossing_s=1 * MS), "thread", "releases the GIL"),
        (Figures(5 * MS, speed_up=1.0, cores=1.9), "thread", "its own threads fill 1.9 cores"),
        (Figures(5 * MS, speed_up=1.0, crossing_s=1 * MS), "process", "holds the GIL"),
        (Figures(5 * MS, speed_up=1.5, crossing_s=1 * MS), "process", "holds the GIL"),
        (Figures(5 * MS, speed_up=1.0, crossing_s=6 * MS), "thread", "crossing to the pool would take 6.00 ms"),
        (Figures(90 * US, speed_up=1.0, crossing_s=95 * US), "inline", "crossing to the pool would take 95.0 µs"),
        (Figures(110 * US, speed_up=1.0, crossing_s=120 * US), "thread", "crossing to the pool"),
        (Figures(5 * MS, speed_up=1.0, barred="no import"), "thread", "cannot run in the pool: no import"),
        (Figures(5 * MS, barred="no import", unjudged="one core"), "thread", "cannot run in the pool: no import"),
        (Figures(5 * MS, unjudged="one core"), None, "one core"),
        (Figures(5 * MS, clash="raises X"), "process", "fails in two threads at once: raises X"),
        (Figures(5 * MS, clash="raises X", barred="no import"), None, "in two threads at once (raises X) and in the"),
    ],
)
def test_figures_tell_the_lane(figures: Figures, lane: str | None, why: str) -> None:
    advice = judge(figures)
    assert advice.lane == lane
    assert why in advice.why


PYTHON = Figures(5 * MS, speed_up=1.0)
NATIVE = Figures(9 * MS, speed_up=1.9)
TRIVIAL = Figures(2 * US)
BARRED = Figures(1 * MS, speed_up=1.9, barred="a lambda")
CLASHING = Figures(1 * MS, clash="raises X")


@pytest.mark.parametrize(
    ("pre", "post", "lane", "why"),
    [
        (PYTHON, PYTHON, "process", ""),
        (TRIVIAL, TRIVIAL, "inline", ""),
        (PYTHON, NATIVE, "thread", "one setting for both hooks: postprocess takes 9.00 ms of 14.0 ms"),
        (TRIVIAL, PYTHON, "process", "one setting for both hooks: postprocess takes 5.00 ms of 5.00 ms"),
        (PYTHON, BARRED, "thread", "one setting for both hooks, and postprocess cannot run in the pool"),
        (CLASHING, NATIVE, "process", "one setting for both hooks, and preprocess cannot run in threads"),
        (CLASHING, BARRED, None, "postprocess cannot run in the pool, preprocess not in threads"),
        (PYTHON, Figures(5 * MS, unjudged="one core"), None, "not all of its hooks could be judged"),
    ],
)
def test_the_heavier_hook_decides_within_what_both_can(pre: Figures, post: Figures, lane: str | None, why: str) -> None:
    hooks = {name: (figures, judge(figures)) for name, figures in (("preprocess", pre), ("postprocess", post))}
    assert combine(hooks) == Advice(lane, why)  # type: ignore[arg-type]


def test_an_op_with_one_hook_gets_the_lane_of_that_hook() -> None:
    assert combine({"preprocess": (NATIVE, judge(NATIVE))}) == Advice("thread", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.2e-7, "0.12 µs"),
        (25e-6, "25.0 µs"),
        (812e-6, "812 µs"),
        (999.7e-6, "1.00 ms"),
        (0.0213, "21.3 ms"),
        (2.5, "2.50 s"),
    ],
)
def test_a_duration_has_three_digits(seconds: float, text: str) -> None:
    assert duration(seconds) == text
