"""AsyncClient: calls to servers of ours, whatever the wire."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from importlib import import_module
from types import TracebackType
from typing import Any, Self, TypeVar

from asyncline.client.address import Address
from asyncline.client.balancer import Balancer
from asyncline.client.base import CONNECT_S, Malformed, Refused
from asyncline.client.endpoints import Endpoint
from asyncline.client.retry import RetryPolicy
from asyncline.client.wires.base import Call, Wire, WireSettings
from asyncline.errors import Unavailable

log = logging.getLogger("asyncline.client")

TIMEOUT_S = 60.0
MAX_TIMEOUT_S = 10.0**6
MAX_ANSWER_MB = 256.0
_NOTHING: Any = type("Nothing", (), {"__repr__": lambda self: "NOTHING"})()

_T = TypeVar("_T")


class AsyncClient:
    """Calls the graphs of one or several servers that serve the same.

        async with AsyncClient("tcp://host:8002") as client:
            texts = await client("ocr", image=page)     # the fields of the Request
            answer = await client("echo", payload)      # the whole payload of a bare Request

    Answers are plain values, and numpy arrays, which are read-only. Errors are those of `asyncline.errors`, of the
    class that the server raised: `BadRequest`, `Overloaded` with its `retry_after_s`, `ProductError` with its code.
    Besides, `Refused` (an `Unavailable`): nobody was there; `Malformed` (an `OpError`): the answer makes no sense.

    A call that failed is sent again where that can do no harm: when it was refused at the door or could not be
    sent (`error.was_refused`); after a lost connection (`Unavailable`), of which nobody knows whether it was run, only
    if the call is `idempotent`. It goes to another server if there is one, else after a pause with full jitter, and no
    sooner than the server asked for; at most `retries` times, never past its deadline, and not if more than a tenth of
    the latest calls were sent again. Streams are sent again only until their first part.

    Of several servers the one with the fewest calls outstanding is asked, and one that cannot be reached is left alone
    for a growing while, up to 10 s. A call that is cancelled is cancelled there.

    :param servers: `http://host:8000`, `grpc://host:8001` or `tcp://host:8002`, with TLS `https`, `grpcs` and `tcps`;
        several as a list, or as `tcp://a:8002,b:8002`.
    :param token: the servers' `auth_token`.
    :param timeout: seconds, of a call that does not say; the server's own deadline holds where it is earlier.
    :param retries: most for one call.
    :param idempotent: whether calls that do not say are such as may be run twice.
    :param connections: most at a time to one server. By default 100 over HTTP, and 1 elsewhere,
        which carries many calls.
    :param connect_timeout: seconds.
    :param tls: for the servers with TLS, in place of `verify`; over gRPC its ALPN protocols are set.
    :param verify: whether the certificates of servers have to be good: by what the system trusts, or by a file of
        certificates. With False anybody may pretend to be the server.
    :param max_answer_mb: largest answer in MB (10⁶ bytes).
    :raises ValueError: an address is malformed.
    """

    def __init__(
        self,
        servers: str | Sequence[str],
        *,
        token: str | None = None,
        timeout: float = TIMEOUT_S,
        retries: int = 2,
        idempotent: bool = False,
        connections: int | None = None,
        connect_timeout: float = CONNECT_S,
        tls: ssl.SSLContext | None = None,
        verify: bool | str = True,
        max_answer_mb: float = MAX_ANSWER_MB,
    ) -> None:
        if connections is not None and connections < 1:
            raise ValueError(f"connections={connections}: expected at least 1")
        self._timeout_s = _checked(timeout)
        self._idempotent = idempotent
        self._settings = WireSettings(
            token, connections, _checked(connect_timeout), tls, verify, int(max_answer_mb * 1e6)
        )
        policy = RetryPolicy(retries, random.random)
        self._balancer = Balancer(Address.parse_all(servers), policy, (Unavailable, Malformed), insists=True)
        self._wires: dict[Endpoint, asyncio.Task[Wire]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(
        self,
        graph: str,
        payload: Any = _NOTHING,
        /,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # also tells the server
        log_id: str = "",
        priority: int = 1,
        idempotent: bool | None = None,
        traceparent: str | None = None,
        **fields: Any,
    ) -> Any:
        """Run one request and return its answer.

        :param payload: the whole of a bare Request's; also a dict of fields, if one is called as a parameter is here.
            Arrays and bytes must not change until the answer is there.
        :param timeout: seconds.
        :param log_id: what the server calls it in its log.
        :param priority: 1 is the highest.
        :param idempotent: whether it may be run twice.
        :param traceparent: the W3C's, of the caller's span.
        :param fields: the fields of the Request.
        :raises RequestError: what became of it instead.
        """
        call = Call(graph, _payload(payload, fields), log_id, priority, traceparent)
        expires_at = self._expires_at(timeout)
        may_run_twice = self._idempotent if idempotent is None else idempotent
        answer, _ = await self._run(
            lambda wire, remaining_s: wire.call(call, remaining_s), expires_at, idempotent=may_run_twice
        )
        return answer

    async def stream(
        self,
        graph: str,
        payload: Any = _NOTHING,
        /,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # also tells the server
        log_id: str = "",
        priority: int = 1,
        traceparent: str | None = None,
        **fields: Any,
    ) -> AsyncGenerator[Any, None]:
        """Run one request and yield the parts of its answer as they come: `async for part in client.stream(...)`.

        Leaving the loop, or closing the generator, cancels the request at the server. It is sent again, as a call is,
        until the first part only.

        :param timeout: seconds, of all parts together.
        :raises RequestError: what became of it instead, perhaps after some parts.
        """
        call = Call(graph, _payload(payload, fields), log_id, priority, traceparent)
        expires_at = self._expires_at(timeout)

        async def begin(wire: Wire, remaining_s: float) -> tuple[AsyncGenerator[Any, None], Any]:
            parts = wire.stream(call, remaining_s)
            return parts, await anext(parts, _NOTHING)

        (parts, part), endpoint = await self._run(begin, expires_at, idempotent=False)
        with self._balancer.outstanding(endpoint):
            try:
                while part is not _NOTHING:
                    yield part
                    part = await anext(parts, _NOTHING)
            finally:
                await parts.aclose()

    async def ready(self, timeout: float = 2.0) -> bool:  # noqa: ASYNC109  # nothing to clean up
        """Whether at least one server can serve; false also where nobody answers within `timeout` seconds."""
        self._check_open()
        wires = [await self._wire(endpoint) for endpoint in self._balancer.endpoints.all]
        return any(await asyncio.gather(*(wire.ready(timeout) for wire in wires)))

    async def close(self) -> None:
        """End the connections; calls that wait for their answers fail. It may be called twice."""
        self._balancer.is_closed = True
        wires, self._wires = self._wires, {}
        for opening in wires.values():
            await asyncio.wait([opening])
            if not opening.cancelled() and opening.exception() is None:
                await opening.result().close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # -- the servers --------------------------------------------------------------------------------

    async def _run(
        self, ask: Callable[[Wire, float], Awaitable[_T]], expires_at: float, *, idempotent: bool
    ) -> tuple[_T, Endpoint]:
        """The answer, and who gave it."""

        async def ask_one(endpoint: Endpoint, remaining_s: float) -> _T:
            return await ask(await self._wire(endpoint), remaining_s)

        self._check_open()
        return await self._balancer.run(ask_one, expires_at, idempotent=idempotent)

    async def _wire(self, endpoint: Endpoint) -> Wire:
        opening = self._wires.get(endpoint)
        if opening is None:
            opening = asyncio.get_running_loop().create_task(
                self._make(endpoint.address), name=f"asyncline client to {endpoint.address}"
            )
            self._wires[endpoint] = opening
        return opening.result() if opening.done() else await asyncio.shield(opening)

    async def _make(self, address: Address) -> Wire:
        # Importing reads files, and takes a while: not on the loop.
        module = await asyncio.to_thread(import_module, f"asyncline.client.wires.{address.kind}")
        wire: Wire = await module.connect(address, self._settings)
        return wire

    # -- checks -------------------------------------------------------------------------------------

    def _expires_at(self, timeout: float | None) -> float:
        return self._now() + (self._timeout_s if timeout is None else _checked(timeout))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _check_open(self) -> None:
        if self._balancer.is_closed:
            raise Refused("the client was closed")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("an AsyncClient belongs to the event loop that it was first used on; Client has its own")

    def __repr__(self) -> str:
        state = "closed " if self._balancer.is_closed else ""
        return f"<AsyncClient {state}{', '.join(map(repr, self._balancer.endpoints.all))}>"


def _payload(payload: Any, fields: dict[str, Any]) -> Any:
    if payload is _NOTHING:
        return fields
    if fields:
        raise TypeError(f"a whole payload as well as fields ({', '.join(fields)}): give one")
    return payload


def _checked(timeout: float) -> float:
    if not (0 < timeout <= MAX_TIMEOUT_S and math.isfinite(timeout)):
        raise ValueError(f"a timeout of {timeout} s: expected more than 0 and at most {MAX_TIMEOUT_S:g}")
    return timeout
