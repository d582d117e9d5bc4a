"""The connection guard's policy, without sockets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from asyncline import Engine, Graph, Request, op
from asyncline.engine.hooks import Observer
from asyncline.settings import ServiceSettings
from asyncline.transports.guard import limits as module
from asyncline.transports.guard.guard import ConnGuard, Ticket, peer_of
from asyncline.transports.guard.limits import Limits
from asyncline.transports.guard.unread import Unread


class Seen(Observer):
    def __init__(self) -> None:
        self.said: list[tuple[str, ...]] = []

    def connection_opened(self, wire: str) -> None:
        self.said.append(("opened", wire))

    def connection_closed(self, wire: str, reason: str) -> None:
        self.said.append(("closed", wire, reason))

    def connection_refused(self, wire: str, reason: str) -> None:
        self.said.append(("refused", wire, reason))


def guard(*observers: Observer, **limits: Any) -> ConnGuard:
    @op(cpu="inline")
    def echo(value: Any) -> Any:
        return value

    engine = Engine(Graph("test", echo(Request())), observers=observers)
    return ConnGuard(engine, ServiceSettings(), Limits(**{"reserved": 0, **limits}))


def admitted(guard: ConnGuard, address: Any = ("10.0.0.1", 1)) -> Ticket:
    ticket = guard.admit("rest", address)
    assert ticket is not None
    return ticket


def test_connections_over_the_limit_are_refused_until_one_ends() -> None:
    guarding = guard(max_connections=2)
    first, _ = (admitted(guarding, (f"10.0.0.{n}", 1)) for n in range(2))
    assert guarding.admit("rest", ("10.0.0.9", 1)) is None
    first.close()
    admitted(guarding, ("10.0.0.9", 1))


def test_one_peer_cannot_have_all_connections_and_all_wires_count() -> None:
    guarding = guard(max_connections_per_peer=2)
    first = admitted(guarding)
    assert guarding.admit("tcp", ("10.0.0.1", 2)) is not None
    assert guarding.admit("grpc", ("10.0.0.1", 3)) is None
    admitted(guarding, ("10.0.0.2", 1))
    first.close()
    admitted(guarding)


@pytest.mark.parametrize("limit", [{"max_connections": 1}, {"max_connections_per_peer": 1}])
def test_over_a_limit_there_is_a_reserve_of_rest_that_is_in_no_other_count(limit: dict[str, int]) -> None:
    guarding = guard(**limit, reserved=2)
    first = admitted(guarding)
    extra = [admitted(guarding), admitted(guarding)]
    assert not first.over and extra[0].over
    assert guarding.admit("rest", ("10.0.0.1", 9)) is None
    assert guarding.count == guarding.peers["10.0.0.1"] == 1
    first.close()
    assert not admitted(guarding).over
    extra.pop().close()
    assert guarding.reserved == 1
    assert guarding.admit("tcp", ("10.0.0.1", 9)) is None and guarding.admit("grpc", ("10.0.0.1", 9)) is None
    assert admitted(guarding).limits.header_s <= 1.0 < first.limits.header_s


def test_a_ticket_counts_once_however_often_it_is_closed_and_nothing_stays_of_a_peer() -> None:
    guarding = guard()
    ticket = admitted(guarding)
    for _ in range(3):
        ticket.close()
    assert guarding.count == 0 and not guarding.peers
    assert repr(guarding) == "<ConnGuard 0 of 2048 connections, 0 peers>"


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        (("192.0.2.7", 80), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 80, 0, 0), "2001:db8:1:2::"),
        (("2001:db8:1:2::9", 80, 0, 0), "2001:db8:1:2::"),
        (("fe80::1%eth0", 80, 0, 2), "fe80::"),
        (("::ffff:192.0.2.7", 80, 0, 0), "192.0.2.7"),
        ("", ""),  # of a Unix socket
    ],
)
def test_a_peer_is_an_address_or_a_network(address: Any, peer: str) -> None:
    assert peer_of(address) == peer


def test_peers_without_an_address_are_counted_in_all_only() -> None:
    guarding = guard(max_connections=3, max_connections_per_peer=1)
    for _ in range(3):
        admitted(guarding, "")
    assert guarding.admit("rest", "") is None


def test_observers_see_connections_come_and_end_and_why() -> None:
    seen = Seen()
    guarding = guard(seen, max_connections=1)
    ticket = admitted(guarding)
    guarding.admit("tcp", ("10.0.0.2", 1))
    ticket.because("slow")
    ticket.because("stalled")
    ticket.close()
    assert seen.said == [("opened", "rest"), ("refused", "tcp", "connections"), ("closed", "rest", "slow")]


@pytest.mark.parametrize(
    ("descriptors", "connections", "highest"),
    [(1_048_576, 2048, 1_048_511), (1024, 768, 959), (256, 128, 191), (100, 50, 74)],
)
def test_descriptors_are_kept_back(
    descriptors: int, connections: int, highest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_descriptors", lambda: descriptors)
    limits = Limits.of(ServiceSettings())
    assert (limits.max_connections, limits.max_descriptor) == (connections, highest)
    assert Limits.of(ServiceSettings(max_connections=7)).max_connections == 7


def test_the_defaults_are_those_of_the_settings() -> None:
    limits = Limits.of(ServiceSettings())
    assert replace(Limits(), max_descriptor=limits.max_descriptor, max_connections=limits.max_connections) == limits


def test_an_upload_has_a_grace_then_a_rate_and_an_end() -> None:
    limits = Limits(body_s=30, grace_s=5, upload_nbytes_s=1000)
    assert limits.upload_ends_at(100, 0) == 105
    assert limits.upload_ends_at(100, 2000) == 107
    assert limits.upload_ends_at(100, 10**9) == 130
    assert replace(limits, upload_nbytes_s=0).upload_ends_at(100, 0) == 130


def test_a_byte_a_second_is_ended_soon_after_the_grace() -> None:
    limits = Limits()
    ends_at = next(s for s in range(100) if s >= limits.upload_ends_at(0, s))
    assert ends_at == 6


def test_unread_bytes_are_bytes_in_flight_until_they_are_read() -> None:
    guarding = guard(stall_s=30, download_nbytes_s=1000)
    admission = guarding.engine.admission
    unread = Unread(guarding)
    assert unread.begin(50_000, 100.0) == 130.0
    unread.add(10_000)
    assert admission.nbytes == 60_000
    unread.end()
    unread.end()
    assert admission.nbytes == 0


def test_who_reads_too_little_is_stalled_and_who_reads_enough_gets_as_long_again() -> None:
    guarding = guard(stall_s=30, download_nbytes_s=1000)
    unread = Unread(guarding)
    unread.begin(50_000, 100.0)
    unread.add(10_000)
    assert unread.look(60_000, 110.0) == 130.0
    assert unread.look(30_000, 130.0) == 160.0
    assert guarding.engine.admission.nbytes == 30_000
    assert unread.look(1_000, 160.0) is None  # 29,000 of 30,000 that it had to read
