"""Shared: what the connections of one TcpTransport have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncline.engine.engine import Engine
from asyncline.settings import ServiceSettings
from asyncline.transports.guard.connections import Connections
from asyncline.transports.guard.guard import ConnGuard
from asyncline.transports.guard.turns import Turns
from asyncline.transports.tcp.limits import CallLimits
from asyncline.wire.frame import messages
from asyncline.wire.frame.values import Encoder

if TYPE_CHECKING:
    from asyncline.transports.tcp.connection import Connection

SCRATCH_NBYTES = 32 * 1024


class Shared:
    """Made once; nothing of it belongs to one connection."""

    def __init__(self, engine: Engine, settings: ServiceSettings, guard: ConnGuard, call_limits: CallLimits) -> None:
        self.engine = engine
        self.settings = settings
        self.limits = guard.limits
        self.call_limits = call_limits
        self.turns = Turns(call_limits.turn_burst, guard.turns)
        self.max_body_nbytes = settings.max_body_nbytes
        self.max_weight = min(settings.max_decoded_nbytes, call_limits.max_value_weight)
        self.token = settings.auth_token.get_secret_value().encode() if settings.auth_token else None
        self.connections: Connections[Connection] = Connections()
        self.encoder = Encoder(copy=True)
        #: What is read goes here first. Nothing stays between reads, so that one is enough for all connections.
        self.scratch = memoryview(bytearray(SCRATCH_NBYTES))
        hello = messages.ServerHello(engine.graph.name, self.max_body_nbytes, call_limits.max_streams)
        self.hello = messages.encode_hello(hello)
