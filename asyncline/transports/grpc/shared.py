"""Shared: what the connections of one GrpcTransport have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from grpclib.const import Handler

from asyncline.engine.engine import Engine
from asyncline.engine.item import Item
from asyncline.settings import ServiceSettings
from asyncline.transports.grpc.head import Head
from asyncline.transports.grpc.limits import CallLimits
from asyncline.transports.grpc.status import Headers
from asyncline.transports.guard.connections import Connections
from asyncline.transports.guard.guard import ConnGuard
from asyncline.transports.guard.turns import Turns
from asyncline.transports.timing import Timing, trace_headers

if TYPE_CHECKING:
    from asyncline.transports.grpc.connection import Connection


class Shared:
    """Made once; nothing of it belongs to one connection.

    :param methods: by path.
    :param open_methods: paths of those that need no token.
    """

    def __init__(
        self,
        engine: Engine,
        settings: ServiceSettings,
        guard: ConnGuard,
        call_limits: CallLimits,
        methods: Mapping[str, Handler],
        open_methods: frozenset[str],
    ) -> None:
        self.engine = engine
        self.settings = settings
        self.limits = guard.limits
        self.call_limits = call_limits
        self.turns = Turns(call_limits.turn_burst, guard.turns)
        self.methods = methods
        self.open_methods = open_methods
        self.max_body_nbytes = settings.max_body_nbytes
        self.token = settings.auth_token.get_secret_value().encode() if settings.auth_token else None
        self.connections: Connections[Connection] = Connections()
        self.tasks: set[asyncio.Task[None]] = set()
        self._timing = Timing(engine.plan)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a method; none raises."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def about(self, item: Item, head: Head) -> Headers:
        """What the trailers say of an Item: its ids, where its time went, and where its timeline is, if asked."""
        found = [("x-data-id", str(item.data_id)), ("server-timing", self._timing.text(item))]
        if item.log_id:
            found.append(("x-log-id", item.log_id))
        if head.wants_trace:
            found += [(name.lower(), value) for name, value in trace_headers(item)]
        return found
