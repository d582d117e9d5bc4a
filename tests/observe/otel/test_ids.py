"""Ids of spans: from a request's number alone."""

from __future__ import annotations

import numpy as np
import pytest

from asyncline.observe.otel.ids import Ids
from asyncline.wire.traceparent import TRACEPARENT

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


def test_the_same_number_has_the_same_ids_and_another_key_has_others() -> None:
    ids = Ids(1.0, b"key")
    assert ids.request(7, None) == Ids(1.0, b"key").request(7, None)
    assert ids.request(7, None) != Ids(1.0, b"other").request(7, None)
    assert ids.request(7, None).span_id != ids.request(8, None).span_id


def test_two_servers_have_different_keys() -> None:
    assert Ids(1.0).of_request(1, None) != Ids(1.0).of_request(1, None)


def test_what_is_handed_on_is_of_the_callers_trace_and_has_our_span() -> None:
    ids = Ids(1.0)
    span = ids.request(7, SAMPLED)
    assert ids.of_request(7, SAMPLED) == f"00-{TRACE}-{span.span_id:016x}-01"
    assert (span.parent_id, span.is_remote) == (int(PARENT, 16), True)


def test_an_op_is_below_its_request_and_hands_on_its_own_span() -> None:
    ids = Ids(1.0)
    request = ids.request(7, SAMPLED)
    op = ids.op(7, request, 2)
    assert (op.trace_id, op.parent_id) == (request.trace_id, request.span_id)
    assert ids.of_op(7, SAMPLED, 2) == op.traceparent
    assert len({ids.op(7, request, place).span_id for place in range(8)} | {request.span_id}) == 9


@pytest.mark.parametrize("traceparent", [None, SAMPLED])
def test_what_is_handed_on_is_well_formed(traceparent: str | None) -> None:
    ids = Ids(1.0)
    for found in (
        ids.of_request(1, traceparent),
        ids.of_op(1, traceparent, 0),
        ids.of_batch(0, 0, 1.5, [(1, traceparent)]),
        ids.of_batch(0, 0, 1.5, [(1, traceparent), (2, None)]),
    ):
        assert TRACEPARENT.fullmatch(found)


def test_a_caller_that_does_not_sample_is_obeyed_and_its_own_context_handed_on() -> None:
    ids = Ids(1.0)
    assert not ids.is_sampled(7, UNSAMPLED)
    assert ids.of_request(7, UNSAMPLED) == ids.of_op(7, UNSAMPLED, 1) == UNSAMPLED


def test_a_caller_that_samples_is_obeyed_whatever_the_ratio() -> None:
    assert Ids(0.0).is_sampled(7, SAMPLED)


def test_a_request_that_is_not_sampled_tells_those_that_it_calls() -> None:
    assert Ids(0.0).of_op(7, None, 0).endswith("-00")


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.25, 0.5, 1.0])
def test_the_ratio_is_kept_among_neighbours_and_on_the_whole(ratio: float) -> None:
    ids = Ids(ratio, b"key")
    sampled = [ids.is_sampled(data_id, None) for data_id in range(1, 10_001)]
    assert sum(sampled) == pytest.approx(10_000 * ratio, abs=3)
    for start in range(0, 10_000, 1000):
        assert sum(sampled[start : start + 1000]) == pytest.approx(1000 * ratio, abs=3)


def test_a_batch_of_one_request_is_in_its_trace_and_one_of_several_in_its_own() -> None:
    ids = Ids(1.0)
    op = ids.op(7, ids.request(7, SAMPLED), 1)
    lone = ids.batch(1, 0, 2.5, op, is_sampled=True)
    several = ids.batch(1, 0, 2.5, None, is_sampled=True)
    assert (lone.trace_id, lone.parent_id) == (op.trace_id, op.span_id)
    assert several.trace_id != op.trace_id and several.parent_id is None
    assert ids.of_batch(1, 0, 2.5, [(7, SAMPLED)]) == lone.traceparent
    assert ids.of_batch(1, 0, 2.5, [(7, SAMPLED), (8, UNSAMPLED)]) == several.traceparent
    assert ids.of_batch(1, 0, 2.5, [(7, UNSAMPLED), (8, UNSAMPLED)]).endswith("-00")


def test_each_batch_has_ids_of_its_own() -> None:
    ids = Ids(1.0)
    batches = [(0, 0, 1.0), (0, 0, 1.5), (0, 1, 1.0), (1, 0, 1.0)]
    spans = [ids.batch(*batch, None, is_sampled=True) for batch in batches]
    assert len({span.span_id for span in spans}) == len({span.trace_id for span in spans}) == 4


@pytest.mark.parametrize("ratio", [0.0, 1e-9, 0.3, 1.0])
def test_many_are_sampled_as_each_of_them_is(ratio: float) -> None:
    ids = Ids(ratio, b"key")
    data_ids = np.arange(1, 3000)
    assert ids.are_sampled(data_ids).tolist() == [ids.is_sampled(data_id, None) for data_id in data_ids.tolist()]
