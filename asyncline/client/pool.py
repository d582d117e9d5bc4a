"""Pool: the endpoints of one remote model, one Connection each."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module

from asyncline.client.address import Address
from asyncline.client.balancer import Balancer
from asyncline.client.base import Connection, Description, Malformed, remote_model, too_late
from asyncline.client.endpoints import Endpoint
from asyncline.client.retry import RetryPolicy
from asyncline.errors import DeadlineExceeded, LoadError, Unavailable
from asyncline.wire.oip import InferRequest, InferResponse

log = logging.getLogger("asyncline.client")

DESCRIBE_S = 10.0
"""Longest time to ask an endpoint for a model's metadata."""

_FAULTS = (Unavailable, DeadlineExceeded, Malformed)
"""Outcomes after which an endpoint is left alone for a while; others are answers."""


@dataclass(frozen=True)
class PoolStatistics:
    requests: int
    retries: int
    outstanding: Mapping[str, int]
    """By the address of the endpoint."""
    resting: tuple[str, ...]
    """The addresses of those that are left alone."""


class Pool:
    """Sends requests to the endpoints of one model. Belongs to the loop on which it is made."""

    def __init__(
        self, model: str, version: str, addresses: Sequence[Address], headers: Mapping[str, str], max_answer_nbytes: int
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.model = model
        self.version = version
        self._balancer = Balancer(addresses, RetryPolicy(1, random.random, comes_back=False), _FAULTS, insists=False)
        self._endpoints = self._balancer.endpoints
        self._headers = headers
        self._max_answer_nbytes = max_answer_nbytes
        self._connections: dict[Endpoint, Connection] = {}
        self._binary = True

    async def open(self) -> Description:
        """Ask the endpoints for the model's metadata.

        :raises LoadError: none of them can be reached, or one does not have the model, or has another of that name.
        """
        for endpoint in self._endpoints.all:
            self._connections[endpoint] = await self._connect(endpoint.address)
        found = await asyncio.gather(*map(self._describe, self._endpoints.all), return_exceptions=True)
        described: dict[Endpoint, Description] = {}
        absent: list[str] = []
        for endpoint, outcome in zip(self._endpoints.all, found, strict=True):
            if isinstance(outcome, Description):
                described[endpoint] = outcome
            elif isinstance(outcome, (Unavailable, DeadlineExceeded)):
                absent.append(f"{endpoint.address}: {outcome}")
                endpoint.failed(self.loop.time(), self.loop.time())
            else:
                raise outcome
        if not described:
            raise LoadError(f"remote model {self.model!r}: no endpoint can be reached: {'; '.join(absent)}")
        for reason in absent:
            log.warning("remote model %r: %s", self.model, reason)
        first, *others = described
        for other in others:
            if _contract(described[other]) != _contract(described[first]):
                raise LoadError(f"remote model {self.model!r} is not the same at {first.address} and {other.address}")
        self._binary = all(description.binary for description in described.values())
        return replace(described[first], binary=self._binary)

    async def infer(self, request: InferRequest, timeout_s: float, traceparent: str | None = None) -> InferResponse:
        """Run one inference; where an endpoint refuses it unrun, and the budget allows, once more at another, or
        where there is no other, there again after the time that it asks for, if the deadline leaves that.

        :param traceparent: W3C trace context to send.
        :raises RequestError: as of `Connection.infer`.
        """

        async def ask(endpoint: Endpoint, remaining_s: float) -> InferResponse:
            try:
                return await self._connections[endpoint].infer(
                    request, remaining_s, binary=self._binary, traceparent=traceparent
                )
            except DeadlineExceeded:
                raise too_late(remote_model(self.model), timeout_s) from None

        try:
            response, _ = await self._balancer.run(ask, self.loop.time() + timeout_s)
        except LookupError:
            error = Unavailable(
                f"remote model {self.model!r} is not available: its endpoints failed and are left alone"
            )
            error.retry_after_s = max(1, round(self._endpoints.rest_s(self.loop.time())))
            raise error from None
        return response

    async def _describe(self, endpoint: Endpoint) -> Description:
        return await self._connections[endpoint].describe(self.model, self.version, DESCRIBE_S)

    async def _connect(self, address: Address) -> Connection:
        # Importing reads files, and takes a while: not on the loop.
        kind = "grpc" if address.scheme.startswith("grpc") else "rest"
        module = await asyncio.to_thread(import_module, f"asyncline.client.{kind}")
        connection: Connection = await module.connect(address, self._headers, self._max_answer_nbytes)
        return connection

    async def close(self) -> None:
        """End all connections."""
        for connection in self._connections.values():
            await connection.close()

    def statistics(self) -> PoolStatistics:
        now = self.loop.time()
        return PoolStatistics(
            requests=self._balancer.requests,
            retries=self._balancer.retries,
            outstanding={str(each.address): each.outstanding for each in self._endpoints.all},
            resting=tuple(
                str(each.address) for each in self._endpoints.all if each.failures and now < each.rests_until
            ),
        )

    def __repr__(self) -> str:
        return f"<Pool of {self.model!r} at {', '.join(map(repr, self._endpoints.all))}>"


def _contract(description: Description) -> tuple[object, ...]:
    metadata = description.metadata
    return metadata.inputs, metadata.outputs, description.batches, description.max_batch_size
