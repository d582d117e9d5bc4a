"""Pool: the endpoints of one remote model, one Connection each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module

from asyncline.client.address import Address
from asyncline.client.base import Busy, Connection, Description, Malformed, Refused, remote_model, too_late
from asyncline.client.budget import RetryBudget
from asyncline.client.endpoints import Endpoint, Endpoints
from asyncline.errors import DeadlineExceeded, LoadError, RequestError, Unavailable
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
        self._endpoints = Endpoints(addresses)
        self._headers = headers
        self._max_answer_nbytes = max_answer_nbytes
        self._connections: dict[Endpoint, Connection] = {}
        self._budget = RetryBudget()
        self._requests = 0
        self._retries = 0
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
        expires_at = self.loop.time() + timeout_s
        self._requests += 1
        self._budget.earn()
        endpoint = self._endpoints.pick(self.loop.time())
        if endpoint is None:
            error = Unavailable(
                f"remote model {self.model!r} is not available: its endpoints failed and are left alone"
            )
            error.retry_after_s = max(1, round(self._endpoints.rest_s(self.loop.time())))
            raise error
        try:
            return await self._ask(endpoint, request, expires_at, timeout_s, traceparent)
        except (Refused, Busy) as error:
            other = self._endpoints.pick(self.loop.time(), besides=endpoint)
            waits = other is None and error.rest_s is not None and self.loop.time() + error.rest_s < expires_at
            if not (other or waits) or self.loop.time() >= expires_at or not self._budget.spend():
                raise
            if waits:
                await asyncio.sleep(error.rest_s or 0)
                other = self._endpoints.pick(self.loop.time())
                if other is None:
                    raise
        assert other is not None
        self._retries += 1
        return await self._ask(other, request, expires_at, timeout_s, traceparent)

    async def _ask(
        self, endpoint: Endpoint, request: InferRequest, expires_at: float, timeout_s: float, traceparent: str | None
    ) -> InferResponse:
        began_at = self.loop.time()
        endpoint.outstanding += 1
        try:
            response = await self._connections[endpoint].infer(
                request, expires_at - began_at, binary=self._binary, traceparent=traceparent
            )
        except DeadlineExceeded:
            self._failed(endpoint, began_at, "took too long")
            raise too_late(remote_model(self.model), timeout_s) from None
        except _FAULTS as error:
            self._failed(endpoint, began_at, str(error), getattr(error, "rest_s", None))
            raise
        except Busy as error:
            if error.rest_s is None:
                endpoint.answered()
            else:
                self._failed(endpoint, began_at, str(error), error.rest_s)
            raise
        except RequestError:
            endpoint.answered()
            raise
        finally:
            endpoint.outstanding -= 1
        endpoint.answered()
        return response

    def _failed(self, endpoint: Endpoint, began_at: float, reason: str, asked_s: float | None = None) -> None:
        rest_s = endpoint.failed(began_at, self.loop.time(), asked_s)
        if rest_s is not None:
            log.warning("endpoint %s is left alone for %.1f s: %s", endpoint.address, rest_s, reason)

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
            requests=self._requests,
            retries=self._retries,
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
