"""Msgpack over TCP and clients that leave a connection hanging, on real sockets in this process."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import numpy as np
import pytest
import uvloop

from asyncline import Graph, Request
from asyncline.client.tcp import TcpConnection
from asyncline.errors import BadRequest
from tests.transports.test_tcp import HELLO_BYTES, MB, Door, Gate, Raw, echo, one_op, serving, written


async def small(door: Door) -> Raw:
    """A client that has little room for answers and reads none."""
    client = socket.socket()
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.get_running_loop().sock_connect(client, door.where)
    raw = Raw(*await asyncio.open_connection(sock=client, limit=4096))
    door.opened.append(raw)
    return raw


async def fill(door: Door, raw: Raw) -> None:
    """Let it have more answers than the kernel holds, and fewer than stop the writing."""
    before = next(door.engine.ids)
    raw.send(b"".join(written(n, n) for n in range(8)))
    async with asyncio.timeout(20):
        while next(door.engine.ids) - before < 8:  # noqa: ASYNC110  # nothing tells how many were taken
            await asyncio.sleep(0)


def megabyte(value: Any) -> Any:
    return np.zeros(MB, np.uint8)


@pytest.mark.parametrize("how", ["idle", "half-closed"])
async def test_answers_that_are_not_read_do_not_keep_a_connection_that_is_closing(how: str) -> None:
    async with serving(
        one_op(megabyte), guard={"unread_nbytes": 100 * MB, "linger_s": 0.02}, keepalive_s=0.05, stall_timeout_s=0.05
    ) as door:
        raw = await small(door)
        raw.send(HELLO_BYTES)
        await fill(door, raw)
        if how == "half-closed":
            raw.writer.write_eof()
        await door.until_closed(0)


async def test_a_body_for_a_stream_that_waits_for_its_answer_is_never_received() -> None:
    gate = Gate(Request())
    async with serving(Graph("test", gate), max_in_flight=1) as door:
        raw = await door.raw()
        raw.call(1, 1)
        await gate.entered.acquire()
        raw.send(written(1, np.zeros(100_000, np.uint8))[:50_000])
        error = await raw.goodbye()
        assert type(error) is BadRequest and error.message == "stream 1 waits for its answer already"


async def opened_and_cancelled() -> None:
    wrong: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, about: wrong.append(about))
    async with serving(one_op(echo)) as door:
        for turns in range(20):
            opening = asyncio.create_task(TcpConnection.open(*door.where))
            for _ in range(turns):
                await asyncio.sleep(0)
            if opening.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await opening
            else:
                await (await opening).close()
        connection = await door.connect()
        assert await connection.call("test", 1) == 1
        await door.until_closed(1)
    assert not wrong


def test_an_opening_may_be_cancelled_whenever_on_uvloop() -> None:
    uvloop.run(opened_and_cancelled())
