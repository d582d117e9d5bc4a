"""What is set before libraries are loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from asyncline.settings import from_environment
from asyncline.tuning import THREAD_VARIABLES, set_library_threads


def test_threads_of_libraries_are_set_where_the_user_has_not() -> None:
    environ = {"OMP_NUM_THREADS": "3"}
    set_library_threads(1, environ)
    assert environ == dict.fromkeys(THREAD_VARIABLES, "1") | {"OMP_NUM_THREADS": "3"}


@pytest.mark.parametrize(("switch", "done"), [("1", "True"), ("0", "False")])
def test_malloc_is_tuned_unless_it_is_switched_off(switch: str, done: str) -> None:
    out = subprocess.run(
        [sys.executable, "-c", "from asyncline.tuning import tune_malloc; print(tune_malloc())"],
        env={"ASYNCLINE_MALLOC": switch, "PYTHONPATH": "."}, capture_output=True, text=True, timeout=30, check=True,
    ).stdout  # fmt: skip
    assert out.strip() == done


def test_the_switch_is_no_unknown_setting() -> None:
    assert from_environment([], {"ASYNCLINE_MALLOC": "0"}).values == {}
