"""What a hook got, fresh for every call."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from asyncline.tools.advise.arguments import Arguments, Pickled, describe


class Unpicklable:
    """Can be copied, but not pickled."""

    def __init__(self, values: list[int]) -> None:
        self.values = values
        self.key = lambda: None

    def __deepcopy__(self, memo: Any) -> Unpicklable:
        return Unpicklable(list(self.values))


class OneWay:
    """Pickles, but does not unpickle."""

    def __reduce__(self) -> Any:
        return int, ("not a number",)


def test_every_call_gets_its_own_copy() -> None:
    arguments = Arguments(([1, 2], np.zeros(10_000)))
    numbers, array = arguments.fresh()
    numbers.append(3)
    array[0] = 7
    again, unchanged = arguments.fresh()
    assert again == [1, 2]
    assert unchanged[0] == 0


def test_they_are_those_from_before_the_call() -> None:
    numbers, array = [1], np.zeros(10_000)
    arguments = Arguments((numbers, array))
    numbers.append(2)
    array[0] = 7
    kept, unchanged = arguments.fresh()
    assert kept == [1]
    assert unchanged[0] == 0


def test_an_array_that_was_read_only_stays_so() -> None:
    array = np.zeros(10_000)
    array.flags.writeable = False
    (fresh,) = Arguments((array,)).fresh()
    assert not fresh.flags.writeable


def test_large_arrays_arrive_in_the_pool_read_only_and_small_ones_do_not() -> None:
    large, small = Pickled.of((np.zeros(10_000), np.zeros(3))).load()
    assert not large.flags.writeable
    assert small.flags.writeable


def test_bytes_that_cross_are_those_of_the_pickle_and_of_the_arrays() -> None:
    pickled = Pickled.of(np.zeros(10_000, np.uint8))
    assert len(pickled.buffers[0]) == 10_000
    assert 10_000 < pickled.nbytes < 10_500


def test_what_does_not_pickle_is_copied_and_cannot_cross() -> None:
    arguments = Arguments((Unpicklable([1]),))
    arguments.fresh()[0].values.append(2)
    assert arguments.fresh()[0].values == [1]
    assert "pickle" in arguments.barred
    assert not arguments.lost


def test_what_pickles_but_does_not_unpickle_cannot_cross() -> None:
    assert "ValueError: invalid literal" in Arguments((OneWay(),)).barred


@pytest.mark.parametrize("value", [(number for number in range(3)), threading.Lock()])
def test_what_cannot_be_copied_is_lost(value: Any) -> None:
    arguments = Arguments((value,))
    assert "cannot pickle" in arguments.barred
    assert "cannot pickle" in arguments.lost


def test_an_error_is_one_line_with_its_type() -> None:
    assert describe(ValueError("a\nb")) == "ValueError: a b"
    assert describe(KeyboardInterrupt()) == "KeyboardInterrupt"
