"""The connections of a transport, until none is left."""

from __future__ import annotations

import asyncio

from asyncline.transports.guard.connections import Connections


class Connection:
    def __init__(self, connections: Connections[Connection]) -> None:
        self.reasons: list[str] = []
        self._connections = connections
        connections.add(self)

    def abort(self, reason: str) -> None:
        self.reasons.append(reason)
        asyncio.get_running_loop().call_soon(self._connections.discard, self)


async def test_without_a_connection_there_is_nothing_to_wait_for() -> None:
    connections: Connections[Connection] = Connections()
    await connections.wait_closed(1e9)
    assert not len(connections)


async def test_those_that_end_by_themselves_are_not_aborted() -> None:
    connections: Connections[Connection] = Connections()
    both = Connection(connections), Connection(connections)
    waiting = asyncio.create_task(connections.wait_closed(1e6))
    await asyncio.sleep(0)
    for connection in connections:  # while it becomes empty
        assert not waiting.done()
        connections.discard(connection)
    await waiting
    assert [each.reasons for each in both] == [[], []]


async def test_those_that_stay_are_aborted_and_gone_then() -> None:
    connections: Connections[Connection] = Connections()
    both = Connection(connections), Connection(connections)
    assert repr(connections) == "<Connections 2 open>"
    await connections.wait_closed(0)
    assert [each.reasons for each in both] == [["stopping"], ["stopping"]] and not len(connections)
