"""Which endpoint is asked, when one that failed is asked again, and how often a request may be sent again."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncline.client.address import Address
from asyncline.client.budget import RetryBudget
from asyncline.client.endpoints import Endpoint, Endpoints
from tests.wire.tensors import untimed


def endpoints(count: int) -> Endpoints:
    return Endpoints([Address("http", "host", port) for port in range(count)])


# -- addresses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://host:8000", Address("http", "host", 8000)),
        ("http://host", Address("http", "host", 80)),
        ("https://host/", Address("https", "host", 443)),
        ("http://host:8000/serving/", Address("http", "host", 8000, "/serving")),
        ("grpc://host:8001", Address("grpc", "host", 8001)),
        ("grpcs://[::1]:8001", Address("grpcs", "::1", 8001)),
    ],
)
def test_an_address_is_taken_apart(text: str, expected: Address) -> None:
    assert Address.parse(text) == expected


def test_an_address_is_written_as_it_may_be_read() -> None:
    assert str(Address.parse("http://[::1]:8000/a")) == "http://[::1]:8000/a"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is no endpoint: write http://host:8000 or grpc://host:8001"),
        ("host:8000", "is no endpoint"),
        ("tcp://host:8000", "is no endpoint"),
        ("http://", "is no endpoint"),
        ("http://user:pw@host", "endpoint 'host': expected host and port only; credentials go into headers="),
        ("http://host?a=1", "expected host and port only"),
        ("grpc://host", "endpoint 'grpc://host' has no port: write grpc://host:8001"),
        ("grpc://host:99999", "has no port"),
        ("grpc://host:8001/a", "endpoint 'grpc://host:8001/a' has a path, which only HTTP has"),
    ],
)
def test_what_is_no_address_says_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="endpoint") as error:
        Address.parse(text)
    assert words in str(error.value)
    assert "pw" not in str(error.value)


# -- which one


def test_the_one_with_the_fewest_outstanding_is_asked() -> None:
    all = endpoints(3)
    all.all[0].outstanding, all.all[1].outstanding, all.all[2].outstanding = 2, 1, 2
    assert all.pick(0.0) is all.all[1]


def test_idle_ones_take_turns() -> None:
    all = endpoints(3)
    assert Counter(all.all.index(all.pick(0.0)) for _ in range(9)) == {0: 3, 1: 3, 2: 3}  # type: ignore[arg-type]


def test_another_than_the_one_that_refused_is_asked() -> None:
    all = endpoints(2)
    assert {all.pick(0.0, besides=all.all[0]) for _ in range(5)} == {all.all[1]}
    assert endpoints(1).pick(0.0, besides=None) is not None
    alone = endpoints(1)
    assert alone.pick(0.0, besides=alone.all[0]) is None


def test_one_that_failed_is_left_alone_for_a_growing_while() -> None:
    endpoint = Endpoint(Address("http", "host", 1))
    now, rests = 0.0, []
    for _ in range(9):
        rest_s = endpoint.failed(now, now)
        assert rest_s is not None
        rests.append(rest_s)
        assert not endpoint.is_open(now + rest_s - 0.001)
        now += rest_s + 0.001
        assert endpoint.is_open(now)
    assert rests == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    endpoint.answered()
    assert endpoint.failed(now, now) == 0.1


def test_requests_that_fail_together_count_once() -> None:
    endpoint = Endpoint(Address("http", "host", 1))
    assert endpoint.failed(began_at=1.0, now=2.0) == 0.1
    assert endpoint.failed(began_at=1.5, now=2.01) is None
    assert endpoint.failures == 1


def test_after_its_rest_one_request_tries_it() -> None:
    all = endpoints(1)
    all.all[0].failed(0.0, 0.0)
    assert all.pick(0.05) is None
    assert all.rest_s(0.05) == pytest.approx(0.05)
    assert all.pick(0.2) is all.all[0]
    all.all[0].outstanding += 1
    assert all.pick(0.2) is None
    all.all[0].answered()
    assert all.pick(0.2) is all.all[0]


# -- retries


@untimed
@given(st.lists(st.booleans(), max_size=300))
def test_no_more_than_a_tenth_is_sent_again(failed: list[bool]) -> None:
    budget = RetryBudget()
    retries = 0
    for fails in failed:
        budget.earn()
        retries += fails and budget.spend()
    assert retries <= 1 + len(failed) / 10


def test_the_first_failure_may_be_sent_again() -> None:
    budget = RetryBudget()
    budget.earn()
    assert budget.spend()
    assert not budget.spend()


def test_what_is_saved_up_has_an_end() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.earn()
    assert sum(budget.spend() for _ in range(1000)) == 10
