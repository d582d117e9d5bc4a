"""Balancer: requests to one of several servers, and to another, or again, where that can do no harm."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from asyncline.client.address import Address
from asyncline.client.base import Refused
from asyncline.client.endpoints import Endpoint, Endpoints
from asyncline.client.retry import RetryPolicy
from asyncline.errors import RequestError

log = logging.getLogger("asyncline.client")

_T = TypeVar("_T")


class Balancer:
    """Says which server is asked, and whether, when and where once more. Belongs to the loop that it is used on.

    :param faults: the errors after which a server is left alone for a while. After any other it has answered, unless
        the error says how long it asks to be left alone.
    :param insists: whether a server is asked even where all are left alone: the one that has been longest.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        policy: RetryPolicy,
        faults: tuple[type[RequestError], ...],
        *,
        insists: bool,
    ) -> None:
        self.endpoints = Endpoints(addresses)
        self.policy = policy
        self.requests = 0
        #: How many of them were sent again, counting each time.
        self.retries = 0
        #: Set it, and no request is sent any more.
        self.is_closed = False
        self._faults = faults
        self._insists = insists

    async def run(
        self, ask: Callable[[Endpoint, float], Awaitable[_T]], expires_at: float, *, idempotent: bool = False
    ) -> tuple[_T, Endpoint]:
        """The answer, and who gave it.

        :param ask: sends the request to a server, with the seconds that are left.
        :param expires_at: by the loop's clock.
        :param idempotent: running it twice does no harm.
        :raises LookupError: all servers are left alone.
        :raises Refused: it is closed.
        :raises RequestError: as of `ask`.
        """
        self.policy.budget.earn()
        self.requests += 1
        tried = 0
        failed: Endpoint | None = None
        failure: RequestError | None = None
        while True:
            if self.is_closed:
                raise Refused("the client was closed")
            endpoint = self._pick(failed)
            if endpoint is None:
                raise failure or LookupError("all servers are left alone")
            tried += 1
            try:
                with self.outstanding(endpoint):
                    return await ask(endpoint, max(1e-3, expires_at - self._now())), endpoint
            except RequestError as error:
                failed, failure = endpoint, error
                pause_s = self.policy.pause_s(
                    error,
                    tried,
                    expires_at - self._now(),
                    idempotent=idempotent,
                    elsewhere=self._pick(failed) not in (failed, None),
                )
                if pause_s is None or self.is_closed:
                    raise
                log.info("%s: tried again in %.3f s: %s", endpoint.address, pause_s, error)
            self.retries += 1
            await asyncio.sleep(pause_s)

    @contextmanager
    def outstanding(self, endpoint: Endpoint) -> Iterator[None]:
        """While a request is there; what becomes of it is noted."""
        began_at = self._now()
        endpoint.outstanding += 1
        try:
            yield
        except RequestError as error:
            asked_s = getattr(error, "rest_s", None)
            if isinstance(error, self._faults) or asked_s is not None:
                self._failed(endpoint, began_at, error, asked_s)
            else:
                endpoint.answered()
            raise
        else:
            endpoint.answered()
        finally:
            endpoint.outstanding -= 1

    def _failed(self, endpoint: Endpoint, began_at: float, error: RequestError, asked_s: float | None) -> None:
        rest_s = endpoint.failed(began_at, self._now(), asked_s)
        if rest_s is not None and not (self._insists and len(self.endpoints.all) == 1):
            log.warning("server %s is left alone for %.1f s: %s", endpoint.address, rest_s, error)

    def _pick(self, failed: Endpoint | None) -> Endpoint | None:
        """The best but the one that just failed; where there is none, see `insists`."""
        now = self._now()
        best = self.endpoints.pick(now, besides=failed)
        if best is not None:
            return best
        if not self._insists:
            return self.endpoints.pick(now)
        return min(self.endpoints.all, key=lambda endpoint: (endpoint is failed, endpoint.rests_until))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
