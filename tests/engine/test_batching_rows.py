"""The arithmetic of samples that are batches themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncline.engine.batching.rows import spans, split


def test_a_large_sample_is_cut_into_full_pieces_and_a_rest() -> None:
    assert split(10, most=4) == [slice(0, 4), slice(4, 8), slice(8, 10)]


def test_a_sample_that_fits_stays_whole_and_an_empty_one_has_no_piece() -> None:
    assert split(4, most=4) == [slice(0, 4)]
    assert split(0, most=4) == []


def test_pieces_without_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 or more"):
        split(4, most=0)


def test_spans_say_where_the_rows_of_each_sample_lie() -> None:
    assert spans([2, 1, 3]) == [slice(0, 2), slice(2, 3), slice(3, 6)]
    assert spans([]) == []


@given(st.lists(st.integers(0, 50)), st.integers(1, 10))
def test_what_is_split_and_batched_is_gathered_as_it_was(rows: list[int], most: int) -> None:
    values = [[(number, row) for row in range(count)] for number, count in enumerate(rows)]
    pieces = [value[part] for value in values for part in split(len(value), most)]
    batch = [row for piece in pieces for row in piece]
    results = iter([batch[span] for span in spans(map(len, pieces))])
    assert [[row for _ in split(count, most) for row in next(results)] for count in rows] == values
