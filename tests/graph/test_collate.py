"""Samples laid together, and results taken apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncline.graph.collate import Collate, Pad, Stack, gather, take_apart


def test_stack_puts_lone_samples_into_rows() -> None:
    (batch,) = Stack().join([np.full(3, value) for value in range(4)], [None] * 4)
    assert batch.shape == (4, 3) and batch[:, 0].tolist() == [0, 1, 2, 3]


def test_stack_does_not_copy_a_lone_sample() -> None:
    sample = np.zeros((2, 3))
    assert np.shares_memory(Stack().join([sample], [None])[0], sample)
    assert Stack().join([sample], [None])[0].shape == (1, 2, 3)
    assert Stack().join([sample], [2])[0] is sample


def test_stack_mixes_rows_and_lone_samples() -> None:
    (batch,) = Stack().join([np.zeros((2, 3)), np.ones(3)], [2, None])
    assert batch.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1]]


def test_samples_of_one_shape_and_dtype_share_a_batch() -> None:
    bucket = Stack().bucket
    assert bucket(np.zeros((2, 3)), is_rows=False) == bucket(np.zeros((9, 2, 3)), is_rows=True)
    assert bucket(np.zeros(3), is_rows=False) != bucket(np.zeros(3, np.float32), is_rows=False)
    assert bucket(np.zeros(3), is_rows=False) != bucket(np.zeros(4), is_rows=False)


def test_pad_fills_up_and_hands_on_the_true_lengths() -> None:
    pad = Pad(to=4, value=-1)
    batch, lengths = pad.join([np.array([1, 2]), np.array([3, 4, 5])], [None, None])
    assert batch.tolist() == [[1, 2, -1, -1], [3, 4, 5, -1]]
    assert lengths.tolist() == [2, 3]


def test_pad_takes_another_axis_and_rows() -> None:
    pad = Pad(to=4, axis=1)
    batch, lengths = pad.join([np.ones((2, 3)), np.ones((5, 2, 4))], [None, 5])
    assert batch.shape == (6, 2, 4) and lengths.tolist() == [3, 4, 4, 4, 4, 4]
    assert batch[0].sum() == 6 and batch[1:].sum() == 40


def test_lengths_of_one_multiple_share_a_batch() -> None:
    bucket = Pad(to=4).bucket
    assert bucket(np.zeros(1), is_rows=False) == bucket(np.zeros(4), is_rows=False)
    assert bucket(np.zeros(4), is_rows=False) != bucket(np.zeros(5), is_rows=False)
    assert bucket(np.zeros(0), is_rows=False) == bucket(np.zeros(1), is_rows=False)


@pytest.mark.parametrize("collate", [Stack(), Pad(to=8)])
def test_what_is_no_array_is_refused(collate: Collate) -> None:
    with pytest.raises(ValueError, match="expected a sample that is an array, got list"):
        collate.bucket([1, 2], is_rows=False)


def test_a_sample_without_the_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="has no axis 1 to pad"):
        Pad(to=8, axis=1).bucket(np.zeros(3), is_rows=False)


@pytest.mark.parametrize("wrong", [{"to": 0}, {"to": 8, "axis": -1}])
def test_a_pad_that_makes_no_sense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Pad(**wrong)


def test_results_go_back_by_rows() -> None:
    results = np.arange(4)
    first, second = take_apart(results, [3, None])
    assert first.tolist() == [0, 1, 2] and second == 3


def test_several_outputs_are_taken_apart_together() -> None:
    outputs = np.arange(3), np.arange(6).reshape(3, 2)
    assert [(int(a), b.tolist()) for a, b in take_apart(outputs, [None] * 3)] == [(0, [0, 1]), (1, [2, 3]), (2, [4, 5])]
    named = take_apart({"a": np.arange(3), "b": list("xyz")}, [2, None])
    assert named[0]["a"].tolist() == [0, 1] and named[1] == {"a": 2, "b": "z"}


def test_an_output_may_have_another_length_for_each_sample() -> None:
    boxes = [np.zeros((count, 4)) for count in (2, 0, 5)]
    assert [len(found) for found in take_apart(boxes, [None] * 3)] == [2, 0, 5]


@pytest.mark.parametrize("results", [np.arange(3), [1, 2, 3], None, 5, np.float32(1), np.zeros(()), (np.arange(3),)])
def test_a_wrong_number_of_rows_is_an_error(results: Any) -> None:
    with pytest.raises(ValueError, match="expected 4 rows, got"):
        take_apart(results, [2, None, None])


@pytest.mark.parametrize("results", [[np.arange(2), np.arange(2)], [np.arange(2), None], [[1, 2], [1]]])
def test_a_piece_with_a_wrong_number_of_rows_is_an_error(results: list[Any]) -> None:
    with pytest.raises(ValueError, match="expected 3 rows"):
        gather(results, [2, 3])


@given(st.lists(st.one_of(st.none(), st.integers(1, 5)), min_size=1, max_size=8))
def test_joining_and_taking_apart_gives_everybody_his_own(rows: list[int | None]) -> None:
    samples = [np.full(2 if count is None else (count, 2), place) for place, count in enumerate(rows)]
    (batch,) = Stack().join(samples, rows)
    for sample, back in zip(samples, take_apart(batch, rows), strict=True):
        assert np.array_equal(sample, back)


@given(st.integers(1, 50), st.integers(1, 9))
def test_cutting_and_gathering_gives_the_whole(count: int, most: int) -> None:
    whole = np.arange(count)
    pieces = [whole[start : start + most] for start in range(0, count, most)]
    assert np.array_equal(gather(pieces, [len(piece) for piece in pieces]), whole)
    assert gather([piece.tolist() for piece in pieces], [len(piece) for piece in pieces]) == whole.tolist()
    both = gather([(piece, {"n": piece}) for piece in pieces], [len(piece) for piece in pieces])
    assert np.array_equal(both[0], whole) and np.array_equal(both[1]["n"], whole)
