"""Session: samples in, rows out; and the check of a sample before it is part of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncline import BadRequest, LoadError, OpError
from asyncline.backends import FakeSession, TensorInfo
from asyncline.backends.base import check, zeros

PAIR = TensorInfo("x", "FP32", (-1, 2))


def rows(*values: float) -> list[np.ndarray[Any, Any]]:
    return [np.array([value, -value], np.float32) for value in values]


def adder(**options: Any) -> FakeSession:
    """Two inputs, two outputs."""
    return FakeSession(
        lambda a, b: (a + b, a - b),
        inputs=(TensorInfo("a", "FP32", (-1, 2)), TensorInfo("b", "FP32", (-1, 2))),
        outputs=(TensorInfo("sum", "FP32", (-1, 2)), TensorInfo("difference", "FP32", (-1, 2))),
        **options,
    )


# -- run


@pytest.mark.parametrize("count", [1, 2, 5])
def test_there_is_one_row_for_each_sample_in_order(count: int) -> None:
    session = FakeSession(lambda x: 10 * x, inputs=(PAIR,))
    results = session.run(rows(*range(count)))
    np.testing.assert_array_equal(results, 10 * np.stack(rows(*range(count))))


def test_a_lone_sample_is_not_copied() -> None:
    seen: list[np.ndarray[Any, Any]] = []
    (sample,) = rows(1)
    FakeSession(lambda x: seen.append(x) or x, inputs=(PAIR,)).run([sample])
    assert np.shares_memory(seen[0], sample)


def test_an_array_is_a_batch_as_it_is() -> None:
    batch = np.stack(rows(1, 2, 3))
    np.testing.assert_array_equal(FakeSession(inputs=(PAIR,)).run(batch), batch)


def test_a_sample_of_several_inputs_is_a_tuple_and_so_is_its_result() -> None:
    (a, b), (c, d) = rows(1, 2), rows(3, 4)
    first, second = adder().run([(a, b), (c, d)])
    np.testing.assert_array_equal(first, [a + b, a - b])
    np.testing.assert_array_equal(second, [c + d, c - d])


def test_outputs_come_by_name_too() -> None:
    a, b = rows(1, 2)
    outputs = adder().run_rows([(a, b)])
    assert list(outputs) == ["sum", "difference"]


@pytest.mark.parametrize(("count", "runs"), [(1, [1]), (4, [4]), (5, [4, 1]), (8, [4, 4]), (11, [4, 4, 3])])
def test_a_batch_larger_than_the_model_takes_runs_in_turns(count: int, runs: list[int]) -> None:
    session = adder(max_batch_size=4)
    samples = [(a, a) for a in rows(*range(count))]
    np.testing.assert_array_equal([row[0] for row in session.run(samples)], [2 * a for a, _ in samples])
    assert session.runs == runs


@pytest.mark.parametrize(("count", "runs"), [(1, [4]), (3, [4]), (4, [4]), (6, [4, 4])])
def test_a_batch_smaller_than_the_one_size_of_a_model_is_filled_up(count: int, runs: list[int]) -> None:
    session = FakeSession(inputs=(TensorInfo("x", "FP32", (4, 2)),), max_batch_size=4)
    results = session.run(rows(*range(count)))
    np.testing.assert_array_equal(results, np.stack(rows(*range(count))))
    assert session.runs == runs


@pytest.mark.parametrize("extra", [-1, 1, 3])
def test_a_wrong_number_of_rows_is_an_error_not_a_guess(extra: int) -> None:
    with pytest.raises(OpError, match=f"^output 'y' has {3 + extra} rows for a batch of 3$"):
        FakeSession(inputs=(PAIR,), extra_rows=extra).run(rows(1, 2, 3))


def test_an_output_without_rows_is_an_error() -> None:
    with pytest.raises(OpError, match="output 'y' has 0 rows for a batch of 2"):
        FakeSession(lambda x: x.sum(), inputs=(PAIR,)).run(rows(1, 2))


# -- a model that does not say where its outputs have the batch


def unsaid(**options: Any) -> FakeSession:
    session = FakeSession(inputs=(TensorInfo("x", "FP32", (-1, -1)),), **options)
    session.says_batch_axis = False
    return session


def test_it_runs_its_first_batch_of_several_rows_once_more_with_a_row_less() -> None:
    session = unsaid()
    for count in (1, 3, 4):
        assert len(session.run(rows(*range(count)))) == count
    assert session.runs == [1, 3, 2, 4]


def test_rows_that_are_as_many_by_chance_are_given_to_nobody() -> None:
    session = unsaid(compute=lambda x: x.T)
    for _ in range(2):
        with pytest.raises(OpError, match=r"^output 'y' does not have the batch first"):
            session.run(rows(1, 2))
    assert session.runs == [2, 1]


# -- warmup


def test_warming_up_runs_every_size_on_zeros() -> None:
    seen: list[float] = []
    session = FakeSession(lambda x: seen.append(float(x.sum())) or x, inputs=(PAIR,))
    session.warmup((1, 8))
    assert session.runs == [1, 8]
    assert seen == [0, 0]


def test_warming_up_takes_an_example() -> None:
    session = FakeSession(inputs=(TensorInfo("x", "FP32", (-1, -1)),))
    session.warmup((2,), np.ones(7, np.float32))
    assert session.runs == [2]


def test_open_lengths_need_an_example_to_warm_up_with() -> None:
    with pytest.raises(LoadError, match=r"^tensor 'x' has open lengths, \[-1, -1\]: give an example"):
        FakeSession(inputs=(TensorInfo("x", "FP32", (-1, -1)),)).warmup()


def test_zeros_of_strings_are_empty() -> None:
    assert zeros(TensorInfo("x", "BYTES", (-1, 2))).tolist() == ["", ""]


# -- check


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.zeros(3, np.float32), "expected shape [2], got [3]"),
        (np.zeros((1, 2), np.float32), "expected shape [2], got [1, 2]"),
        (np.zeros(2, np.complex64), "expected FP32, got complex64"),
        (np.zeros(2, "U1"), "expected FP32, got str32"),
        ([1, [2]], "the nested lists are ragged or too deep"),
        (["a", "b"], "expected numbers only"),
        ("ab", "expected nested lists of numbers, got a string"),
        (None, "expected nested lists of numbers, got null"),
    ],
)
def test_a_value_that_the_model_does_not_take_is_refused_by_the_name_of_its_tensor(value: Any, says: str) -> None:
    with pytest.raises(BadRequest) as caught:
        PAIR.check(value)
    assert caught.value.message == f"tensor 'x': {says}"


def test_a_value_of_the_right_kind_is_the_same_object() -> None:
    (sample,) = rows(1)
    assert check([PAIR], [sample]) is sample


def test_lists_and_wider_numbers_are_converted() -> None:
    assert check([PAIR], [[1, 2.5]]).dtype == np.float32
    assert check([PAIR], [np.array([1, 2.5])]).dtype == np.float32
    assert check([TensorInfo("n", "INT64", (-1,))], [np.int32(3)]).dtype == np.int64


def test_several_inputs_make_a_tuple() -> None:
    sample = check([PAIR, TensorInfo("n", "INT64", (-1,))], [[1, 2], 3])
    assert [array.shape for array in sample] == [(2,), ()]


@pytest.mark.parametrize(
    ("info", "says"),
    [
        (TensorInfo("x", "BF16", (-1, 2)), "tensor 'x' is BF16, which no request can carry"),
        (TensorInfo("x", "", (-1, 2)), "tensor 'x' is of unknown dtype, which no request can carry"),
        (TensorInfo("x", "FP32", ()), "tensor 'x' has no batch: its first length has to be one"),
    ],
)
def test_a_tensor_that_cannot_be_checked_is_an_error_at_start(info: TensorInfo, says: str) -> None:
    with pytest.raises(LoadError) as caught:
        _ = info.field
    assert str(caught.value) == says
