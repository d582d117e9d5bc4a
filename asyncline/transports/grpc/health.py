"""Health: grpc.health.v1, as Kubernetes and load balancers ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from grpclib.const import Cardinality, Handler

from asyncline.engine.engine import Engine
from asyncline.errors import NotFound
from asyncline.transports.grpc.call import Call
from asyncline.transports.grpc.inbox import Bytes
from asyncline.transports.grpc.service import Service
from asyncline.wire.grpc import health
from asyncline.wire.grpc.descriptors import HEALTH

WATCH_S = 1.0
"""How often watchers look. Nothing announces that an Engine is not ready: some reasons are a matter of time."""
CHECK = f"/{health.SERVICE}/Check"


class Health(Service):
    """Serving while the Engine has no problem; one word for the server and each of its services.

    :param names: of the services that may be asked for, besides the server itself and its graph.
    """

    files = (HEALTH,)
    open_methods = (CHECK,)

    def __init__(self, engine: Engine, names: set[str]) -> None:
        self._engine = engine
        self._names = {"", engine.graph.name, health.SERVICE, *names}

    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            CHECK: Handler(self._check, Cardinality.UNARY_UNARY, bytes, bytes),
            f"/{health.SERVICE}/Watch": Handler(self._watch, Cardinality.UNARY_STREAM, bytes, bytes),
        }

    def _check(self, call: Call, data: Bytes) -> None:
        name = health.decode_request(data)
        if name not in self._names:
            raise NotFound(f"there is no service {name[:64]!r}")
        call.answer(health.encode_response(self._status(name)))

    async def _watch(self, call: Call) -> None:
        name = health.decode_request(await call.recv_message() or b"")
        said = None
        while True:
            status = self._status(name)
            if status != said:
                said = status
                await call.send_message(health.encode_response(status))
            await asyncio.sleep(WATCH_S)

    def _status(self, name: str) -> int:
        if name not in self._names:
            return health.SERVICE_UNKNOWN
        return health.SERVING if self._engine.problem() is None else health.NOT_SERVING
