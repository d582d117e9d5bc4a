"""Deadlines."""

from __future__ import annotations

import pytest

from asyncline.deadline import expires_at


@pytest.mark.parametrize(
    ("client", "expires"), [(None, 110.0), (3.0, 103.0), (10.0, 110.0), (60.0, 110.0), (0.0, 100.0)]
)
def test_a_request_expires_at_the_earlier_of_the_clients_deadline_and_the_servers(
    client: float | None, expires: float
) -> None:
    assert expires_at(100.0, 10.0, client) == expires
