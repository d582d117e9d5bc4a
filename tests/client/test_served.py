"""Clients of a server in a process of its own, by every wire: what becomes of calls when it, or a worker, ends."""

from __future__ import annotations

import asyncio
import re
import signal

import pytest

from asyncline import Unavailable, WorkerCrashed
from asyncline.client import AsyncClient, Refused
from tests.serving import Server, serving

PORTS = ("--grpc-port", "0", "--tcp-port", "0")
every_wire = pytest.mark.parametrize("wire", ["http", "grpc", "tcp"])


def address_of(server: Server, wire: str) -> str:
    return server.address if wire == "http" else server.wait_for(rf"and on ({wire}\S+)")[1]


def where(address: str) -> tuple[str, str]:
    """The option that makes a server listen there again."""
    found = re.fullmatch(r"(\w+)://.*:(\d+)", address)
    assert found is not None
    return f"--{found[1]}-port", found[2]


async def until_begun(client: AsyncClient, calls: int) -> None:
    """Until so many calls are on their way, and the server has answered one that was sent behind them."""
    while client._balancer.endpoints.all[0].outstanding < calls:  # noqa: ASYNC110  # nothing announces it
        await asyncio.sleep(0)
    assert await client.ready()


@every_wire
def test_a_worker_that_dies_fails_its_call_alone(wire: str) -> None:
    async def main(address: str) -> None:
        async with AsyncClient(address, retries=0) as client:
            with pytest.raises(WorkerCrashed):
                await client("work", order={"die": True})
            assert await client("work", order={"n": 3}) == 3

    with serving("good:work", *PORTS) as server:
        asyncio.run(main(address_of(server, wire)))


@every_wire
def test_a_server_that_is_told_to_stop_answers_what_it_has(wire: str) -> None:
    async def main(server: Server) -> None:
        async with AsyncClient(address_of(server, wire), retries=0) as client:
            asked = asyncio.create_task(client("work", order={"n": 5, "pre_s": 0.5}))
            await until_begun(client, 1)
            server.process.send_signal(signal.SIGTERM)
            assert await asked == 5
            code, _ = await asyncio.to_thread(server.end)
            assert code == 0
            with pytest.raises(Refused):
                await client("work", order={"n": 5})

    server = Server("good:work", *PORTS)
    try:
        asyncio.run(main(server))
    finally:
        server.process.kill()


@every_wire
def test_a_server_that_is_killed_loses_its_calls_and_is_found_again(wire: str) -> None:
    async def main(first: Server) -> None:
        address = address_of(first, wire)
        async with AsyncClient(address, retries=0) as client:
            asked = asyncio.create_task(client("work", order={"pre_s": 5}))
            await until_begun(client, 1)
            first.process.kill()
            with pytest.raises(Unavailable) as caught:
                await asked
            assert not caught.value.was_refused, "nobody knows whether it was run"
            await asyncio.to_thread(first.end)
            second = await asyncio.to_thread(Server, "good:work", *PORTS, *where(address))
            try:
                assert await client("work", order={"n": 7}) == 7
            finally:
                second.process.terminate()
                await asyncio.to_thread(second.end)

    server = Server("good:work", *PORTS)
    try:
        asyncio.run(main(server))
    finally:
        server.process.kill()
