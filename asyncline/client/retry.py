"""Whether, and when, a request is sent again: pure policy, without a clock of its own. Times are in seconds."""

from __future__ import annotations

from collections.abc import Callable

from asyncline.client.base import Refused
from asyncline.client.budget import RetryBudget
from asyncline.errors import RequestError, Unavailable

FIRST_S = 0.05
MOST_S = 2.0
"""Between these the longest pause doubles with each retry."""


class RetryPolicy:
    """Of one client.

    :param retries: most for one request.
    :param random: a number from 0 to 1.
    :param comes_back: whether a server is asked again that did not say when, if there is no other.
    """

    def __init__(self, retries: int, random: Callable[[], float], *, comes_back: bool = True) -> None:
        self.retries = retries
        self.comes_back = comes_back
        self.budget = RetryBudget()
        self._random = random

    def pause_s(
        self, error: RequestError, tried: int, remaining_s: float, *, idempotent: bool, elsewhere: bool
    ) -> float | None:
        """How long to wait before the request is sent again; None: it is not.

        The pause is anything up to a bound that doubles ("full jitter"), so that clients which failed together do not
        come back together. A server that said when to come back is not asked again earlier.

        :param tried: how often it was sent.
        :param remaining_s: until its deadline.
        :param idempotent: running it twice does no harm.
        :param elsewhere: it would go to another server than the one that failed.
        """
        if not (error.was_refused or (idempotent and isinstance(error, Unavailable))):
            return None
        said_s = getattr(error, "rest_s", None)
        retry_after_s = getattr(error, "retry_after_s", None) if said_s is None else said_s
        if retry_after_s is None or tried > self.retries:
            return None
        if not elsewhere and not self.comes_back and said_s is None:
            return None
        pause_s: float = self._random() * min(FIRST_S * 2 ** (tried - 1), MOST_S)
        if isinstance(error, Refused) and (elsewhere or said_s is None):
            # Nobody said anything. Another server need not wait either.
            pause_s = 0.0 if elsewhere else pause_s
        elif not elsewhere:
            pause_s += retry_after_s
        if pause_s >= remaining_s or not self.budget.spend():
            return None
        return pause_s
