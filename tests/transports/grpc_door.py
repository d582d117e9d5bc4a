"""A GrpcTransport in this process, and ways to it: grpcio's client, and one that says what it likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from grpclib.const import Cardinality, Handler
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, TrailersReceived
from h2.settings import SettingCodes

from asyncline import Engine, Graph
from asyncline.observe.statistics import Statistics
from asyncline.observe.usage import Usages
from asyncline.settings import Source, merge
from asyncline.transports.grpc.call import Call
from asyncline.transports.grpc.inbox import Bytes
from asyncline.transports.grpc.inference import Inference
from asyncline.transports.grpc.limits import CallLimits
from asyncline.transports.grpc.service import Service
from asyncline.transports.grpc.transport import GrpcTransport
from asyncline.transports.guard.guard import ConnGuard
from asyncline.transports.guard.limits import Limits
from asyncline.transports.oip import Models

grpc = pytest.importorskip("grpc", reason="pip install grpcio")

RUN, CHAT, HOLD, RAISE = "/test.Test/Run", "/test.Test/Chat", "/test.Test/Hold", "/test.Test/Raise"
# Once for all tests: with the last of its channels grpcio ends a thread, wherever that happens to be collected.
grpc.aio.init_grpc_aio()

BIG = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Test(Service):
    """`Run` runs the graph over bytes, `Chat` says what it hears, `Hold` nothing until it is cancelled."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.calls: list[Call] = []

    def __mapping__(self) -> dict[str, Handler]:
        unary, both = Cardinality.UNARY_UNARY, Cardinality.STREAM_STREAM
        return {
            RUN: Handler(self._run, unary, bytes, bytes),
            CHAT: Handler(self._chat, both, bytes, bytes),
            HOLD: Handler(self._hold, both, bytes, bytes),
            RAISE: Handler(self._raise, unary, bytes, bytes),
        }

    def _run(self, call: Call, data: Bytes) -> None:
        self.calls.append(call)
        call.run(bytes(data), lambda item: item.result())

    async def _chat(self, call: Call) -> None:
        async for message in call:
            await call.send_message(message)

    async def _hold(self, call: Call) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.left.set()

    def _raise(self, call: Call, data: Bytes) -> None:
        raise RuntimeError(f"secret {bytes(data)!r}")


class Door:
    """A transport, its Engine, and ways to it."""

    def __init__(self, engine: Engine, transport: GrpcTransport, service: Test) -> None:
        self.engine = engine
        self.transport = transport
        self.service = service
        self._raws: list[Raw] = []

    @property
    def place(self) -> str:
        return self.transport.address.partition("://")[2]

    @asynccontextmanager
    async def channel(self, **kwargs: Any) -> AsyncIterator[grpc.aio.Channel]:
        async with grpc.aio.insecure_channel(self.place, options=BIG, **kwargs) as channel:
            yield channel

    async def raw(self, hello: bytes | None = None, **settings: int) -> Raw:
        host, _, port = self.place.partition(":")
        raw = Raw(*await asyncio.open_connection(host, int(port)), settings)
        self._raws.append(raw)
        raw.send(raw.hello if hello is None else hello)
        return raw

    async def until_empty(self) -> None:
        """Nothing announces that a server has seen a client leave: let the loop go round, for a bounded time."""
        async with asyncio.timeout(20):
            while self.engine.admission.in_flight or self.engine.admission.nbytes:  # noqa: ASYNC110  # as it says
                await asyncio.sleep(0)

    async def close(self) -> None:
        for raw in self._raws:
            await raw.close()


class Raw:
    """A client that says what it likes; `h2` writes what is well-formed."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, settings: dict[str, int] | None = None
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings({SettingCodes[name.upper()]: value for name, value in settings.items()})
        self.hello = self.h2.data_to_send()
        self.events: list[Event] = []

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def flush(self) -> None:
        self.send(self.h2.data_to_send())

    def call(self, path: str, data: bytes | None = b"", *, end: bool = True, **headers: str) -> int:
        """Begin a call; returns its stream. With `data` None there is no message yet."""
        stream = self.h2.get_next_available_stream_id()
        given = {":method": "POST", "content-type": "application/grpc", "te": "trailers"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        pseudo = [(":method", given.pop(":method")), (":scheme", "http"), (":path", path), (":authority", "test")]
        self.h2.send_headers(stream, [*pseudo, *given.items()])
        if data is not None:
            self.h2.send_data(stream, framed(data), end_stream=end)
        self.flush()
        return stream

    async def until(self, *kinds: type[Event], stream: int | None = None) -> Any:
        """The next event of one of these kinds; EOFError at the end of the connection."""
        while True:
            for event in self.events:
                if isinstance(event, kinds) and stream in (None, getattr(event, "stream_id", None)):
                    self.events.remove(event)
                    return event
            data = await self.reader.read(2**16)
            if not data:
                raise EOFError
            self.events += self.h2.receive_data(data)
            self.flush()

    async def answer(self, stream: int) -> tuple[bytes, dict[str, str]]:
        """The data of an answer so far as the window lets it come, and its trailers."""
        data = b""
        while True:
            event = await self.until(DataReceived, TrailersReceived, stream=stream)
            if isinstance(event, TrailersReceived):
                return data, dict(event.headers or ())  # type: ignore[arg-type]
            data += event.data

    async def rest(self) -> bytes:
        """All that comes until the server hangs up."""
        async with asyncio.timeout(20):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


@asynccontextmanager
async def serving(
    graph: Graph,
    limits: CallLimits | None = None,
    guard: dict[str, Any] | None = None,
    services: Iterable[Service] = (),
    **service: Any,
) -> AsyncIterator[Door]:
    """Serve a graph; in the end, nothing may be left."""
    written = {"service": {"grpc_port": 0, **service}}
    settings = merge(graph.name, {o.name: o.code_settings for o in graph.ops}, Source("test", written))
    engine = Engine(graph, settings)
    statistics = Statistics(engine)
    engine.hooks.add(statistics)
    test = Test()
    served = [test, Inference(engine, Models(engine, Usages(engine, statistics))), *services]
    limited = replace(Limits.of(settings.service), **{"linger_s": 0.2, **(guard or {})})
    made = ConnGuard(engine, settings.service, limited)
    transport = GrpcTransport(engine, settings.service, served, made, limits)
    await transport.start()
    door = Door(engine, transport, test)
    try:
        async with engine:
            try:
                yield door
            finally:
                await door.close()
            await door.until_empty()
    finally:
        transport.close()
        await transport.wait_closed()
        assert not transport.connections and not made.count
